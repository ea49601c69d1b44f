"""What core learns from finished images: GPU seconds per unit of cost, and how fast images are completed.

Cost is pixels times steps. Both figures only shape order and patience; nothing is decided by them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from core.draft import Change
from core.events import Spec

_FIRST_GUESS: Final = 5e-7  # between an H200 on a large model (2e-7) and one CPU core on a small one (2e-6)
_WEIGHT: Final = 0.1
_MAX_MODELS: Final = 1_000
_WINDOW_S: Final = 60.0
_LEAST_SAMPLES: Final = 8


def cost(spec: Spec) -> float:
    """Pixels times steps of one image."""
    return float(spec.width * spec.height * spec.num_inference_steps)


class Estimates:
    """Moving averages, kept in memory."""

    def __init__(self) -> None:
        self._per_cost: dict[str, float] = {}
        self._gaps: deque[tuple[float, float]] = deque(maxlen=256)
        """When pictures of late were finished, and how long after the one before, or after work began."""
        self._since_s: float | None = None

    def work_s(self, spec: Spec) -> float:
        """Estimated GPU seconds of one image, its share of a batch."""
        return cost(spec) * self._per_cost.get(spec.model, _FIRST_GUESS)

    def work_begins(self) -> None:
        """Nothing was out until now: the time before says nothing of the pace."""
        self._since_s = asyncio.get_running_loop().time()

    def observe(self, changes: Sequence[Change]) -> None:
        """Learn from the pictures among these changes."""
        for before, after in changes:
            for image in after.images:
                won = image.rendered
                if won is not None and before is not None and before.images[image.index].rendered is None:
                    self.rendered(after.spec, won.timings.gpu_ms)

    def rendered(self, spec: Spec, gpu_ms: float) -> None:
        """Learn from one picture."""
        now = asyncio.get_running_loop().time()
        if self._since_s is not None:
            self._gaps.append((now, now - self._since_s))
        self._since_s = now
        if gpu_ms <= 0:
            return
        seen = gpu_ms / 1000 / cost(spec)
        known = self._per_cost.get(spec.model)
        if known is not None or len(self._per_cost) < _MAX_MODELS:
            self._per_cost[spec.model] = seen if known is None else known + _WEIGHT * (seen - known)

    def wait_s(self, images_ahead: int, cap_s: float) -> float:
        """How long so many images take at the pace of the last minute; 0 while no pace is known.

        Times without work do not count: one picture now and then is no slow pace, and what is lost behind a burst
        would be noticed minutes late.
        """
        now = asyncio.get_running_loop().time()
        while self._gaps and self._gaps[0][0] < now - _WINDOW_S:
            self._gaps.popleft()
        if len(self._gaps) < _LEAST_SAMPLES:
            return 0.0
        return min(cap_s, images_ahead * sum(gap_s for _, gap_s in self._gaps) / len(self._gaps))
