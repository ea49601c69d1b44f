"""What is special about an NVIDIA device, walked through on a CPU: torch.cuda is a stand-in, all else is real."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.latent_rig import job, opened, rendered
from worker.engines import devices
from worker.engines.base import WeightSource
from worker.engines.errors import EngineLost
from worker.engines.latent.engine import LatentEngine
from worker.engines.pipeline.engine import PipelineEngine
from worker.gpu.sessions.events import Decoded, Event, TimeSpent
from worker.gpu.sessions.mailbox import Mailbox, ThreadContext
from worker.gpu.sessions.members import members_of
from worker.gpu.sessions.session import Session
from worker.holding.types import Batch, Held, ImageId, Job
from worker.output.stages import DeliveryPermits
from worker.time_ledger import Cause

STEP_S, DECODE_S, LAUNCH_S = 0.030, 0.020, 0.001
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


class Device:
    """Does what is launched on a stream in order, and streams beside one another, by a clock that the host shares."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.denoising = self.current = Stream(self)
        self.steps: list[int] = []

    def launch(self, seconds: float) -> None:
        stream = self.current
        if stream.free_s:
            stream.idle_s += max(0.0, self.now_s - stream.free_s)
        stream.free_s = max(stream.free_s, self.now_s) + seconds
        self.now_s += LAUNCH_S

    @contextmanager
    def on(self, stream: "Stream") -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


class Stream:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.free_s = 0.0
        self.idle_s = 0.0

    def wait_stream(self, other: "Stream") -> None:
        self.free_s = max(self.free_s, other.free_s)


class Stamp:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.at_s = 0.0

    def record(self) -> None:
        self.at_s = max(self.device.current.free_s, self.device.now_s)

    def elapsed_time(self, other: "Stamp") -> float:
        assert self.device.now_s >= other.at_s, "asked before it is over"
        return 1000 * (other.at_s - self.at_s)

    def synchronize(self) -> None:
        self.device.now_s = max(self.device.now_s, self.at_s)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    import torch

    device, empty = Device(), torch.empty

    def pageable(*size: Any, pin_memory: bool = False, **more: Any) -> torch.Tensor:
        return empty(*size, **more)

    monkeypatch.setattr("torch.cuda.Event", lambda **_: Stamp(device))
    monkeypatch.setattr("torch.cuda.Stream", lambda: Stream(device))
    monkeypatch.setattr("torch.cuda.current_stream", lambda: device.current)
    monkeypatch.setattr("torch.cuda.stream", device.on)
    monkeypatch.setattr("torch.empty", pageable)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    return device


@pytest.fixture
def engine(folder: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> LatentEngine:
    """As it is on a GPU, but that its tensors are the CPU's."""
    from worker.engines.latent.cuda import Pace, StreamDecoder
    from worker.engines.latent.decoder import VaeDecoder

    made = opened(folder)
    model = made._model
    assert model is not None
    decoder = model._decoder
    assert isinstance(decoder, VaeDecoder)
    step, decode = model._denoiser.step, decoder.decode

    def stepping(members: Sequence[Any]) -> None:
        device.steps.append(len(members))
        device.launch(STEP_S * len(members))
        step(members)

    def decoding(*given: Any) -> Any:
        device.launch(DECODE_S)
        return decode(*given)

    monkeypatch.setattr(model._denoiser, "step", stepping)
    monkeypatch.setattr(decoder, "decode", decoding)
    model._decoder, model._pace = StreamDecoder(decoder), Pace()
    return made


def session_of(engine: LatentEngine, device: Device, steps: Sequence[int], events: list[Event]) -> Session:
    context = ThreadContext(
        clock=lambda: device.now_s,
        permits=DeliveryPermits(99),
        limit=lambda _job, _key: 4,
        record=lambda *_: None,
    )
    held = []
    for number, count in enumerate(steps):
        render = job(number, num_inference_steps=count)
        image = Job(image=ImageId(generation_id=f"g_{number}", index=0), dispatch=1, render=render, output_format=1)
        key = engine.key(render)
        held.append(Held(job=image, key=key, receipts={}, received_s=0.0, existed_s=0.0, order=number))
    mailbox = Mailbox(post=events.append, report=lambda _: None, step_seconds=lambda _: STEP_S)
    session = Session(engine, key, mailbox, context, joins_midway=True)
    session.offer(members_of(Batch(id="b", engine=engine, key=key, members=tuple(held))))
    return session


def test_decoding_keeps_nobody_waiting_who_goes_on(engine: LatentEngine, device: Device) -> None:
    events: list[Event] = []
    session_of(engine, device, (2, 3, 5), events).turn()
    assert [event.member.id for event in events if isinstance(event, Decoded)] == ["g_0/0", "g_1/0", "g_2/0"]
    assert device.steps == [3, 3, 2, 1, 1]
    assert device.denoising.idle_s == 0


def rendering(events: Sequence[Event]) -> Sequence[TimeSpent]:
    return [event for event in events if isinstance(event, TimeSpent) and event.cause is Cause.RENDERING]


def test_steps_are_timed_by_the_device_whatever_the_host_waited_for(engine: LatentEngine, device: Device) -> None:
    for steps, sizes in [((2, 3, 5), [0, 3, 3, 2, 1]), ((1,), [1]), ((1, 1), [2]), ((4,), [0, 1, 1, 1])]:
        events: list[Event] = []
        session_of(engine, device, steps, events).turn()
        timed = [event.timed for event in rendering(events)]
        assert [each.size if each else 0 for each in timed] == sizes  # none but this session's own
        for each in timed:
            assert each is None or each.seconds == pytest.approx(STEP_S * each.size)


def test_the_last_step_is_rendering_and_no_part_of_decoding(engine: LatentEngine, device: Device) -> None:
    events: list[Event] = []
    session_of(engine, device, (3,), events).turn()
    rendered_s = sum(event.ended_s - event.began_s for event in rendering(events))
    assert rendered_s == pytest.approx(3 * STEP_S, abs=5 * LAUNCH_S)
    assert [event.decode_s for event in events if isinstance(event, Decoded)] == [pytest.approx(DECODE_S)]


@pytest.mark.parametrize("leaves", ["evicted", "reset"])
def test_a_step_of_those_who_have_gone_is_nobody_elses(engine: LatentEngine, device: Device, leaves: str) -> None:
    engine.admit([job(1), job(2)])
    assert engine.step(lambda _: None).timed is None
    if leaves == "reset":
        engine.reset()
    else:
        engine.evict("g_1/0")
        engine.evict("g_2/0")
        stepped = engine.step(lambda _: None)
        assert (len(stepped.evicted), stepped.timed and stepped.timed.size) == (2, 2)
    engine.admit([job(3)])
    assert engine.step(lambda _: None).timed is None
    engine.reset()


def test_an_error_that_sticks_shows_at_the_latest_when_the_engine_is_reset(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was no "CUDA error" where it first came up, and there is nothing to give back."""
    latent = opened(folder)
    pipeline = PipelineEngine(WeightSource(model="m", source=str(folder)), devices.Device(name="cpu", threads=1))
    assert rendered(latent, job(1))

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", fail)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    engine: LatentEngine | PipelineEngine
    for engine in (latent, pipeline):
        with pytest.raises(EngineLost):
            engine.reset()
