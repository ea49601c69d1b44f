"""What is special about an NVIDIA device: pictures are decoded on a stream of their own while the next steps run, the
host stays one step ahead of the device, the device times the steps itself, and the allocator reports how much memory a
batch took.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from worker.engines.contract import StepTime
from worker.engines.latent.decoder import Pending, VaeDecoder


class StreamDecoder:
    """Runs the decoder on a second stream beside the denoiser; `fetch` waits for its own picture only."""

    def __init__(self, decoder: VaeDecoder) -> None:
        self._decoder = decoder
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def begin(self, latents: torch.Tensor, width: int, height: int) -> Pending:
        """Like VaeDecoder.begin, but the decoding is launched at once."""
        self._stream.wait_stream(torch.cuda.current_stream())  # the step that made the latents
        latents.record_stream(self._stream)  # their memory is not used again before this stream is done with it
        with torch.cuda.stream(self._stream):
            pixels, finite = self._decoder.decode(latents, width, height)
            host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True).copy_(pixels, non_blocking=True)
            flag = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return _Launched(pixels=host, finite=flag, ready=ready)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launched:
    pixels: torch.Tensor = field(repr=False)
    finite: torch.Tensor = field(repr=False)
    ready: torch.cuda.Event

    def fetch(self) -> tuple[torch.Tensor, bool]:
        self.ready.synchronize()
        return self.pixels, bool(self.finite)


class Pace:
    """Waits, after each launch, for the step before it: the device always has work, and the host, where the watchdog
    looks for hangs, is at most one step ahead. Steps are timed on the device, because the host waits only for what is
    left of a step by the time it asks, and not at all after the first launch.
    """

    def __init__(self) -> None:
        self._last: _Step | None = None

    def step(self, size: int, launch: Callable[[], None]) -> StepTime | None:
        """`launch` a step of `size` images on the current stream. Returns the time of the step before, if any."""
        began = _stamp()
        launch()
        before, self._last = self._last, _Step(size=size, began=began, ended=_stamp())
        return before.over() if before else None

    def rest(self) -> StepTime | None:
        """Wait for the last step. Returns its time; None if no step is outstanding."""
        last, self._last = self._last, None
        return last.over() if last else None

    def forget(self) -> None:
        """Drop the last step without waiting: it failed, or its end is of no interest."""
        self._last = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    size: int
    began: torch.cuda.Event
    ended: torch.cuda.Event

    def over(self) -> StepTime:
        self.ended.synchronize()
        return StepTime(size=self.size, seconds=self.began.elapsed_time(self.ended) / 1000)


def _stamp() -> torch.cuda.Event:
    """The time at which the current stream gets here."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


class CudaProbe:
    """The memory of the current device according to torch's allocator; see `memory.Probe`."""

    def reset_peak(self) -> None:
        """Begin a new peak."""
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """The most bytes allocated since `reset_peak`, weights and other models of this process included."""
        return torch.cuda.max_memory_allocated()

    def held_bytes(self) -> int:
        """The bytes allocated now."""
        return torch.cuda.memory_allocated()

    def room_bytes(self) -> int:
        """The bytes that this process could hold: what the allocator has reserved plus what the device has free."""
        return torch.cuda.memory_reserved() + torch.cuda.mem_get_info()[0]
