"""The small parts, one by one."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from io import BytesIO

import pytest
from PIL import Image

from infra.retry import Permanent, Retryable
from infra.sqs import Outgoing
from schema import fast, messages, pb
from tests.eventually import eventually
from tests.fakes import FakeQueue
from tests.unit.worker.rig import context
from tests.unit.worker.rig import job as job_message
from worker import tracing
from worker.batching.batch_limits import BatchLimits
from worker.batching.measurements import Measurements
from worker.engines.contract import Picture
from worker.engines.emulated import NotEmulated, draw, read_emulated
from worker.engines.errors import BadOutput
from worker.gpu.gpu_thread import Waits
from worker.gpu.watchdog import Hung, Pulse, Watchdog, hang_deadline_s
from worker.holding.heartbeat import Heartbeat
from worker.holding.types import Failure, Held
from worker.holding.window import Window
from worker.intake.prefetch import ahead
from worker.messages import parse
from worker.output import encode
from worker.output.call_batching import CallBatcher


def test_failures_are_numbered_as_in_the_schema() -> None:
    numbers = {each.name: each.value for each in pb.AttemptFailure}
    assert all(numbers[each.name] == each.value for each in Failure)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (256, 256), (512, 64), (1024, 768), (72, 1000), (2048, 2048)])
@pytest.mark.parametrize("form", [1, 2, 3])
def test_an_emulated_picture_tells_whose_it_is(width: int, height: int, form: int) -> None:
    for name, index, seed in (("gen_01kzabcdefghjkmnpqrstvwxyz", 9, 2**32 - 1), ("x" * 64, 0, 0)):
        rgb = draw(name, index, seed, width, height)
        assert len(rgb) == width * height * 3
        data, _ = encode.encode(Picture(width=width, height=height, rgb=rgb), form)
        assert read_emulated(data) == (name, index, seed)


def test_other_pictures_and_altered_ones_are_told_from_emulated_ones() -> None:
    rgb = bytearray(draw("gen_1", 0, 1, 64, 64))
    rgb[30:36] = bytes(255 - byte for byte in rgb[30:36])
    rgb[30 + 192 : 36 + 192] = rgb[30:36]
    altered, _ = encode.encode(Picture(width=64, height=64, rgb=bytes(rgb)), 1)
    grey, _ = encode.encode(Picture(width=64, height=64, rgb=b"\x80" * 64 * 64 * 3), 1)
    for data in (altered, grey, b"no picture"):
        with pytest.raises(NotEmulated):
            read_emulated(data)


@pytest.mark.parametrize(("form", "name"), [(1, "PNG"), (2, "WEBP"), (3, "JPEG")])
def test_files_are_of_the_asked_format_and_carry_their_digest(form: int, name: str) -> None:
    rgb = bytes(range(256)) * 3 * 16
    data, digest = encode.encode(Picture(width=64, height=64, rgb=rgb), form)
    assert digest == sha256(data).digest()
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == (name, (64, 64), "RGB")
        if name == "PNG":
            assert image.tobytes() == rgb
    with pytest.raises(BadOutput):
        encode.encode(Picture(width=64, height=65, rgb=rgb), form)


def test_a_job_is_read_whole_and_its_prompt_stays_out_of_its_repr() -> None:
    message = job_message(7, dispatch=3, priority=-2, image_seed=99, index=2)
    job = parse(messages.encode(message), {}, suspect=False)
    assert (job.render.id, job.dispatch, job.priority, job.render.seed, job.solo) == ("g7/2", 3, -2, 99, False)
    assert job.render.prompt == "a secret prompt"
    held = Held(job=job, key=(), receipts={}, received_s=0.0, existed_s=0.0, order=1)
    assert "secret" not in repr(held)
    assert parse(messages.encode(message), {}, suspect=True).solo


def test_the_queues_context_goes_before_the_stored_one() -> None:
    stored = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    own = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
    message = messages.encode(job_message(1, trace=fast.TraceContext(traceparent=stored)))
    assert parse(message, {}, suspect=False).trace["traceparent"] == stored
    assert parse(message, {"traceparent": own}, suspect=False).trace["traceparent"] == own
    with_own = parse(message, {"traceparent": own}, suspect=False)
    assert tracing.context_of(with_own)


@pytest.mark.parametrize("message", [b"", b"x" * 100, messages.encode(job_message(1))[:-1]])
def test_what_is_no_job_is_a_bad_message(message: bytes) -> None:
    with pytest.raises(messages.BadMessage):
        parse(message, {}, suspect=False)


def test_the_window_holds_two_batches_and_more_for_a_fast_gpu() -> None:
    assert ahead(batch=8, batch_s=None, receive_s=0.0, limit=64) == 16
    assert ahead(batch=8, batch_s=4.0, receive_s=0.02, limit=64) == 17
    assert ahead(batch=8, batch_s=0.01, receive_s=0.02, limit=64) == 48
    assert ahead(batch=8, batch_s=0.001, receive_s=0.2, limit=64) == 64
    assert ahead(batch=1, batch_s=None, receive_s=0.0, limit=1) == 1


RENDER = parse(messages.encode(job_message(1)), {}, suspect=False).render


def test_caps_are_learned_per_model_and_size_and_only_go_down() -> None:
    caps = BatchLimits()
    small, wide = replace(RENDER, width=64, height=64), replace(RENDER, width=128, height=64)
    assert caps.limit(small, ("k",), 8) == 8
    caps.ran_out(small, 8)
    caps.ran_out(small, 7)
    assert caps.limit(small, ("k",), 8) == 3
    caps.ran_out(small, 1)
    assert caps.limit(small, ("k",), 8) == 1
    assert caps.limit(wide, ("k",), 8) == 8


def test_what_the_engine_measured_counts_per_batch_key_until_it_says_otherwise() -> None:
    caps = BatchLimits(remembered=2)
    caps.measured(("guided",), 3)
    assert caps.limit(RENDER, ("guided",), 8) == 3
    assert caps.limit(RENDER, ("plain",), 8) == 8
    caps.measured(("guided",), 20)
    assert caps.limit(RENDER, ("guided",), 8) == 8
    caps.measured(("guided",), 0)
    assert caps.limit(RENDER, ("guided",), 8) == 1
    caps.measured(("a",), 2)
    caps.measured(("b",), 2)
    assert caps.limit(RENDER, ("guided",), 8) == 8  # pushed out


def test_the_reason_to_wait_is_what_was_in_the_way() -> None:
    waits = Waits()
    assert waits.reason(5.0) == ""
    waits.batch_until_s = 6.0
    assert waits.reason(5.0) == "batch_running"
    assert waits.reason(7.0) == ""
    waits.backpressure_until_s = 6.0
    assert waits.reason(5.0) == "backpressure"
    waits.loading_until_s = 6.0
    assert waits.reason(5.0) == "loading"


def test_measurements_move_and_are_bounded() -> None:
    measured = Measurements(remembered=2)
    measured.observe(("a",), 1.0)
    measured.observe(("a",), 2.0)
    assert measured.seconds(("a",)) == pytest.approx(1.3)
    measured.observe(("b",), 1.0)
    measured.observe(("a",), 1.3)
    measured.observe(("c",), 1.0)
    assert measured.seconds(("b",)) is None
    assert measured.seconds(("a",)) is not None


def test_a_hang_is_ten_learned_steps_and_never_less_than_the_floor() -> None:
    assert hang_deadline_s(floor_s=30, learned_s=1.0) == 30
    assert hang_deadline_s(floor_s=30, learned_s=8.0) == 80
    assert hang_deadline_s(floor_s=30, learned_s=None) == 120


@pytest.mark.asyncio
async def test_the_watchdog_barks_at_silence_and_not_at_work_or_rest() -> None:
    loop = asyncio.get_running_loop()
    pulse = Pulse(Measurements(), floor_s=0.05, reset_s=60.0)
    details: list[str] = []

    async def leave(detail: str) -> bool:
        details.append(detail)
        return False

    watchdog = asyncio.ensure_future(Watchdog(pulse, tick_s=0.01, leave=leave).run())
    await asyncio.wait({watchdog}, timeout=0.3)  # at rest
    assert not watchdog.done()
    pulse.begin(("k",), loop.time())
    for _ in range(20):  # at work
        await asyncio.wait({watchdog}, timeout=0.02)
        pulse.beat(loop.time())
    assert not watchdog.done()
    began = loop.time()
    with pytest.raises(Hung):
        await asyncio.wait_for(watchdog, 5)
    assert loop.time() - began >= 0.19  # four floors: nothing was learned yet
    assert details


@pytest.mark.asyncio
async def test_a_process_that_was_stopped_and_continued_is_not_taken_for_hung() -> None:
    loop = asyncio.get_running_loop()
    pulse = Pulse(Measurements(), floor_s=0.2, reset_s=60.0)
    pulse.begin(("k",), loop.time())

    async def leave(_: str) -> bool:
        raise AssertionError

    watchdog = asyncio.ensure_future(Watchdog(pulse, tick_s=0.02, leave=leave).run())
    await asyncio.wait({watchdog}, timeout=0.1)
    threading.Event().wait(1.5)  # the whole loop stands still, as under SIGSTOP
    await asyncio.wait({watchdog}, timeout=0.1)
    assert not watchdog.done()
    watchdog.cancel()


class Flush:
    """A call that can be held up, refused or failed."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[Exception] = []
        self.refused: set[int] = set()

    async def __call__(self, items: Sequence[int]) -> Sequence[bool]:
        self.calls.append(list(items))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop()
        answer = [item not in self.refused for item in items]
        self.refused -= set(items)
        return answer


