"""Admission from end to end in core: what is charged, who is refused, and that every charge is given back once."""

import asyncio
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.assembly import Core
from core.config import CoreSettings
from core.domain import commands as c
from core.domain.commands import Request
from core.domain.decide import Now
from core.domain.events import Failure, ImageAttemptFailed, ImageRendered, RenderFacts, Timings, Trace
from core.domain.shares import ONE, UsageByTenant, caps
from core.domain.state import Generation, Phase, apply, begin
from core.domain.transaction import Order, PendingTransaction
from core.log.codec import decode, encode
from core.runtime.estimates import Estimates
from infra.lifecycle import ConfigError
from infra.settings import load
from schema import fast, pb
from tests import virtual_time
from tests.core_events import spec
from tests.eventually import eventually
from tests.unit.core.rig import Worker, World, item, working

DEFAULT = item("default").spec
"""What the fake items ask for, too."""


async def submit(core: Core, *items: fast.SubmitItem) -> list[tuple[int, int]]:
    """Outcome and bound of each."""
    results = await core.service.submit(list(items), DEFAULT)
    assert all((int(each.outcome) == pb.SubmitOutcome.BACKLOG_FULL) == (each.retry_after_s > 0) for each in results)
    return [(int(each.outcome), int(each.bound)) for each in results]


ACCEPTED = (int(pb.SubmitOutcome.ACCEPTED), 0)
SHARE = (int(pb.SubmitOutcome.BACKLOG_FULL), int(pb.BacklogBound.SHARE))
EVERYTHING = (int(pb.SubmitOutcome.BACKLOG_FULL), int(pb.BacklogBound.EVERYTHING))


def test_one_tenant_fills_the_backlog_and_another_has_its_share_all_the_same() -> None:
    async def main() -> None:
        async with World().core(backlog_cap=20) as core:
            assert await submit(core, *(item(f"a{number}", tenant="ann") for number in range(20))) == [ACCEPTED] * 20
            assert await submit(core, item("a20", tenant="ann")) == [SHARE]
            assert await submit(core, *(item(f"b{number}", tenant="bob") for number in range(10))) == [ACCEPTED] * 10
            assert await submit(core, item("b10", tenant="bob"), item("c0", tenant="cem", n=10)) == [SHARE, ACCEPTED]

    virtual_time.run(main())


def test_a_repeat_is_neither_judged_nor_charged() -> None:
    async def main() -> None:
        async with World().core(backlog_cap=1) as core:
            await submit(core, item("a", key="k"))
            usage = core.writer.usage.total
            again = await core.service.submit([item("a", key="k"), item("other", key="k"), item("b")], DEFAULT)
            outcomes = [int(each.outcome) for each in again]
            replayed = int(pb.SubmitOutcome.REPLAYED)
            assert outcomes == [replayed, replayed, int(pb.SubmitOutcome.BACKLOG_FULL)]
            assert core.writer.usage.total == usage

    virtual_time.run(main())


def test_memory_has_a_bound_of_its_own_and_says_so() -> None:
    async def main() -> None:
        async with World().core(backlog_cap=1, backlog_images=100) as core:
            newcomers = [item(f"g{number}", tenant=f"t{number}", n=10) for number in range(6)]
            assert await submit(core, *newcomers) == [ACCEPTED] * 5 + [EVERYTHING]

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({}, 1.0),
        ({"width": 512, "height": 512}, 4.0),
        ({"width": 2048, "height": 2048, "num_inference_steps": 150}, 64 * 150 / 8),
        ({"guidance_scale": 1.0}, 0.5),
        ({"num_inference_steps": 4}, 0.5),
    ],
)
def test_a_charge_is_what_it_costs_beside_the_default_request(changes: dict[str, float], images: float) -> None:
    estimates = Estimates()
    estimates.compare_with(spec())
    assert estimates.charge(spec(**changes)) == round(images * ONE)


def test_a_model_weighs_what_was_measured_of_it() -> None:
    async def main() -> None:
        estimates = Estimates()
        estimates.compare_with(spec())
        other = spec(model="slow")
        estimates.rendered(other, 5_000)
        assert estimates.charge(other) == ONE, "a figure beside a guess says nothing"
        estimates.rendered(spec(), 1_000)
        assert estimates.charge(other) == 5 * ONE
        assert estimates.charge(spec()) == ONE

    virtual_time.run(main())


def test_a_flood_of_tiny_requests_makes_no_model_dear() -> None:
    """Their time is overhead. A tenth of the time of a whole one for a two-hundredth of its work."""

    async def main() -> None:
        estimates = Estimates()
        estimates.compare_with(spec())
        other, tiny = spec(model="other"), spec(model="other", width=64, height=64, num_inference_steps=1)
        estimates.rendered(spec(), 1_000)
        estimates.rendered(tiny, 100)
        for _ in range(3):
            estimates.rendered(other, 1_000)
        for _ in range(1_000):
            estimates.rendered(tiny, 100)
        assert estimates.charge(other) < 1.5 * ONE

    virtual_time.run(main())


