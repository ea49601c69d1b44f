"""Models that cannot be used: each is out alone, the others' images go on, and it is tried again."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from schema import fast, pb
from tests.eventually import eventually
from tests.unit.worker.rig import MODEL, FaultyEngine, Rig, job, running, send_again, some
from worker.engines.contract import EngineFacts, Report, Stepped
from worker.engines.errors import EngineAway, EngineLost, LoadFailed, ModelAway, OutOfMemory
from worker.holding.types import ModelState
from worker.ports import Holding, ListedModel

pytestmark = pytest.mark.asyncio
F = pb.AttemptFailure
OTHER = "other"


class SystemPanic(BaseException):
    """As Rust's panics come to Python: `pyo3_runtime.PanicException`."""


SystemPanic.__name__ = "PanicException"
ERRORS: Sequence[BaseException] = (
    LoadFailed("unet/diffusion_pytorch_model.safetensors is a git-lfs pointer, no weights: run git lfs pull"),
    AttributeError("module diffusers has no attribute FutureImagePipeline"),
    ImportError("cannot import name 'x'"),
    KeyError("_class_name"),
    RuntimeError("Error(s) in loading state_dict for UNet2DConditionModel:\n\tsize mismatch"),
    SystemExit(1),
    SystemPanic("called `Result::unwrap()` on an `Err` value"),
    RecursionError("maximum recursion depth exceeded"),
)


class Breakable(FaultyEngine):
    """`error` is raised by each load while it is set; `steps_until_away` and `apart` make a model elsewhere of it."""

    def __init__(self, model: str = OTHER, error: BaseException | None = None, *, remote: bool = False) -> None:
        super().__init__()
        self.facts = EngineFacts(engine="emulated", model=model)
        self.capabilities = replace(self.capabilities, remote=remote)
        self.error = error
        self.away = False
        self.loads = 0
        self.unloads = 0

    def load(self) -> None:
        self.loads += 1
        if self.error is not None:
            raise self.error
        super().load()

    def unload(self) -> None:
        self.unloads += 1
        super().unload()

    def step(self, report: Report) -> Stepped:
        if self.away:
            raise EngineAway("the model server: HTTP 503")
        return super().step(report)


class Files:
    """The stamp of every model's files."""

    def __init__(self) -> None:
        self.now = "a"
        self.wrong = ""

    async def stamp(self, model: str, /) -> str:
        return self.now

    def stamp_at_load(self, model: str, /) -> str:
        return self.now

    def problem(self, model: str, /) -> str:
        return self.wrong if model == OTHER else ""


class Marks:
    """What an earlier life has left."""

    def __init__(self, **deaths: int) -> None:
        self.deaths = deaths
        self.open: list[str] = []

    def left(self) -> dict[str, int]:
        return self.deaths

    def begin(self, model: str, /) -> None:
        self.open.append(model)

    def end(self, model: str, /) -> None:
        self.open.remove(model)


def rig(other: FaultyEngine, *, preload: bool = False, first: bool = False, **tuning: Any) -> Rig:
    """The good model of the rig and `other`, which is the default one with `first`."""
    made = Rig(preload=preload, **tuning)
    pair = [(OTHER, other), (MODEL, made.engine)]
    made.rebuild(engines=dict(pair if first else pair[::-1]))
    return made


def state(made: Rig, model: str = OTHER) -> tuple[int, str]:
    (said,) = [each for each in made.worker._models.listed() if each.facts.model == model]
    return said.state, said.reason


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("first", [False, True], ids=["second", "default"])
async def test_a_model_that_cannot_be_loaded_fails_its_images_with_the_reason_and_no_others(
    error: BaseException, first: bool
) -> None:
    made = rig(Breakable(error=error), first=first, preload=first)
    async with running(made), asyncio.TaskGroup() as group:
        sending = group.create_task(send_again(made))
        await made.send(*some(range(50)), *(job(100 + number, model=OTHER) for number in range(20)))
        await eventually(lambda: len(made.rendered()) == 50, 30)
        await eventually(lambda: list(made.failed().values()).count(int(F.MODEL_BROKEN)) == 20, 60)
        assert made.worker.health.reasons() == []
        assert state(made)[0] is ModelState.BROKEN
        assert any(OTHER in note for note in made.worker.health.notes())
        sending.cancel()
    (reason,) = {each.detail for each in made.of(fast.ImageAttemptFailed) if int(each.failure) == F.MODEL_BROKEN}
    assert 0 < len(reason) <= 200
    assert "\n" not in reason
    assert str(error).split("\n", maxsplit=1)[0][:40].strip("'") in reason


