"""One session on the GPU thread, driven by hand: what it does when the line behind it has little room, and when it
decodes.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest

from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, RenderJob, Report, Stepped
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import EngineDied
from worker.gpu.sessions.events import Admitted, Decoded, Event
from worker.gpu.sessions.mailbox import Mailbox, ThreadContext
from worker.gpu.sessions.members import Member, members_of
from worker.gpu.sessions.session import Session
from worker.holding.types import Batch, Held, ImageId, Job
from worker.output.stages import DeliveryPermits

BATCH = 4


class Told(EmulatedEngine):
    """Writes down what it is asked for. With `ahead` its device works on while it is asked for the next thing."""

    def __init__(self, *, ahead: bool) -> None:
        super().__init__(model="m", step_s=0.0, alpha=0.0, max_batch=BATCH, bounds=Bounds.square(64))
        self.ahead = ahead
        self.asked: list[str] = []
        self.dies_over = ""
        self.load()

    def step(self, report: Report) -> Stepped:
        self.asked.append("step")
        return replace(super().step(report), ahead=self.ahead)

    def decode(self, done: Done) -> Picture:
        self.asked.append(done.job_id.partition("/")[0])
        if self.asked[-1] == self.dies_over:
            raise EngineDied
        return super().decode(done)


def group(engine: EmulatedEngine, numbers: range, steps: Sequence[int] = ()) -> list[Member]:
    held = []
    for number in numbers:
        render = RenderJob(
            id=f"g{number}/0",
            model="m",
            width=64,
            height=64,
            num_inference_steps=steps[number] if steps else 2,
            guidance_scale=1.0,
            seed=number,
            prompt="a star",
        )
        job = Job(image=ImageId(generation_id=f"g{number}", index=0), dispatch=1, render=render, output_format=1)
        held.append(Held(job=job, key=engine.key(render), receipts={}, received_s=0.0, existed_s=0.0, order=number))
    return members_of(Batch(id="b", engine=engine, key=held[0].key, members=tuple(held)))


def begun(engine: Told, permits: DeliveryPermits, events: list[Event]) -> Session:
    ticks = count()
    context = ThreadContext(
        clock=lambda: float(next(ticks)),
        permits=permits,
        limit=lambda _job, _key: BATCH,
        record=lambda *_: None,
    )
    key = group(engine, range(1))[0].held.key
    mailbox = Mailbox(post=events.append, report=lambda _: None, step_seconds=lambda _: 1.0)
    return Session(engine, key, mailbox, context, joins_midway=True)


@pytest.mark.parametrize("ahead", [False, True])
def test_places_that_come_free_one_by_one_let_no_new_batch_in_each(ahead: bool) -> None:
    events: list[Event] = []
    engine, permits = Told(ahead=ahead), DeliveryPermits(1)
    session = begun(engine, permits, events)
    session.offer(group(engine, range(40)))
    for _ in range(40):
        end = session.turn()
        admitted = sum(len(event.members) for event in events if isinstance(event, Admitted))
        decoded = sum(isinstance(event, Decoded) for event in events)
        assert admitted - decoded < 3 * BATCH
        assert end.full or decoded == 40
        permits.release()
    assert decoded == 40


def test_what_the_device_develops_beside_the_next_step_is_fetched_after_that_has_been_launched() -> None:
    engine = Told(ahead=True)
    session = begun(engine, DeliveryPermits(9), [])
    session.offer(group(engine, range(3), steps=(1, 2, 4)))
    session.turn()
    assert engine.asked == ["step", "step", "g0", "step", "g1", "step", "g2"]  # nobody is left beside the last


def test_a_device_that_does_one_thing_after_the_other_decodes_at_once() -> None:
    engine = Told(ahead=False)
    session = begun(engine, DeliveryPermits(9), [])
    session.offer(group(engine, range(3), steps=(1, 2, 4)))
    session.turn()
    assert engine.asked == ["step", "g0", "step", "g1", "step", "step", "g2"]


def test_one_batch_after_the_other_is_developed_beside_the_next() -> None:
    engine = Told(ahead=True)
    session = begun(engine, DeliveryPermits(99), [])
    session.offer(group(engine, range(2 * BATCH), steps=[1] * 2 * BATCH))
    session.turn()
    first = [f"g{number}" for number in range(BATCH)]
    second = [f"g{number}" for number in range(BATCH, 2 * BATCH)]
    assert engine.asked == ["step", "step", *first, *second]


@pytest.mark.parametrize(("ahead", "suspects"), [(True, ["g0", "g2"]), (False, ["g0"])])
def test_whoever_is_on_the_device_is_suspect_when_it_fails_while_a_picture_is_fetched(
    ahead: bool, suspects: list[str]
) -> None:
    engine = Told(ahead=ahead)
    engine.dies_over = "g0"
    session = begun(engine, DeliveryPermits(9), [])
    session.offer(group(engine, range(3), steps=(1, 2, 4)))
    crash = session.turn().crash
    assert crash is not None
    assert [each.id.partition("/")[0] for each in crash.suspects] == suspects
    assert len(crash.suspects) + len(crash.innocents) == 3
