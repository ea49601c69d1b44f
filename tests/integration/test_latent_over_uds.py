"""A real model behind the Unix domain socket: the same pictures as in this process, joining, parking and leaving."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import models
from worker.engines import tiny
from worker.engines.contract import Engine, Picture, RenderJob
from worker.engines.factory import build

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2
ENTRY = """
[[models]]
name = "m"
engine = "{engine}"
serves = "{serves}"
source = "{source}"
device = "cpu"
max_batch = 4
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["latent", "pipeline"])
def both(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    """The engine in this process, and the same one in another."""
    here, there = tmp_path / "here.toml", tmp_path / "there.toml"
    here.write_text(ENTRY.format(engine=request.param, serves="emulated", source=source))
    there.write_text(ENTRY.format(engine="uds", serves=request.param, source=source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARKROOM_MODELS_FILE", str(there))
        patch.setenv("DARKROOM_WORKER_TORCH_THREADS", "1")
        engines = [build(models.load(path)[0], torch_threads=1) for path in (here, there)]
        for engine in engines:
            engine.load()
    yield engines[0], engines[1]
    for engine in engines:
        engine.unload()


def job(number: int, steps: int) -> RenderJob:
    return RenderJob(
        id=f"gen_{number}/0",
        model="m",
        width=64,
        height=64,
        num_inference_steps=steps,
        guidance_scale=3.0,
        seed=number,
        prompt=f"picture {number}",
    )


def story(engine: Engine) -> dict[str, Picture]:
    """Three pictures; where the engine can, one joins, one stands aside for a while."""
    can = engine.capabilities
    pictures: dict[str, Picture] = {}

    def step() -> None:
        for done in engine.step(lambda _: None).finished:
            picture = engine.decode(done)
            assert isinstance(picture, Picture)
            pictures[done.job_id] = picture

    engine.admit([job(1, 4), job(2, 4)])
    step()
    if can.park:
        engine.park("gen_1/0")
        step()
        engine.unpark("gen_1/0")
    while not can.join_midway and len(pictures) < 2:
        step()
    engine.admit([job(3, 2)])
    while len(pictures) < 3:
        step()
    return pictures


def test_the_other_process_gives_the_same_bytes(both: tuple[Engine, Engine]) -> None:
    here, there = both
    assert there.key(job(1, 4)) == here.key(job(1, 4))
    assert there.facts.engine == f"uds:{here.facts.engine}"
    assert (there.facts.model_revision, there.facts.libraries) == (here.facts.model_revision, here.facts.libraries)
    assert story(there) == story(here)
