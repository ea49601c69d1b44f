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

# Seconds per unit of cost, between an H200 on a large model (1e-7) and one CPU core on a small one (1e-6).
_FIRST_GUESS: Final = 2.5e-7
_WEIGHT: Final = 0.1
_MAX_MODELS: Final = 1_000
_WINDOW_S: Final = 60.0
_LEAST_SAMPLES: Final = 8
_GUESSED_IMAGE_S: Final = 1.0


def passes(spec: Spec) -> int:
    """Forward passes per step, as far as the request shows it: two with classifier-free guidance, else one.

    A model with embedded guidance makes one pass where this says two. Averages are kept per model and number of
    passes, so the first rendered image corrects the estimate.
    """
    return 2 if spec.guidance_scale > 1 else 1


def cost(spec: Spec) -> float:
    """Pixels times steps times passes of one image."""
    return float(spec.width * spec.height * spec.num_inference_steps * passes(spec))


class _Pace:
    """An exponential moving average of seconds per unit of cost, corrected for its start at zero (as in Adam)."""

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
        """For each recent image: when it was finished, seconds since the one before (or since work began), charge."""
        self._since_s: float | None = None
        self._default: Spec | None = None

    def work_s(self, spec: Spec) -> float:
        """Estimated GPU seconds of one image, its share of a batch."""
        pace = self._paces.get(_kind(spec))
        return cost(spec) * (pace.per_cost if pace else _FIRST_GUESS)

    def compare_with(self, default: Spec | None) -> None:
        """Use `default` as the unit of charges from now on; None keeps the present one."""
        self._default = default or self._default

    def charge(self, spec: Spec) -> int:
        """What one image weighs beside one of the default request, in millionths. All weigh the same until a gateway
        has sent the default request.

        The measured speeds of two models are compared only once both are known: the ratio of a measurement to a
        guess could be off by any factor.
        """
        default = self._default
        if default is None:
            return ONE
        own, other = self._paces.get(_kind(spec)), self._paces.get(_kind(default))
        ratio = own.per_cost / other.per_cost if own and other else 1.0
        return min(MOST, max(1, round(ONE * cost(spec) / cost(default) * ratio)))

    def work_begins(self) -> None:
        """Start the clock of the throughput estimate: nothing was in flight, so the idle time before must not count."""
        self._since_s = asyncio.get_running_loop().time()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Learn from the pictures among these changes."""
        for before, after in changes:
            for image in after.images:
                won = image.rendered
                if won is not None and before is not None and before.images[image.index].rendered is None:
                    self.rendered(after.spec, won.timings.gpu_ms, after.charge)

    def rendered(self, spec: Spec, gpu_ms: float, charge: int = ONE) -> None:
        """Learn from one rendered image.

        An image that costs less than the default request is weighted by the square of the ratio: its time is mostly
        overhead, and a flood of tiny images would make the model look expensive for every tenant.
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
        """Seconds to complete work of this charge, at the throughput of the last minute.

        With fewer than 8 images in that minute, the estimate for a single GPU.
        """
        self._forget()
        done = sum(each for _, _, each in self._gaps)
        if len(self._gaps) >= _LEAST_SAMPLES and done:
            return charge * sum(gap_s for _, gap_s, _ in self._gaps) / done
        return charge / ONE * (self.work_s(self._default) if self._default else _GUESSED_IMAGE_S)

    def wait_s(self, images_ahead: int, cap_s: float) -> float:
        """Seconds, at most `cap_s`, to complete this many images at the throughput of the last minute; 0 with fewer
        than 8 images in that minute.

        Idle time does not count. Otherwise an image now and then would look like low throughput, rechecks would be
        set too late, and a job lost behind a burst would be noticed minutes later.
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
    """The key under which speeds are measured separately."""
    return spec.model, passes(spec)
