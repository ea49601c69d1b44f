"""Images join, stand aside and leave a running session at every step."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from schema import fast, pb
from tests.eventually import eventually
from tests.unit.worker.rig import FaultyEngine, Rig, generation, job, running, some
from worker.engines.contract import Capabilities, RenderJob, Report, Stepped
from worker.engines.errors import EngineDied
from worker.holding.types import State
from worker.tuning import Mode

pytestmark = pytest.mark.asyncio


class Watched(FaultyEngine):
    """Keeps who took part in each step."""

    def __init__(self, *, step_s: float = 0.01, max_batch: int = 8) -> None:
        super().__init__(step_s=step_s, max_batch=max_batch)
        self.steps: list[set[str]] = []

    def step(self, report: Report) -> Stepped:
        def noted(progress: object) -> None:
            self.steps.append({generation(job) for job in self.at_work()})
            report(progress)  # type: ignore[arg-type]

        return super().step(noted)

    def at_work(self) -> list[RenderJob]:
        return [job for job_id, (job, _) in self._members.items() if job_id not in self._parked]

    def took(self, name: str) -> list[int]:
        """The numbers of the steps that an image took part in."""
        return [number for number, step in enumerate(self.steps) if name in step]


async def test_an_image_joins_others_at_their_next_steps_and_everybody_takes_its_own_number_of_steps() -> None:
    engine = Watched()
    async with running(Rig(engine)) as rig:
        await rig.send(job("long", steps=100))
        await eventually(lambda: len(engine.steps) > 10)
        await rig.send(*(job(name, steps=20) for name in ("a", "b")))
        await rig.idle()
    assert {name: len(engine.took(f"g{name}")) for name in ("long", "a", "b")} == {"long": 100, "a": 20, "b": 20}
    assert engine.took("ga")[-1] < engine.took("glong")[-1]  # it did not wait behind the long one
    mates = {
        each.image.generation_id: {mate.generation_id for mate in each.facts.batch_members}
        for each in rig.of(fast.ImageRendered)
    }
    for name, together in mates.items():
        shared = {other for step in engine.steps if name in step for other in step}
        assert together == shared


async def test_a_short_image_is_not_kept_behind_long_ones_that_fill_the_batch() -> None:
    engine = Watched(max_batch=2)
    async with running(Rig(engine)) as rig:
        await rig.send(*some(range(4), steps=100))
        await eventually(lambda: len(engine.steps) > 10)
        await rig.send(job("short", steps=2))
        await rig.idle()
    ended = {name: engine.took(name)[-1] for name in ("g0", "g1", "g2", "g3", "gshort")}
    assert min(ended, key=lambda name: ended[name]) == "gshort"
    assert sum(len(step) for step in engine.steps) == 4 * 100 + 2
    assert max(len(step) for step in engine.steps) <= 2
    assert len(rig.rendered()) == 5


async def test_a_cancelled_image_frees_its_slot_within_one_step() -> None:
    engine = Watched(step_s=0.02)
    async with running(Rig(engine)) as rig:
        await rig.send(job("kept", steps=100), job("cancelled", steps=100))
        await eventually(lambda: bool(engine.took("gcancelled")) and bool(engine.took("gkept")))
        evict = engine.evict
        at: list[int] = []

        def noted(job_id: str) -> None:
            at.append(len(engine.steps))
            evict(job_id)

        engine.evict = noted  # type: ignore[method-assign]
        rig.wanted.unwanted = {"gcancelled"}
        await eventually(lambda: not any(held.id == "gcancelled/0" for held in rig.worker.window.held()))
        assert len([step for step in engine.took("gcancelled") if step >= at[0]]) <= 1
        rig.wanted.unwanted = {"gcancelled", "gkept"}
        await rig.idle()


async def test_images_of_another_key_get_their_turn_although_newcomers_keep_coming() -> None:
    engine = Watched()
    async with running(Rig(engine)) as rig:
        sent = 0

        async def keep_coming() -> None:
            nonlocal sent
            while not engine.took("gother"):
                await rig.send(job(f"n{sent}", steps=10))
                sent += 1
                await asyncio.sleep(0.03)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(keep_coming())
            await eventually(lambda: len(engine.steps) > 5)
            await rig.send(job("other", steps=5, size=128))
        await rig.idle()
    together = [step for step in engine.steps if "gother" in step]
    assert together
    assert all(step == {"gother"} for step in together)
    assert len(rig.rendered()) == sent + 1


@pytest.mark.parametrize("mode", [Mode.PLAIN, Mode.BATCHED])
async def test_the_reference_loops_settle_everything_before_they_go_on(mode: Mode) -> None:
    engine = Watched(step_s=0.001, max_batch=4)
    rig = Rig(engine, mode=mode)
    beside: list[set[str]] = []

    def on_admit(jobs: Sequence[RenderJob]) -> None:
        admitted = {each.id for each in jobs}
        beside.append({held.id for held in rig.worker.window.held() if held.state is not State.WAITING} - admitted)

    engine.on_admit = on_admit
    async with running(rig):
        await rig.send(*some(range(12)))
        await rig.idle()
    assert len(rig.rendered()) == 12
    assert not any(beside)
    assert max(map(len, engine.admitted)) == (1 if mode is Mode.PLAIN else 4)


class Dying(FaultyEngine):
    """Acts as if it had a process of its own: `kills` end it, `hangs` do not return until it is killed."""

    def __init__(self) -> None:
        super().__init__(step_s=0.002)
        self.capabilities = Capabilities(
            join_midway=True, evict_one=True, park=True, restartable=True, max_batch=self.capabilities.max_batch
        )
        self.kills: set[str] = set()
        self.hangs: set[str] = set()
        self.deaths = 0
        self._killed = threading.Event()

    def step(self, report: Report) -> Stepped:
        members = {generation(job) for job, _ in self._members.values()}
        if members & self.hangs:
            self._killed.wait(30)
            self._killed.clear()
            self.deaths += 1
            raise EngineDied
        if members & self.kills:
            self.deaths += 1
            raise EngineDied
        return super().step(report)

    def kill(self) -> None:
        self._killed.set()


async def test_after_the_death_of_the_engines_process_suspects_run_alone_and_only_the_culprit_fails() -> None:
    engine = Dying()
    engine.kills = {"g3"}
    async with running(Rig(engine)) as rig:
        await rig.send(*some(range(8), steps=5))
        await rig.idle()
    assert len(rig.rendered()) == 7
    assert rig.failed() == {"g3": pb.AttemptFailure.MODEL_ERROR}
    assert ["g3"] in engine.admitted
    assert engine.deaths <= 2


async def test_a_hang_in_an_engines_process_costs_that_process_and_not_the_worker() -> None:
    engine = Dying()
    engine.hangs = {"g1"}
    async with running(Rig(engine, hang_s=0.1)) as rig:
        await rig.send(*some(range(4), steps=5))
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g2", "g3"]
    assert rig.failed() == {"g1": pb.AttemptFailure.HUNG}
