"""All that is special about an NVIDIA device: pictures are decoded on a stream of their own while the next steps run,
the host stays one step ahead of the device, which times the steps itself, and the allocator says how much memory a
batch took.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from worker.engines.contract import StepTime
from worker.engines.latent.decoder import Pending, VaeDecoder


class StreamDecoder:
    """Launches the decoder beside the denoiser; who fetches the picture waits for that picture alone."""

    def __init__(self, decoder: VaeDecoder) -> None:
        self._decoder = decoder
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def begin(self, latents: torch.Tensor, width: int, height: int) -> Pending:
        """As VaeDecoder.begin, under way."""
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
    """Waits for the step before the last one launched, so that the device always has work and the host, which judges
    hangs, is one step ahead at most. Steps are timed on the device: what the host waits for is the rest of a step, less
    whatever else it did meanwhile, and of a first one nothing.
    """

    def __init__(self) -> None:
        self._last: _Step | None = None

    def step(self, size: int, launch: Callable[[], None]) -> StepTime | None:
        """`launch` a step of `size` images on the current stream. Returns what the one before it took."""
        began = _stamp()
        launch()
        before, self._last = self._last, _Step(size=size, began=began, ended=_stamp())
        return before.over() if before else None

    def rest(self) -> StepTime | None:
        """Wait for the last one. Returns what it took; None without one."""
        last, self._last = self._last, None
        return last.over() if last else None

    def forget(self) -> None:
        """The last step failed, or its end is no longer of interest."""
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
    """What torch's allocator says of the current device; see latent_memory.Probe."""

    def reset_peak(self) -> None:
        """Begin a new peak."""
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """Since `reset_peak`, weights and what others hold included."""
        return torch.cuda.max_memory_allocated()

    def held_bytes(self) -> int:
        """Now."""
        return torch.cuda.memory_allocated()

    def room_bytes(self) -> int:
        """What this process could hold: what the allocator has, and what is free beside it."""
        return torch.cuda.memory_reserved() + torch.cuda.mem_get_info()[0]
