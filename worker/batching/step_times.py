"""The step-time curve, learned: seconds of one step of a batch of b, per kind of work. No I/O, no clock.

The event loop observes while the GPU thread asks: a reader works on a copy of the sizes, and on one table.

The admission policy asks it what another member would cost. Until a kind is known the curve is an assumption:
UNKNOWN_STEP_S alone, and each further member costs half a step more. That is optimistic on purpose: batches grow
and show what they really cost, whereas a pessimistic guess would never be put to the test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

UNKNOWN_STEP_S = 0.05
UNKNOWN_ALPHA = 0.5
SETTLING = 3
"""For this many first steps of a size the fastest counts, since they also select kernels and warm caches."""
WEIGHT = 0.1
"""Weight of the newest step in a size's moving average."""
OUTLIER = 1.5
"""A step counts as at most the average times this, and at least the average divided by it: a pause is no step."""
TRUST = 5
"""After this many steps of a size, their average weighs as much as the line fitted through all sizes."""
MAX_SIZES = 64


@dataclass(slots=True)
class _Size:
    seconds: float
    steps: int = 1

    def observe(self, seconds: float) -> None:
        if self.steps < SETTLING:
            self.seconds = min(self.seconds, seconds)
        else:
            usual = min(max(seconds, self.seconds / OUTLIER), self.seconds * OUTLIER)
            self.seconds += WEIGHT * (usual - self.seconds)
        self.steps = min(self.steps + 1, 1_000)


@dataclass(slots=True)
class _Curve:
    sizes: dict[int, _Size] = field(default_factory=dict)
    table: Sequence[float] = ()
    """Of sizes 1, 2, …, as far as asked for since the last observation."""

    def observe(self, size: int, seconds: float) -> None:
        known = self.sizes.get(size)
        if known is not None:
            known.observe(seconds)
        elif len(self.sizes) < MAX_SIZES:
            self.sizes[size] = _Size(seconds)
        self.table = ()

    def seconds(self, size: int) -> float:
        table = self.table
        if len(table) < size:
            sizes = self.sizes.copy()
            self.table = table = _learned(sizes, max(size, 8, *sizes))
        return table[size - 1]


class StepTimes:
    """One curve per kind of work. Beyond `remembered` kinds, the longest unobserved is forgotten."""

    def __init__(self, *, remembered: int = 200) -> None:
        self._curves: dict[tuple[object, ...], _Curve] = {}
        self._remembered = remembered

    def observe(self, kind: tuple[object, ...], size: int, seconds: float) -> None:
        """One step of a batch of `size` took `seconds`."""
        curve = self._curves.pop(kind, None) or _Curve()
        curve.observe(size, seconds)
        self._curves[kind] = curve
        if len(self._curves) > self._remembered:
            del self._curves[next(iter(self._curves))]

    def known(self, kind: tuple[object, ...]) -> bool:
        """Whether a step of this kind was ever observed."""
        return kind in self._curves

    def step_s(self, kind: tuple[object, ...]) -> Callable[[int], float]:
        """Seconds of a step by batch size, never falling with it; an assumption where nothing is known."""
        curve = self._curves.get(kind)
        return _assumed if curve is None else curve.seconds


def _learned(sizes: Mapping[int, _Size], largest: int) -> list[float]:
    base, slope = _line(sizes)
    table: list[float] = []
    for size in range(1, largest + 1):
        fitted = base + slope * size
        measured = sizes.get(size)
        if measured is not None:
            fitted += (measured.seconds - fitted) * measured.steps / (measured.steps + TRUST)
        table.append(fitted)
    return _rising(table)


def _line(sizes: Mapping[int, _Size]) -> tuple[float, float]:
    """c0 and c1 of c0 + c1·b, by least squares, each size weighing as many steps as it had, at most TRUST."""
    points = [(size, each.seconds, min(each.steps, TRUST)) for size, each in sizes.items()]
    total = sum(weight for _, _, weight in points)
    mean_size = sum(size * weight for size, _, weight in points) / total
    mean_s = sum(seconds * weight for _, seconds, weight in points) / total
    spread = sum(weight * (size - mean_size) ** 2 for size, _, weight in points)
    if not spread:
        slope = mean_s * UNKNOWN_ALPHA / (1 - UNKNOWN_ALPHA + UNKNOWN_ALPHA * mean_size)
    else:
        slope = sum(weight * (size - mean_size) * (seconds - mean_s) for size, seconds, weight in points) / spread
    slope = min(max(slope, 0.0), mean_s / mean_size)  # never falling, never slower than one image at a time
    return mean_s - slope * mean_size, slope


def _assumed(size: int) -> float:
    return UNKNOWN_STEP_S * (1 - UNKNOWN_ALPHA + UNKNOWN_ALPHA * size)


def _rising(table: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls: neighbours that do get their mean (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for seconds in table:
        mean, count = seconds, 1
        while pools and pools[-1][0] > mean:
            before, held = pools.pop()
            mean, count = (before * held + mean * count) / (held + count), held + count
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]
