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
        self._ends: deque[float] = deque(maxlen=256)

    def work_s(self, spec: Spec) -> float:
        """Estimated GPU seconds of one image, its share of a batch."""
        return cost(spec) * self._per_cost.get(spec.model, _FIRST_GUESS)

    def observe(self, changes: Sequence[Change]) -> None:
        """Learn from the pictures among these changes."""
        for before, after in changes:
            for image in after.images:
                won = image.rendered
                if won is not None and before is not None and before.images[image.index].rendered is None:
                    self.rendered(after.spec, won.timings.gpu_ms)

    def rendered(self, spec: Spec, gpu_ms: float) -> None:
        """Learn from one picture."""
        self._ends.append(asyncio.get_running_loop().time())
        if gpu_ms <= 0:
            return
        seen = gpu_ms / 1000 / cost(spec)
        known = self._per_cost.get(spec.model)
        if known is not None or len(self._per_cost) < _MAX_MODELS:
            self._per_cost[spec.model] = seen if known is None else known + _WEIGHT * (seen - known)

    def wait_s(self, images_ahead: int, cap_s: float) -> float:
        """How long so many images take at the pace of the last minute; 0 while no pace is known."""
        now = asyncio.get_running_loop().time()
        while self._ends and self._ends[0] < now - _WINDOW_S:
            self._ends.popleft()
        if len(self._ends) < _LEAST_SAMPLES:
            return 0.0
        span_s = max(self._ends[-1] - self._ends[0], 0.001)
        return min(cap_s, images_ahead * span_s / (len(self._ends) - 1))