async def test_what_is_short_is_away_and_not_broken() -> None:
    for error in (MemoryError(), OutOfMemory("no room"), ModelAway("its time was up"), OSError(28, "No space left")):
        made = rig(Breakable(error=error))
        async with running(made):
            await made.send(job(1, model=OTHER))
            await made.idle()
            assert made.failed() == {"g1": F.MODEL_AWAY}
            assert state(made)[0] is ModelState.AWAY


async def test_one_attempt_at_a_time_and_images_of_others_between_them() -> None:
    other = Breakable(error=LoadFailed("half a file"))
    made = rig(other)
    async with running(made), asyncio.TaskGroup() as group:
        sending = group.create_task(send_again(made))
        await made.send(job("x", model=OTHER))
        for number in range(3):
            await eventually(lambda: other.loads > number, 20)  # noqa: B023
            await made.send(job(number))
            await eventually(lambda: f"g{number}" in made.rendered(), 10)  # noqa: B023
        sending.cancel()


async def test_nothing_is_loaded_for_what_nobody_wants() -> None:
    other = Breakable()
    made = rig(other)
    made.wanted.unwanted = {"gx"}
    async with running(made):
        await made.send(job("x", model=OTHER), job(1))
        await made.idle()
    assert made.rendered() == ["g1"]
    assert (other.loads, made.failed()) == (0, {})