def test_without_a_default_request_each_image_is_one() -> None:
    """An older gateway tells none; nor does one whose default is none that core knows."""

    async def main() -> None:
        async with World().core(backlog_cap=2) as core:
            broken = fast.GenerationSpec(model="demo", width=100)
            large = item("a", n=2)
            large.spec.num_inference_steps = 150
            [result] = await core.service.submit([large], broken)
            assert int(result.outcome) == pb.SubmitOutcome.ACCEPTED
            assert core.writer.open["a"].charge == ONE

    virtual_time.run(main())


def test_when_to_come_back_follows_the_pace_and_is_never_now_and_never_beyond_two_minutes() -> None:
    async def main() -> None:
        world = World()
        async with world.core(backlog_cap=40) as core:
            before = [await retry_after(core, "ann", n) for n in (1, 10)]
            worker = Worker(world, render_s=2.0)
            async with working(worker):
                await eventually(lambda: core.writer.usage.total.images <= 25, 100, what="fifteen pictures")
                await submit(core, *(item(f"more{number}", tenant="ann") for number in range(15)))
                one, ten = [await retry_after(core, "ann", n) for n in (1, 10)]
        assert all(1 <= each <= 120 for each in (*before, one, ten))
        assert 2 <= one <= 4
        assert 18 <= ten <= 30

    async def retry_after(core: Core, tenant: str, n: int) -> int:
        await submit(core, *(item(f"fill{next(numbers)}", tenant=tenant) for _ in range(40)))
        [result] = await core.service.submit([item(f"x{next(numbers)}", tenant=tenant, n=n)], DEFAULT)
        assert int(result.outcome) == pb.SubmitOutcome.BACKLOG_FULL
        return int(result.retry_after_s)

    numbers = count()
    virtual_time.run(main())


def test_books_after_a_restart_are_equal_and_bound_as_before() -> None:
    async def main() -> None:
        world = World()
        async with world.core(backlog_cap=20) as core:
            large = item("large", tenant="ann", n=3)
            large.spec.width = large.spec.height = 512
            await submit(core, large, item("b", tenant="bob", n=4), item("gone", tenant="bob", n=2))
            await core.service.cancel("bob", "gone")
            before = core.writer.usage
            assert (before.total.charge, before.total.images) == (16 * ONE, 7)
        async with world.core(backlog_cap=20) as core:
            assert core.writer.usage == before
            assert await submit(core, item("late", tenant="ann", n=5)) == [SHARE]
            assert await submit(core, item("fits", tenant="ann", n=4)) == [ACCEPTED]

    virtual_time.run(main())


def test_every_end_gives_back_once_and_image_by_image() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            left: list[int] = []
            core.writer.listen(lambda _: left.append(core.writer.usage.total.images))
            await submit(core, item("done", n=3), item("cancelled", n=2), item("expired", n=2, ttl_s=30))
            await core.service.cancel("ann", "cancelled")
            async with working(Worker(world)):
                await eventually(lambda: core.writer.usage.total.images == 0)
            assert core.writer.usage == UsageByTenant()
            await core.writer.carry_out([Order("done", c.Erase())])
            assert core.writer.usage == UsageByTenant()
            assert set(left) >= {7, 5, 4, 3}
            await submit(core, item("late", ttl_s=5, n=2))
            await asyncio.sleep(10)
            assert core.writer.open == {}
            assert core.writer.usage == UsageByTenant()

    virtual_time.run(main())


def test_what_the_log_does_not_take_is_not_charged() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await submit(core, item("a"))
            usage = core.writer.usage.total
            world.log.full = True
            with pytest.raises(Exception, match="full"):
                await submit(core, item("b", tenant="bob", n=5))
            assert (core.writer.usage.total, core.writer.usage.active) == (usage, 1)
            world.log.full = False
            assert await submit(core, item("b", tenant="bob", n=5)) == [ACCEPTED]

    virtual_time.run(main())


def test_admissions_are_counted_by_ground_without_naming_anybody() -> None:
    async def main() -> None:
        async with World().core(backlog_cap=10, backlog_images=100) as core:
            await submit(core, item("a", tenant="ann", n=10), item("a2", tenant="ann"), item("b", tenant="bob", n=3))
            await submit(core, *(item(f"c{number}", tenant=f"cem{number}", n=10) for number in range(4)))
            found = {
                sample.labels["outcome"]: sample.value
                for metric in core.metrics.admissions.collect()
                for sample in metric.samples
                if sample.name.endswith("_total")
            }
            assert found == {"room": 1, "share_full": 1, "below_share": 1, "first": 3, "everything_full": 1}

    virtual_time.run(main())


