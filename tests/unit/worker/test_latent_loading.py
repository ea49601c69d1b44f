"""Which models and schedulers the latent engine takes, and what it refuses, with the way out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.latent_rig import changed, job, opened
from worker.engines.errors import EngineError, LoadFailed, Unsupported
from worker.engines.latent.engine import LatentEngine

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_engine(folder: Path) -> LatentEngine:
    return opened(folder)


@pytest.fixture
def engine(tiny_engine: LatentEngine) -> Iterator[LatentEngine]:
    yield tiny_engine
    tiny_engine.reset()


@pytest.mark.parametrize(
    ("file", "options", "named"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "StableDiffusionXLPipeline"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type"),
    ],
)
def test_what_it_cannot_run_is_refused_with_the_way_out(
    folder: Path, tmp_path: Path, file: str, options: dict[str, Any], named: str
) -> None:
    copy = changed(folder, tmp_path / "model", file, **options)
    with pytest.raises(LoadFailed, match=f"{named}.*pipeline"):
        opened(copy)


def test_a_unet_that_wants_more_is_refused(engine: LatentEngine) -> None:
    from worker.engines.latent.model import _problem

    assert engine._model is not None
    pipeline = engine._model._conditioning._pipeline
    assert _problem(pipeline) == ""
    for options in ({"in_channels": 9}, {"addition_embed_type": "text_time"}, {"time_cond_proj_dim": 256}):
        before = {name: pipeline.unet.config[name] for name in options}
        pipeline.unet.register_to_config(**options)
        assert _problem(pipeline)
        pipeline.unet.register_to_config(**before)


def test_a_scheduler_that_the_model_rules_out_is_unsupported(folder: Path, tmp_path: Path) -> None:
    copy = changed(
        folder,
        tmp_path / "model",
        "scheduler/scheduler_config.json",
        _class_name="EulerDiscreteScheduler",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "EulerDiscreteScheduler"]}))
    made = opened(copy)
    assert made.key(job(scheduler="dpmpp_2m"))
    with pytest.raises(Unsupported, match="zero terminal SNR"):
        made.key(job(scheduler="ddim"))


def test_the_models_file_may_name_it(folder: Path) -> None:
    from infra.models import ModelEntry
    from worker.engines.factory import build

    entry = ModelEntry(name="m", engine="latent", source=str(folder), device="cpu", max_batch=3)
    made = build(entry, torch_threads=1)
    assert isinstance(made, LatentEngine)
    assert not made.loaded
    made.load()
    assert made.facts.engine == "latent"
    assert made.capabilities.max_batch == 3
    made.unload()
    with pytest.raises(EngineError, match="not loaded"):
        made.step(lambda _: None)
