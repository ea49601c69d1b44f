"""One session on the GPU thread, driven by hand: what it does when the line behind it has little room."""

from itertools import count

from worker.engines.contract import RenderJob
from worker.engines.emulated import EmulatedEngine
from worker.member import Admitted, Decoded, Event, Member, Surroundings, members_of
from worker.pipeline import Places
from worker.session import Session
from worker.types import Batch, Held, ImageId, Job

BATCH = 4


def group(engine: EmulatedEngine, numbers: range) -> list[Member]:
    held = []
    for number in numbers:
        render = RenderJob(
            id=f"g{number}/0",
            model="m",
            width=64,
            height=64,
            num_inference_steps=2,
            guidance_scale=1.0,
            seed=number,
            prompt="a star",
        )
        job = Job(image=ImageId(generation_id=f"g{number}", index=0), dispatch=1, render=render, output_format=1)
        held.append(Held(job=job, key=engine.key(render), receipts={}, received_s=0.0, existed_s=0.0, order=number))
    return members_of(Batch(id="b", engine=engine, key=held[0].key, members=tuple(held)))


def test_places_that_come_free_one_by_one_let_no_new_batch_in_each() -> None:
    engine = EmulatedEngine(model="m", step_s=0.0, alpha=0.0, max_batch=BATCH, max_width=64, max_height=64)
    engine.load()
    events: list[Event] = []
    ticks, places = count(), Places(1)
    around = Surroundings(
        clock=lambda: float(next(ticks)),
        post=events.append,
        report=lambda _: None,
        places=places,
        limit=lambda _job, _key: BATCH,
        record=lambda *_: None,
    )
    key = group(engine, range(1))[0].held.key
    session = Session(engine, key, around, joins=True, parks=True, step_seconds=lambda _: 1.0)
    session.offer(group(engine, range(40)))
    for _ in range(40):
        end = session.turn()
        admitted = sum(len(event.members) for event in events if isinstance(event, Admitted))
        decoded = sum(isinstance(event, Decoded) for event in events)
        assert admitted - decoded < 3 * BATCH
        assert end.full or decoded == 40
        places.give()
    assert decoded == 40