commands = st.one_of(
    st.builds(lambda charge, n: ("request", charge, n), st.sampled_from([1, ONE, 7 * ONE + 3]), st.integers(1, 4)),
    st.tuples(
        st.sampled_from(["dispatch", "started", "rendered", "published", "lost", "failed", "unsupported"]),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    st.tuples(st.sampled_from(["cancel", "expire", "erase"]), st.integers(0, 9), st.just(0)),
)


@given(history=st.lists(commands, max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_the_books_are_those_of_what_is_open(history: list[tuple[str, int, int]]) -> None:
    """And those that a new life reads from the log's bytes."""
    usage, states, log = UsageByTenant(), dict[str, Generation](), list[tuple[str, bytes]]()
    for number, (what, one, two) in enumerate(history):
        if what == "request":
            order = Order(f"g{len(states)}", request(f"t{number % 3}", one, two))
        elif states:
            order = Order(f"g{one % len(states)}", command(what, number, two))
        else:
            continue
        before = {order.generation_id: states.get(order.generation_id)}
        pending = PendingTransaction(now=Now(at_ms=0, running_ms=10**9), usage=usage, caps=caps(10), before=before)
        result = pending.decide(order)
        if result.changed and result.state is not None:
            pending.commit(lambda *_: None)
            states[order.generation_id] = result.state
            log += [(entry.generation_id, encode(entry.event)) for entry in pending.transaction().entries]
        assert usage == UsageByTenant.of((state.tenant, state.usage) for state in states.values())
    again: dict[str, Generation] = {}
    for generation_id, data in log:
        event = decode(data)
        state = again.get(generation_id)
        again[generation_id] = apply(state, event, 0) if state else begin(generation_id, event)  # type: ignore[arg-type]
    assert usage == UsageByTenant.of((state.tenant, state.usage) for state in again.values())
    assert all(not state.usage.images for state in states.values() if not state.open)


def request(tenant: str, charge: int, n: int) -> Request:
    return c.Request(
        tenant=tenant, spec=spec(n=n), priority=0, ttl_s=1, prompt_hmac=bytes(32), trace=Trace(), charge=charge
    )


def command(what: str, number: int, index: int) -> c.Command:
    attempt = f"att_{index}"
    match what:
        case "dispatch":
            return c.Dispatch(index=index, dispatch=number + 1, recheck_after_ms=0)
        case "started":
            return c.RecordStarted(
                index=index, attempt_id=attempt, dispatch=number, worker_id="w", solo=number % 2 == 0, batch_id="b",
                batch_size=1, recheck_after_ms=0,
            )  # fmt: skip
        case "rendered":
            return c.RecordRendered(event=ImageRendered(
                index=index, attempt_id=attempt, worker_id="w", temp_key="temp/x", sha256=bytes(32), size_bytes=1,
                width=64, height=64, format=1, public_token="token", timings=Timings(),
                facts=RenderFacts(batch_id="b"),
            ))  # fmt: skip
        case "published":
            return c.RecordPublished(index=index, attempt_id=attempt, public_key="token/x.png")
        case "lost":
            return c.RecordObjectLost(index=index, attempt_id=attempt, detail="gone")
        case "failed" | "unsupported":
            failure = Failure.UNSUPPORTED if what == "unsupported" else Failure.MODEL_ERROR
            return c.RecordAttemptFailed(event=ImageAttemptFailed(
                index=index, attempt_id=f"{attempt}{number}", dispatch=2**31, worker_id="w", failure=failure,
                solo=True, detail="",
            ))  # fmt: skip
        case "cancel":
            return c.Cancel()
        case "expire":
            return c.Expire()
        case _:
            return c.Erase()


def test_a_log_from_before_there_were_charges_counts_an_image_as_one() -> None:
    from tests.core_events import requested

    state = begin("old", requested(spec=spec(n=3)))
    assert state.usage.charge == 3 * ONE
    assert all(image.phase is Phase.PENDING for image in state.images)


@pytest.mark.parametrize(
    ("cap", "images", "wrong"), [(10, 99, True), (10, 100, False), (1_000, 1_999, True), (5, 0, False)]
)
def test_a_hard_bound_that_leaves_no_room_for_the_cap_is_refused_at_the_start(
    cap: int, images: int, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_CORE_BACKLOG_CAP", str(cap))
    monkeypatch.setenv("DARKROOM_CORE_BACKLOG_IMAGES", str(images))
    if not wrong:
        assert load(CoreSettings).core_backlog_images == images
        return
    with pytest.raises(ConfigError, match=r"DARKROOM_CORE_BACKLOG_IMAGES.*must be 0, or at least"):
        load(CoreSettings)
