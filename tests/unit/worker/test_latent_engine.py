"""What is the latent engine's own, over real pipelines: diffusers' pictures, mixed batches, bad numbers, texts."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.latent_rig import apart, by_diffusers, changed, job, opened, rendered
from worker.engines.contract import Done
from worker.engines.errors import BadOutput, EngineError, EngineLost, OutOfMemory, Unsupported
from worker.engines.latent.engine import LatentEngine

DEMO = Path(__file__).parents[3] / "worker" / "demo_model" / "weights"
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


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_scheduler_draws_the_bare_pipelines_picture_in_one_mixed_batch(
    folder: Path, tmp_path: Path, prediction: str, spacing: str
) -> None:
    options = {"prediction_type": prediction, "timestep_spacing": spacing}
    copy = changed(folder, tmp_path / "model", "scheduler/scheduler_config.json", **options)
    jobs = [
        job(number, scheduler=name, num_inference_steps=number + 2, guidance_scale=1.5 + number, negative_prompt=away)
        for number, (name, away) in enumerate([("", ""), ("ddim", "blurred"), ("euler", ""), ("dpmpp_2m", "dark")])
    ]
    pictures = rendered(opened(copy), *jobs)
    expected = by_diffusers(copy, *jobs)
    for each in jobs:
        assert apart(pictures[each.id].rgb, expected[each.id]) <= 2
    assert len(set(expected.values())) == 4


def test_the_scheduler_of_stable_diffusion_1_too(folder: Path, tmp_path: Path) -> None:
    copy = changed(
        folder, tmp_path / "model", "scheduler/scheduler_config.json", _class_name="PNDMScheduler", skip_prk_steps=True
    )
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "PNDMScheduler"]}))
    jobs = [job(1, num_inference_steps=6), job(2, scheduler="dpmpp_2m")]
    engine = opened(copy)
    seen: list[int] = []
    pictures = rendered(engine, *jobs)
    expected = by_diffusers(copy, *jobs)
    for each in jobs:
        assert apart(pictures[each.id].rgb, expected[each.id]) <= 2
    assert pictures["g_1/0"].scheduler == "PNDMScheduler"
    engine.admit([job(3)])
    while not engine.step(lambda progress: seen.append(progress.steps["g_3/0"])).finished:
        pass
    assert seen == [1, 2, 3, 4, 4]  # one pass more than steps, as diffusers does it


def test_without_guidance_there_is_one_pass_and_the_same_picture(folder: Path, engine: LatentEngine) -> None:
    jobs = [job(1, guidance_scale=1.0), job(2, guidance_scale=0.0)]
    pictures = rendered(engine, *jobs)
    expected = by_diffusers(folder, *jobs)
    for each in jobs:
        assert apart(pictures[each.id].rgb, expected[each.id]) <= 2


def test_the_demo_model_draws_the_bare_pipelines_picture() -> None:
    jobs = [
        job(1, "a large red circle on a white background", guidance_scale=1.5, width=128, height=64),
        job(2, "a small blue star on a black background", guidance_scale=2.0, width=128, height=64, scheduler="ddim"),
    ]
    pictures = rendered(opened(DEMO), *jobs)
    expected = by_diffusers(DEMO, *jobs)
    for each in jobs:
        assert apart(pictures[each.id].rgb, expected[each.id]) <= 2


def test_a_size_between_two_of_the_latents_is_cut_from_the_larger_one() -> None:
    made = opened(DEMO)
    small = rendered(made, job(1, width=72, height=64))["g_1/0"]
    large = rendered(made, job(1, width=80, height=64))["g_1/0"]
    assert (small.width, small.height) == (72, 64)
    rows = [large.rgb[(row * 80 + 4) * 3 : (row * 80 + 76) * 3] for row in range(64)]
    assert small.rgb == b"".join(rows)


def test_the_key_holds_size_and_whether_there_is_guidance(engine: LatentEngine) -> None:
    same = [job(), job(1, num_inference_steps=9), job(2, guidance_scale=9.0), job(3, scheduler="euler"), job(4, "x")]
    assert len({engine.key(each) for each in same}) == 1
    others = [job(width=128), job(height=128), job(guidance_scale=1.0)]
    assert len({engine.key(each) for each in [job(), *others]}) == 4
    for wrong in (job(scheduler="no-such-scheduler"), job(width=2048)):
        with pytest.raises(Unsupported):
            engine.key(wrong)


def test_images_of_two_keys_share_no_pass_but_one_may_stand_aside(engine: LatentEngine) -> None:
    with pytest.raises(EngineError):
        engine.admit([job(1), job(2, width=128)])
    engine.admit([job(1)])
    with pytest.raises(EngineError):
        engine.admit([job(2, width=128)])
    engine.park("g_1/0")
    engine.admit([job(2, width=128)])
    with pytest.raises(EngineError):
        engine.unpark("g_1/0")
    engine.evict("g_2/0")
    engine.step(lambda _: None)
    engine.unpark("g_1/0")
    assert engine.step(lambda _: None).evicted == []


def test_an_image_evicted_in_its_last_step_or_while_it_is_parked_is_gone(engine: LatentEngine) -> None:
    engine.admit([job(1, num_inference_steps=1), job(2)])
    stepped = engine.step(lambda _: engine.evict("g_1/0"))
    assert (list(stepped.finished), list(stepped.evicted)) == ([], ["g_1/0"])
    engine.park("g_2/0")
    engine.evict("g_2/0")
    assert engine.step(lambda _: None).evicted == ["g_2/0"]
    assert engine.step(lambda _: None).evicted == []


def test_numbers_that_are_not_finite_fail_their_image_alone(folder: Path, engine: LatentEngine) -> None:
    good, bad = job(1), job(2, guidance_scale=1e38)
    engine.admit([good, bad])
    done: dict[str, Done] = {}
    while len(done) < 2:
        done.update({each.job_id: each for each in engine.step(lambda _: None).finished})
    with pytest.raises(BadOutput):
        engine.decode(done["g_2/0"])
    assert apart(engine.decode(done["g_1/0"]).rgb, by_diffusers(folder, good)["g_1/0"]) <= 2


def test_a_step_that_raises_is_the_models_error_and_a_reset_forgets_all(
    engine: LatentEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.admit([job(1)])
    for raised, named in [
        (ValueError("x"), ValueError),
        (RuntimeError("CUDA error: an illegal memory access"), EngineLost),
        (MemoryError(), OutOfMemory),
    ]:
        with monkeypatch.context() as patch:

            def fail(*_: Any, error: Exception = raised) -> None:
                raise error

            assert engine._model is not None
            patch.setattr(engine._model._denoiser, "_model", fail)
            with pytest.raises(named):
                engine.step(lambda _: None)
    engine.reset()
    assert rendered(engine, job(1))


def test_texts_are_encoded_once_kept_few_and_never_told(
    engine: LatentEngine, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert engine._model is not None
    conditioning = engine._model._conditioning
    caplog.set_level(logging.DEBUG)
    engine.admit([job(1, "canary " * 50, negative_prompt="canary " * 40)])
    engine.step(lambda _: None)
    out, err = capfd.readouterr()
    assert "canary" not in out + err + caplog.text + repr(conditioning._kept)
    first = conditioning.of(["", "", "red"])
    assert first[0] is first[1] is conditioning.of([""])[0]
    conditioning.of([f"text {number}" for number in range(100)])
    assert len(conditioning._kept) == 64


def test_each_step_says_how_many_images_measured_memory_allows(
    engine: LatentEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.worker.test_latent_memory import GIB, Device
    from worker.engines.latent.memory import MemoryCurve

    model = engine._model
    assert model is not None
    device = Device(room=7 * GIB, base=0, each=GIB)
    monkeypatch.setattr(model, "memory", MemoryCurve(device))
    step, begin, images = model._denoiser.step, model._decoder.begin, 2

    def stepping(members: Any) -> None:
        device.run(images)
        step(members)

    def decoding(*given: Any) -> Any:
        device.decode(3 * GIB)
        return begin(*given)

    monkeypatch.setattr(model._denoiser, "step", stepping)
    monkeypatch.setattr(model._decoder, "begin", decoding)
    engine.admit([job(1, num_inference_steps=3)])
    assert engine.step(lambda _: None).fits == 2
    device.room, images = 100 * GIB, 3
    assert engine.step(lambda _: None).fits == 29
    assert engine.step(lambda _: None).fits == 28  # 3 GiB stay for its picture


def test_a_device_that_cannot_say_how_much_room_it_has_is_lost(
    engine: LatentEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.worker.test_latent_memory import Device
    from worker.engines.latent.memory import MemoryCurve

    class Broken(Device):
        def room_bytes(self) -> int:
            raise RuntimeError("CUDA error: unspecified launch failure")

    assert engine._model is not None
    monkeypatch.setattr(engine._model, "memory", MemoryCurve(Broken(room=1, base=0, each=0)))
    engine.admit([job(1)])
    with pytest.raises(EngineLost):
        engine.step(lambda _: None)
