"""What every engine must do, whatever is behind it: one suite over the emulated engine and real pipelines.

`tiny` has random weights and DDIM, `demo` is the model in the repository with DPM-Solver++; both through the pipeline
engine and through the latent one. `uds` and the two of `http` have the emulated engine in a real engine server.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from infra import models
from tests.engine_processes import http_engine_server
from worker.engines.base import Bounds, WeightSource
from worker.engines.contract import Done, Engine, Picture, Progress, RenderJob
from worker.engines.devices import Device
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import Unsupported
from worker.engines.factory import build
from worker.engines.http.calls import ModelServer, Patience
from worker.engines.http.engine import HttpEngine
from worker.engines.latent.engine import LatentEngine
from worker.engines.pipeline.engine import PipelineEngine

STEPS = 3
DEMO = Path(__file__).parents[2] / "worker" / "demo_model" / "weights"
SERVED = """
[[models]]
name = "m"
engine = "uds"
serves = "emulated"
step_ms = 5.0
width = 64
height = 64
max_width = 128
max_height = 128
max_batch = 4
"""
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def models_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.toml"
    path.write_text(SERVED)
    return path


@pytest.fixture(scope="session")
def http_server(models_file: Path) -> Iterator[str]:
    with http_engine_server("m", models_file) as address:
        yield address


STEP_BY_STEP = ["emulated", "latent-tiny", "latent-demo", "uds"]
"""Members of these join, stand aside and leave at any step; the others render whole pictures."""
WHOLE = ["tiny", "demo", "http-raw", "http-openai"]


@pytest.fixture(params=[*STEP_BY_STEP, *WHOLE])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made: Engine
    if request.param == "emulated":
        made = EmulatedEngine(model="m", step_s=0.01, alpha=0.5, max_batch=4, bounds=Bounds.square(128), sleep=_no)
    elif request.param == "uds":
        path = request.getfixturevalue("models_file")
        monkeypatch.setenv("DARKROOM_MODELS_FILE", str(path))
        made = build(models.load(path)[0], torch_threads=1)
    elif request.param.startswith("http"):
        made = HttpEngine(
            "m",
            ModelServer(base=request.getfixturevalue("http_server"), api=request.param.partition("-")[2]),
            max_batch=4,
            bounds=Bounds.square(128),
            patience=Patience(timeout_s=300.0, beat_s=0.05),
        )
    else:
        folder: Path = DEMO if request.param.endswith("demo") else request.getfixturevalue("tiny_folder")
        kind: type[LatentEngine | PipelineEngine]
        kind = LatentEngine if request.param.startswith("latent") else PipelineEngine
        made = kind(
            WeightSource(model="m", source=str(folder)),
            Device(name="cpu", threads=1),
            max_batch=4,
            bounds=Bounds.square(128),
        )
    made.load()
    yield made
    made.unload()


def _no(_: float) -> None:
    """No sleep."""


def job(number: int, *, steps: int = STEPS, width: int = 64, height: int = 64, prompt: str = "") -> RenderJob:
    return RenderJob(
        id=f"gen_{number}/0",
        model="m",
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=3.0,
        seed=100 + number,
        prompt=prompt or f"picture {number}",
    )


def render(engine: Engine, *jobs: RenderJob) -> dict[str, Picture]:
    """All pictures of one batch."""
    pictures = {}
    engine.admit(jobs)
    for _ in range(100):
        stepped = engine.step(lambda _: None)
        pictures.update({done.job_id: pixels(engine, done) for done in stepped.finished})
        if len(pictures) + len(stepped.evicted) >= len(jobs):
            return pictures
    raise AssertionError("the batch does not end")


def pixels(engine: Engine, done: Done) -> Picture:
    """The picture, whether the engine encodes or not."""
    picture = engine.decode(done)
    if isinstance(picture, Picture):
        return picture
    with Image.open(BytesIO(picture.data)) as image:
        assert (picture.width, picture.height, picture.media_type) == (*image.size, "image/png")
        return Picture(width=picture.width, height=picture.height, rgb=image.tobytes())


def apart(one: Picture, other: Picture) -> int:
    """The largest difference of two bytes."""
    return max(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True))


def test_it_says_what_it_is_and_can(engine: Engine) -> None:
    assert engine.loaded
    assert engine.facts.model == "m"
    assert engine.facts.engine.rpartition(":")[2] in ("emulated", "pipeline", "latent")
    assert engine.facts.device
    assert engine.facts.model_revision
    assert engine.capabilities.max_batch == 4


def test_a_batch_gives_each_job_a_picture_of_its_own(engine: Engine) -> None:
    pictures = render(engine, job(1), job(2), job(3))
    assert sorted(pictures) == ["gen_1/0", "gen_2/0", "gen_3/0"]
    assert len({picture.rgb for picture in pictures.values()}) == 3
    for picture in pictures.values():
        assert (picture.width, picture.height, len(picture.rgb)) == (64, 64, 64 * 64 * 3)


def test_alone_or_in_any_batch_the_picture_is_the_same(engine: Engine) -> None:
    alone = {number: render(engine, job(number))[f"gen_{number}/0"] for number in (1, 2, 3, 4)}
    for batch in ((1, 2), (4, 3, 2), (2, 1, 4, 3)):
        together = render(engine, *(job(number) for number in batch))
        for number in batch:
            assert apart(alone[number], together[f"gen_{number}/0"]) <= 2
    assert apart(alone[1], alone[2]) > 2


def test_the_same_job_gives_the_same_bytes_again(engine: Engine) -> None:
    assert render(engine, job(7))["gen_7/0"] == render(engine, job(7))["gen_7/0"]


def test_width_and_height_are_not_mixed_up(engine: Engine) -> None:
    picture = render(engine, job(1, width=128, height=72))["gen_1/0"]
    assert (picture.width, picture.height, len(picture.rgb)) == (128, 72, 128 * 72 * 3)


def test_progress_counts_every_step_of_every_job(engine: Engine) -> None:
    seen: list[dict[str, int]] = []
    engine.admit([job(1), job(2)])

    def report(progress: Progress) -> None:
        seen.append(dict(progress.steps))

    finished = 0
    while finished < 2:
        finished += len(engine.step(report).finished)
    if engine.facts.engine.startswith("http"):
        assert not any(seen)  # whole pictures are asked for: it gives signs of life only
    else:
        # On a slow machine there are signs of life within a step, which name no step.
        assert [steps for steps in seen if steps] == [{"gen_1/0": step, "gen_2/0": step} for step in (1, 2, 3)]


def test_a_batch_that_nobody_wants_is_left(engine: Engine) -> None:
    engine.admit([job(1, steps=50), job(2, steps=50)])
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            engine.evict("gen_1/0")
            engine.evict("gen_2/0")

    left: list[str] = []
    while len(left) < 2:
        stepped = engine.step(report)
        assert not stepped.finished
        left += stepped.evicted
    assert sorted(left) == ["gen_1/0", "gen_2/0"]
    assert len(seen) == 2
    assert render(engine, job(1))  # the same id may come again


def test_evicting_one_leaves_the_others_alone(engine: Engine) -> None:
    engine.admit([job(1), job(2)])
    engine.evict("gen_1/0")
    engine.evict("unknown/0")
    pictures = {}
    for _ in range(STEPS):
        pictures.update({done.job_id: done for done in engine.step(lambda _: None).finished})
        if "gen_2/0" in pictures:
            break
    assert apart(pixels(engine, pictures["gen_2/0"]), render(engine, job(2))["gen_2/0"]) <= 2


@pytest.mark.parametrize("engine", WHOLE, indirect=True)
def test_whole_pictures_are_not_joined(engine: Engine) -> None:
    assert (engine.capabilities.join_midway, engine.capabilities.park) == (False, False)


@pytest.mark.parametrize("engine", STEP_BY_STEP, indirect=True)
def test_who_can_evict_one_frees_its_slot_within_a_step(engine: Engine) -> None:
    assert engine.capabilities.evict_one
    engine.admit([job(1, steps=50), job(2)])
    engine.step(lambda _: None)
    engine.evict("gen_1/0")
    assert list(engine.step(lambda _: None).evicted) == ["gen_1/0"]
    engine.evict("gen_1/0")
    assert [done.job_id for done in engine.step(lambda _: None).finished] == ["gen_2/0"]


@pytest.mark.parametrize("engine", STEP_BY_STEP, indirect=True)
def test_who_joins_midway_gets_the_same_picture(engine: Engine) -> None:
    assert engine.capabilities.join_midway
    alone = {number: render(engine, job(number))[f"gen_{number}/0"] for number in (1, 2, 3)}
    pictures = {}
    for number in (1, 2, 3):
        engine.admit([job(number)])
        pictures.update({done.job_id: pixels(engine, done) for done in engine.step(lambda _: None).finished})
    while len(pictures) < 3:
        pictures.update({done.job_id: pixels(engine, done) for done in engine.step(lambda _: None).finished})
    for number in (1, 2, 3):
        assert apart(alone[number], pictures[f"gen_{number}/0"]) <= 2


@pytest.mark.parametrize("engine", STEP_BY_STEP, indirect=True)
def test_who_stands_aside_gets_the_same_picture(engine: Engine) -> None:
    assert engine.capabilities.park
    alone = {number: render(engine, job(number))[f"gen_{number}/0"] for number in (1, 2)}
    engine.admit([job(1), job(2)])
    engine.step(lambda _: None)
    engine.park("gen_1/0")
    pictures = {}
    while "gen_2/0" not in pictures:
        pictures.update({done.job_id: pixels(engine, done) for done in engine.step(lambda _: None).finished})
    stepped = engine.step(lambda _: None)
    assert not stepped.finished
    assert not stepped.evicted
    engine.unpark("gen_1/0")
    while "gen_1/0" not in pictures:
        pictures.update({done.job_id: pixels(engine, done) for done in engine.step(lambda _: None).finished})
    for number in (1, 2):
        assert apart(alone[number], pictures[f"gen_{number}/0"]) <= 2


def test_after_a_reset_nothing_is_left_of_the_batch(engine: Engine) -> None:
    engine.admit([job(1), job(2)])
    engine.reset()
    assert sorted(render(engine, job(3))) == ["gen_3/0"]


def test_keys_keep_apart_what_cannot_go_together(engine: Engine) -> None:
    assert engine.key(job(1)) == engine.key(job(2, prompt="another"))
    assert engine.key(job(1)) != engine.key(job(1, width=128))
    with pytest.raises(Unsupported):
        engine.key(job(1, width=136))


def test_unloaded_and_loaded_again_it_gives_the_same_picture(engine: Engine) -> None:
    before = render(engine, job(1))["gen_1/0"]
    engine.unload()
    assert not engine.loaded
    engine.load()
    assert render(engine, job(1))["gen_1/0"] == before