@pytest.mark.asyncio
async def test_calls_gather_while_one_is_under_way_and_only_the_refused_go_again() -> None:
    flush = Flush()
    around = context()
    coalescer: CallBatcher[int] = CallBatcher(around, "replies", flush)
    async with asyncio.TaskGroup() as group:
        lane = group.create_task(coalescer.run())
        await coalescer.submit_all([0])
        flush.gate.clear()
        waiting = [group.create_task(coalescer.submit_all([1]))]
        await eventually(lambda: flush.calls[1:] == [[1]])
        waiting += [group.create_task(coalescer.submit_all([number])) for number in range(2, 25)]
        await eventually(lambda: coalescer.depth() == 23)
        flush.refused = {5}
        flush.errors = [Permanent("no"), Retryable("down")]
        flush.gate.set()
        await asyncio.gather(*waiting)
        lane.cancel()
    assert flush.calls[:4] == [[0], [1], [1], [1]]
    assert flush.calls[4:] == [list(range(2, 12)), [5], list(range(12, 22)), [22, 23, 24]]
    assert around.health.reasons() == []


@pytest.mark.asyncio
async def test_heartbeats_keep_messages_hidden_and_notice_what_was_lost() -> None:
    queue, window, around = FakeQueue(), Window(), context()
    await queue.send([Outgoing(body=messages.encode(job_message(number))) for number in range(3)])
    for message in await queue.receive(limit=10, wait_s=0, visibility_s=1):
        parsed = parse(message.body, {}, suspect=False)
        window.offer(parsed, (), message_id=message.message_id, receipt=message.receipt, now_s=0.0)
    heartbeat = Heartbeat(around, window, queue, visibility_s=1)
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(heartbeat.run())
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.2
        while loop.time() < end:
            assert (await queue.depth()).visible == 0
            await asyncio.sleep(0.05)
        queue.unreachable = True
        await eventually(
            lambda: around.metrics.registry.get_sample_value("darkroom_worker_heartbeats_total", {"outcome": "failed"})
        )
        queue.unreachable = False
        held = window.held()[0]
        queue.purge()
        await eventually(lambda: held not in window.held())
        beating.cancel()
    assert not window.held()
