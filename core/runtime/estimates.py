"""What core learns from finished images: GPU seconds per unit of cost, and how fast images are completed.

Cost is pixels times steps times passes of the model. The estimates enter order, rechecks and the charge of a
request when it is admitted, which is then frozen in the log.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from core.domain.events import Spec
from core.domain.shares import MOST, ONE
from core.domain.transaction import Change

_FIRST_GUESS: Final = 2.5e-7  # between an H200 on a large model (1e-7) and one CPU core on a small one (1e-6)
_WEIGHT: Final = 0.1
_MAX_MODELS: Final = 1_000
_WINDOW_S: Final = 60.0
_LEAST_SAMPLES: Final = 8
_GUESSED_IMAGE_S: Final = 1.0


def passes(spec: Spec) -> int:
    """Passes of the model per step: two with classifier-free guidance, as far as the request shows it.

    Models with guidance of another kind make one; what was measured is kept apart by this number, so it puts that
    right once an image was rendered.
    """
    return 2 if spec.guidance_scale > 1 else 1


def cost(spec: Spec) -> float:
    """Pixels times steps times passes of one image."""
    return float(spec.width * spec.height * spec.num_inference_steps * passes(spec))


class _Pace:
    """A moving average of seconds per cost, in which the first picture counts as no more than the others."""

    __slots__ = ("_sum", "_weights")

    def __init__(self) -> None:
        self._sum = self._weights = 0.0

    def note(self, per_cost: float, weight: float) -> None:
        self._sum += weight * (per_cost - self._sum)
        self._weights += weight * (1.0 - self._weights)

    @property
    def per_cost(self) -> float:
        return self._sum / self._weights


class Estimates:
    """Moving averages, kept in memory."""

    def __init__(self) -> None:
        self._paces: dict[tuple[str, int], _Pace] = {}
        self._gaps: deque[tuple[float, float, int]] = deque(maxlen=256)
        """When pictures of late were finished, how long after the one before (or after work began), their charges."""
        self._since_s: float | None = None
        self._default: Spec | None = None

    def work_s(self, spec: Spec) -> float:
        """Estimated GPU seconds of one image, its share of a batch."""
        pace = self._paces.get(_kind(spec))
        return cost(spec) * (pace.per_cost if pace else _FIRST_GUESS)

    def compare_with(self, default: Spec | None) -> None:
        """Charge in images of this request from now on; None: as before."""
        self._default = default or self._default

    def charge(self, spec: Spec) -> int:
        """What one image weighs beside one of the default request, in millionths. All weigh the same until a gateway
        has sent the default request.

        The paces of two models count once both are measured: a guess beside a figure would be off by any factor.
        """
        default = self._default
        if default is None:
            return ONE
        own, other = self._paces.get(_kind(spec)), self._paces.get(_kind(default))
        ratio = own.per_cost / other.per_cost if own and other else 1.0
        return min(MOST, max(1, round(ONE * cost(spec) / cost(default) * ratio)))

    def work_begins(self) -> None:
        """Nothing was out until now: the time before says nothing of the pace."""
        self._since_s = asyncio.get_running_loop().time()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Learn from the pictures among these changes."""
        for before, after in changes:
            for image in after.images:
                won = image.rendered
                if won is not None and before is not None and before.images[image.index].rendered is None:
                    self.rendered(after.spec, won.timings.gpu_ms, after.charge)

    def rendered(self, spec: Spec, gpu_ms: float, charge: int = ONE) -> None:
        """Learn from one picture.

        One that is smaller than the default request counts by the square of its part of it: its time is mostly
        overhead, and a flood of the smallest would make its model look expensive to all.
        """
        now = asyncio.get_running_loop().time()
        if self._since_s is not None:
            self._gaps.append((now, now - self._since_s, charge))
        self._since_s = now
        if gpu_ms <= 0:
            return
        kind = _kind(spec)
        if kind in self._paces or len(self._paces) < _MAX_MODELS:
            part = 1.0 if self._default is None else min(1.0, cost(spec) / cost(self._default))
            self._paces.setdefault(kind, _Pace()).note(gpu_ms / 1000 / cost(spec), _WEIGHT * part**2)

    def ends_in_s(self, charge: int) -> float:
        """How long work of that charge takes: at the pace of the last minute, or as one GPU is guessed to take."""
        self._forget()
        done = sum(each for _, _, each in self._gaps)
        if len(self._gaps) >= _LEAST_SAMPLES and done:
            return charge * sum(gap_s for _, gap_s, _ in self._gaps) / done
        return charge / ONE * (self.work_s(self._default) if self._default else _GUESSED_IMAGE_S)

    def wait_s(self, images_ahead: int, cap_s: float) -> float:
        """How long so many images take at the pace of the last minute; 0 while no pace is known.

        Times without work do not count: one picture now and then is no slow pace, and what is lost behind a burst
        would be noticed minutes late.
        """
        self._forget()
        if len(self._gaps) < _LEAST_SAMPLES:
            return 0.0
        return min(cap_s, images_ahead * sum(gap_s for _, gap_s, _ in self._gaps) / len(self._gaps))

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._gaps and self._gaps[0][0] < now - _WINDOW_S:
            self._gaps.popleft()


def _kind(spec: Spec) -> tuple[str, int]:
    """What is measured apart."""
    return spec.model, passes(spec)
