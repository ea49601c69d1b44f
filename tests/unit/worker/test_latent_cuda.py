"""What is special about an NVIDIA device, walked through on a CPU: torch.cuda is a stand-in, all else is real."""

from pathlib import Path

import pytest

from tests.unit.worker.latent_rig import job, opened, rendered
from worker.engines.latent import LatentEngine
from worker.engines.pipeline import PipelineEngine
from worker.errors import EngineLost

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


def test_an_error_that_sticks_shows_at_the_latest_when_the_engine_is_reset(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was no "CUDA error" where it first came up, and there is nothing to give back."""
    latent = opened(folder)
    pipeline = PipelineEngine(model="m", source=str(folder), device="cpu", torch_threads=1)
    assert rendered(latent, job(1))

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", fail)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    engine: LatentEngine | PipelineEngine
    for engine in (latent, pipeline):
        with pytest.raises(EngineLost):
            engine.reset()