async def test_what_is_cancelled_while_a_batch_is_asked_about_is_not_loaded_for() -> None:
    """The first model's images are rendered; the second's are cancelled before its turn comes."""
    other = Breakable()
    made = rig(other, wanted_every_s=60.0)
    asked = made.wanted.ask

    async def ask(worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        made.wanted.unwanted = {"gx"}
        return await asked(worker_id, held, models)

    made.wanted.ask = ask  # type: ignore[method-assign]
    async with running(made):
        await made.send(job("x", model=OTHER))
        await made.idle()
    assert other.loads == 0


async def test_repaired_files_are_seen_and_the_model_is_served_without_a_restart() -> None:
    other = Breakable(error=LoadFailed("half a file"))
    made, files = rig(other), Files()
    made.rebuild(model_files=files)
    async with running(made), asyncio.TaskGroup() as group:
        sending = group.create_task(send_again(made))
        await made.send(job("x", model=OTHER))
        await eventually(lambda: made.failed().get("gx") == F.MODEL_BROKEN, 30)
        other.error, files.now = None, "b"  # at once, before anything has looked at the files
        await eventually(lambda: state(made)[0] is ModelState.UNLOADED, 10)
        await made.send(job("y", model=OTHER))
        await eventually(lambda: "gy" in made.rendered(), 10)
        assert state(made) == (ModelState.LOADED, "")
        assert made.worker.health.notes() == []
        sending.cancel()


async def test_files_that_still_change_are_left_alone() -> None:
    other = Breakable(error=LoadFailed("half a file"))
    made, files = rig(other), Files()
    made.rebuild(model_files=files)
    models = made.worker._models
    await made.worker._models.load(other)
    for stamp, changed in (("a", False), ("b", False), ("c", False), ("c", True)):
        files.now = stamp
        assert await models._have_changed(OTHER) is changed
    made.close()


async def test_without_any_model_it_is_not_ready_and_with_one_it_is() -> None:
    other = Breakable(error=LoadFailed("half a file"))
    made = Rig(preload=True)
    made.rebuild(engines={OTHER: other})
    async with running(made):
        await eventually(lambda: any("half a file" in each for each in made.worker.health.reasons()))
        other.error = None
        await eventually(lambda: made.worker.health.reasons() == [], 20)
        assert other.loads == 2, "the default model is tried again though no image asks for it"


async def test_a_server_that_goes_away_takes_its_own_images_out_of_the_worker_and_no_others() -> None:
    other = Breakable(remote=True)
    made = rig(other, models_loaded=2)
    async with running(made), asyncio.TaskGroup() as group:
        sending = group.create_task(send_again(made))
        other.away = True
        await made.send(*(job(f"x{number}", model=OTHER) for number in range(12)), *some(range(30)))
        await eventually(lambda: len(made.rendered()) == 30, 30)
        assert set(made.failed().values()) == {int(F.MODEL_AWAY)}
        assert state(made)[0] in (ModelState.AWAY, ModelState.UNLOADED)
        assert made.worker.health.reasons() == []
        other.away = False
        await eventually(lambda: len(made.rendered()) == 42, 60)
        sending.cancel()
    assert made.metric("depth", part="held") == 0


async def test_an_engine_apart_that_cannot_be_reset_is_out_alone_and_its_poison_is_convicted() -> None:
    class Dying(Breakable):
        def reset(self) -> None:
            raise LoadFailed("the engine's process does not start")

    other = Dying(remote=True)
    other.raises = {"gbad"}
    made = rig(other)
    async with running(made):
        await made.send(job("bad", model=OTHER), *some(range(20)))
        await made.idle()
    assert len(made.rendered()) == 20
    assert made.failed() == {"gbad": int(F.MODEL_AWAY)}


async def test_a_device_that_is_lost_in_this_process_ends_the_worker() -> None:
    made = rig(Breakable(error=EngineLost("CUDA error: an illegal memory access was encountered")))
    await made.send(job("x", model=OTHER))
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await made.worker.run(asyncio.Event().wait)
    made.close()
    assert caught.group_contains(EngineLost)


async def test_the_model_that_ended_the_last_life_waits_until_others_had_their_turn() -> None:
    other = Breakable()
    made = rig(other, first=True, preload=True)
    made.rebuild(load_marks=Marks(other=1))
    async with running(made):
        await made.send(*some(range(10)))
        await eventually(lambda: len(made.rendered()) == 10)
        assert other.loads == 0
        assert state(made)[0] is ModelState.AWAY
        await made.send(job("x", model=OTHER))
        await eventually(lambda: made.failed() == {"gx": F.MODEL_AWAY})


async def test_after_three_lives_it_is_broken() -> None:
    made = rig(Breakable())
    made.rebuild(load_marks=Marks(other=3))
    async with running(made):
        await made.send(job("x", model=OTHER), job(1))
        await eventually(lambda: made.failed() == {"gx": F.MODEL_BROKEN})
        await eventually(lambda: made.rendered() == ["g1"])


async def test_a_load_is_marked_while_it_lasts() -> None:
    go_on = threading.Event()
    seen: list[list[str]] = []

    class Slow(Breakable):
        def load(self) -> None:
            seen.append(list(marks.open))
            go_on.wait(30)
            super().load()

    marks = Marks()
    made = rig(Slow())
    made.rebuild(load_marks=marks)
    async with running(made):
        await made.send(job("x", model=OTHER))
        await eventually(lambda: bool(seen))
        assert state(made)[0] is ModelState.LOADING
        go_on.set()
        await eventually(lambda: made.rendered() == ["gx"])
    assert (seen, marks.open) == ([[OTHER]], [])


async def test_what_is_plainly_wrong_with_its_files_costs_no_other_model_its_place() -> None:
    other = Breakable()
    made, files = rig(other, models_loaded=1), Files()
    made.rebuild(model_files=files)
    files.wrong = "unet/config.json is missing"
    async with running(made), asyncio.TaskGroup() as group:
        sending = group.create_task(send_again(made))
        await made.send(job(1))
        await eventually(lambda: made.rendered() == ["g1"])
        await made.send(job("x", model=OTHER))
        await eventually(lambda: made.failed().get("gx") == F.MODEL_BROKEN, 30)
        assert made.of(fast.ImageAttemptFailed)[-1].detail == files.wrong
        assert (made.engine.loaded, other.loads) == (True, 0)
        sending.cancel()


async def test_a_model_on_a_server_elsewhere_takes_no_model_s_place() -> None:
    """It holds no memory of this machine, whose own model would be loaded again for each change."""
    other = Breakable(remote=True)
    made = rig(other, models_loaded=1)
    own = Breakable(MODEL)
    made.rebuild(engines={MODEL: own, OTHER: other})
    async with running(made):
        for number in range(3):
            await made.send(job(f"x{number}", model=OTHER), job(number))
            await made.idle()
    assert len(made.rendered()) == 6
    assert (own.loads, other.loads, own.unloads, other.unloads) == (1, 1, 0, 0)
