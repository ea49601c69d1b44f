"""The one writer: group commit, idempotency, the cap, and what a full or broken log does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from core.domain import commands as c
from core.domain.decide import TooLate, UnknownGeneration
from core.domain.events import Prompts, Spec, Trace
from core.domain.records import PromptRow
from core.domain.shares import caps
from core.domain.state import Ending
from core.domain.transaction import BacklogFull, Change, IdempotencyKey, IdTaken, KeyConflict, Order
from core.errors import LogBroken, LogFull
from core.runtime.writer import Writer, WriterBounds
from infra.retry import Retryable
from tests import virtual_time
from tests.eventually import eventually
from tests.fake_log import FakeLog
from tests.unit.core.rig import context

SPEC = Spec(model="demo", width=64, height=64, num_inference_steps=4, guidance_scale=1.0, seed=0, n=2, output_format=1)


def request(generation_id: str, *, tenant: str = "ann", key: str = "", body: bytes = b"body", ttl_s: int = 0) -> Order:
    command = c.Request(tenant=tenant, spec=SPEC, priority=0, ttl_s=ttl_s, prompt_hmac=bytes(32), trace=Trace())
    prompt = PromptRow(generation_id=generation_id, salt=bytes(16), prompts=Prompts(prompt="x"))
    return Order(generation_id, command, prompt, IdempotencyKey(key, body) if key else None)


def cancel(generation_id: str) -> Order:
    return Order(generation_id, c.Cancel())


@asynccontextmanager
async def writing(log: FakeLog, *, cap: int = 1_000, ended_kept: int = 10) -> AsyncIterator[Writer]:
    loop = asyncio.get_running_loop()
    around = context(now_ms=lambda: int((loop.time() - 1_000) * 1000), wall_ms=lambda: 1_000, rng=lambda: 0.5)
    writer = Writer(log, around, caps=caps(cap), bounds=WriterBounds(ended=ended_kept))
    await writer.load()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run(), name="writer")
        yield writer
        task.cancel()


def test_what_waits_while_one_append_is_in_flight_becomes_one_transaction() -> None:
    async def main() -> None:
        log = FakeLog(gate=asyncio.Event())
        async with writing(log) as writer, asyncio.TaskGroup() as group:
            group.create_task(writer.carry_out([request("first")]), name="first")
            await asyncio.sleep(1)
            for number in range(50):
                group.create_task(writer.carry_out([request(f"g{number}")]), name=f"{number}")
            await asyncio.sleep(1)
            assert log.gate is not None
            log.gate.set()
            await eventually(lambda: len(writer.open) == 51)
        assert log.appends == 2
        assert writer.usage.total.images == 102

    virtual_time.run(main())


def test_nobody_hears_of_anything_before_it_is_durable() -> None:
    async def main() -> None:
        log = FakeLog(gate=asyncio.Event())
        heard: list[Change] = []
        async with writing(log) as writer, asyncio.TaskGroup() as group:
            writer.listen(heard.extend)
            answer = group.create_task(writer.carry_out([request("g")]), name="caller")
            await asyncio.sleep(1)
            assert not answer.done()
            assert not heard
            assert not writer.open
            log.gate.set()  # type: ignore[union-attr]
            await answer
            assert [(before, after.id) for before, after in heard] == [(None, "g")]

    virtual_time.run(main())


def test_a_cancelled_caller_does_not_undo_its_order() -> None:
    async def main() -> None:
        log = FakeLog(gate=asyncio.Event())
        async with writing(log) as writer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await writer.carry_out([request("g")])
            log.gate.set()  # type: ignore[union-attr]
            await eventually(lambda: "g" in writer.open)

    virtual_time.run(main())


def test_a_stopping_writer_finishes_its_append() -> None:
    async def main() -> None:
        log = FakeLog(gate=asyncio.Event())
        asyncio.get_running_loop().call_later(5, log.gate.set)  # type: ignore[union-attr]
        async with writing(log) as writer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await writer.carry_out([request("g")])
        assert log.appends == 1

    virtual_time.run(main())


def test_the_same_id_is_the_same_generation_in_one_batch_later_and_after_its_end() -> None:
    async def main() -> None:
        log = FakeLog()
        async with writing(log) as writer:
            first, again = await writer.carry_out([request("g"), request("g")])
            assert (first.changed, again.changed) == (True, False)
            [later] = await writer.carry_out([request("g")])
            assert later.state is not None
            assert not later.changed
            await writer.carry_out([cancel("g")])
        async with writing(log) as writer:
            [ended] = await writer.carry_out([request("g")])
            assert ended.state is not None
            assert ended.state.ending is Ending.CANCELLED
            [taken] = await writer.carry_out([request("g", tenant="bob")])
            assert isinstance(taken.refusal, IdTaken)
            assert [type(each.event).__name__ for each, _ in log.events] == [
                "GenerationRequested",
                "GenerationCancelled",
            ]

    virtual_time.run(main())


def test_the_same_key_and_body_is_the_first_generation_and_another_body_a_conflict() -> None:
    async def main() -> None:
        log = FakeLog()
        async with writing(log) as writer:
            first, mate = await writer.carry_out([request("g1", key="k"), request("g2", key="k")])
            assert first.changed
            assert mate.state is not None
            assert mate.state.id == "g1"
            await writer.carry_out([cancel("g1")])
        async with writing(log) as writer:
            again, other, foreign = await writer.carry_out(
                [request("g3", key="k"), request("g4", key="k", body=b"other"), request("g5", key="k", tenant="bob")]
            )
            assert again.state is not None
            assert again.state.id == "g1"
            assert again.state.ending is Ending.CANCELLED
            assert isinstance(other.refusal, KeyConflict)
            assert foreign.changed
            await asyncio.sleep(24 * 3600 + 1)
            [tomorrow] = await writer.carry_out([request("g6", key="k", body=b"other")])
            assert tomorrow.changed

    virtual_time.run(main())


def test_the_cap_counts_unfinished_images_within_a_batch_too() -> None:
    async def main() -> None:
        async with writing(FakeLog(), cap=5) as writer:
            results = await writer.carry_out([request("g1"), request("g2"), request("g3")])
            assert [result.changed for result in results] == [True, True, False]
            assert isinstance(results[2].refusal, BacklogFull)
            await writer.carry_out([cancel("g1")])
            [room] = await writer.carry_out([request("g3")])
            assert room.changed
            assert writer.usage.total.images == 4

    virtual_time.run(main())


@pytest.mark.parametrize(("fault", "error"), [("full", LogFull), ("held", Retryable)])
def test_a_log_that_takes_nothing_refuses_and_changes_nothing(fault: str, error: type[Exception]) -> None:
    async def main() -> None:
        log = FakeLog()
        async with writing(log) as writer:
            await writer.carry_out([request("g1")])
            setattr(log, fault, True)
            with pytest.raises(error):
                await writer.carry_out([request("g2", key="k"), cancel("g1")])
            assert writer.trouble
            assert list(writer.open) == ["g1"]
            assert writer.usage.total.images == 2
            setattr(log, fault, False)
            results = await writer.carry_out([request("g2", key="k"), cancel("g1")])
            assert all(result.changed for result in results)
            assert not writer.trouble

    virtual_time.run(main())


def test_a_broken_log_ends_the_writer_and_nobody_gets_an_answer() -> None:
    async def main() -> None:
        log = FakeLog()
        log.broken = True
        answered: Sequence[object] | None = None
        with pytest.raises(BaseExceptionGroup) as raised:
            async with writing(log) as writer:
                answered = await writer.carry_out([request("g")])
        assert raised.group_contains(LogBroken)
        assert answered is None

    virtual_time.run(main())


def test_what_is_unknown_or_too_late_is_told() -> None:
    async def main() -> None:
        async with writing(FakeLog()) as writer:
            unknown, made, done = await writer.carry_out([cancel("no"), request("g"), cancel("g")])
            assert isinstance(unknown.refusal, UnknownGeneration)
            assert made.changed
            assert done.changed
            [expired] = await writer.carry_out([Order("g", c.Expire())])
            assert expired.refusal is None
            assert not expired.changed

    virtual_time.run(main())


def test_ended_generations_are_read_back_and_only_some_kept() -> None:
    async def main() -> None:
        log = FakeLog()
        async with writing(log, ended_kept=3) as writer:
            for number in range(6):
                await writer.carry_out([request(f"g{number}"), cancel(f"g{number}")])
            assert writer.remembered("g0") is None
            [again] = await writer.carry_out([cancel("g0")])
            assert again.refusal is None
            assert again.state is not None
            assert writer.remembered("g0") is not None
            assert len(writer._ended) == 3

    virtual_time.run(main())


def test_too_late_to_cancel_is_refused_with_the_state() -> None:
    async def main() -> None:
        async with writing(FakeLog()) as writer:
            await writer.carry_out([request("g", ttl_s=1)])
            await asyncio.sleep(2)
            [expired] = await writer.carry_out([Order("g", c.Expire())])
            assert expired.changed
            [late] = await writer.carry_out([cancel("g")])
            assert isinstance(late.refusal, TooLate)
            assert late.state is not None
            assert late.state.ending is Ending.EXPIRED

    virtual_time.run(main())


def test_a_log_that_cannot_be_read_for_a_moment_refuses_and_goes_on() -> None:
    async def main() -> None:
        log = FakeLog(unreadable=True)
        async with writing(log) as writer:
            with pytest.raises(Retryable):
                await writer.carry_out([request("g", key="k")])
            assert writer.trouble
            log.unreadable = False
            [result] = await writer.carry_out([request("g", key="k")])
            assert result.changed
            assert not writer.trouble

    virtual_time.run(main())
