"""How long generations made no progress after each kill. Pure.

A recovery is the time from a kill to the next event in the log of a generation that was open at the kill. Generations
that merely waited in the backlog count too.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from loadtests.summary import percentile


class Recovery:
    """Fed one generation at a time. `killed_at_ms` are Unix times in order."""

    def __init__(self, killed_at_ms: Sequence[int]) -> None:
        self._kills = sorted(killed_at_ms)
        self._took_ms = array("d")

    def add(self, events_at_ms: Sequence[int]) -> None:
        """The times of a generation's events, in order."""
        for before, after in pairwise(events_at_ms):
            hit = self._kills[bisect_right(self._kills, before) : bisect_left(self._kills, after)]
            self._took_ms.extend(float(after - kill) for kill in hit)

    def figures(self) -> dict[str, float]:
        """Median, 99th percentile and maximum in seconds, and the number of recoveries."""
        ordered = sorted(self._took_ms)
        return {
            "recovery_p50_s": round(percentile(ordered, 0.5) / 1000, 2),
            "recovery_p99_s": round(percentile(ordered, 0.99) / 1000, 2),
            "recovery_max_s": round(ordered[-1] / 1000, 2) if ordered else 0.0,
            "recoveries": len(ordered),
        }
