"""The result of a load test, as text and as one JSON line, from the figures that the scenario wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ACCEPTED = "to accepted"
PICTURES = "to pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long something took, over all clients, in ms."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Times":
        """From the times of all that succeeded."""
        ordered = sorted(values)
        p50, p95, p99 = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
        return cls(count=len(ordered), p50_ms=p50, p95_ms=p95, p99_ms=p99)


class Figures(BaseModel):
    """The file that the scenario writes."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    times_ms: dict[str, list[float]]
    """Of what succeeded, by entry."""
    calls: dict[str, tuple[int, int]]
    """Calls and failed ones among them, by entry."""
    errors: list[tuple[int, str, str]]
    """How often, in which entry, why."""
    exceptions: list[str]


class Summary:
    """The percentiles and counts of one run."""

    def __init__(self, figures: Figures) -> None:
        raw = figures.times_ms
        pictures = [value for name, values in raw.items() if name.startswith(PICTURES) for value in values]
        self.seconds = figures.seconds
        self.times = {name: Times.of(values) for name, values in {**raw, PICTURES: pictures}.items()}
        self.errors = figures.errors
        self.exceptions = figures.exceptions
        self._calls = figures.calls

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """From the scenario's file."""
        return cls(Figures.model_validate_json(path.read_bytes()))

    @property
    def accepted(self) -> int:
        """Generations that were answered with 202."""
        return self.times[ACCEPTED].count if ACCEPTED in self.times else 0

    @property
    def failures(self) -> int:
        """Failed entries of any kind, and errors of the scenario itself."""
        return sum(each[0] for each in self.errors) + len(self.exceptions)

    def line(self) -> dict[str, object]:
        """The figures that are worth keeping, as printed last."""
        pictures = self.times[PICTURES]
        accepted = self.times.get(ACCEPTED) or Times.of([])
        return {
            "load": "generations",
            "seconds": round(self.seconds, 1),
            "accepted": self.accepted,
            "accepted_per_s": round(self.accepted / self.seconds, 2) if self.seconds else 0.0,
            "completed": pictures.count,
            "pictures": self._count("GET picture"),
            "cancelled": self._count("POST cancel"),
            "refused_429": self._count("POST generation (429, obeyed)"),
            "accepted_ms": _three(accepted),
            "pictures_ms": _three(pictures),
            "failures": self.failures,
        }

    def text(self, *, users: int, report: Path) -> str:
        """The summary for people."""
        line = self.line()
        rows = [f"{'ms':<28}{'count':>8}{'p50':>10}{'p95':>10}{'p99':>10}"]
        for name in sorted(self.times):
            each = self.times[name]
            if each.count:
                rows.append(f"{name:<28}{each.count:>8}{each.p50_ms:>10.1f}{each.p95_ms:>10.1f}{each.p99_ms:>10.1f}")
        head = f"{users} users for {self.seconds:.1f} s: {line['accepted_per_s']} accepted/s ({self.accepted})"
        counts = f"{line['pictures']} pictures checked, {line['cancelled']} cancelled, {line['refused_429']} × 429"
        return "\n".join(
            (
                f"{head}, {counts}",
                *rows,
                f"failures: {self.failures}",
                *(f"  {times} × {name}: {why}" for times, name, why in self.errors),
                *(f"  error in the scenario: {text}" for text in self.exceptions),
                f"report: {report}",
            )
        )

    def _count(self, name: str) -> int:
        total, failed = self._calls.get(name, (0, 0))
        return total - failed


def percentile(ordered: Sequence[float], share: float) -> float:
    """The element at index ⌊share · n⌋ of the n ordered values, or the last; 0 if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _three(times: Times) -> dict[str, float]:
    return {"p50": round(times.p50_ms, 1), "p95": round(times.p95_ms, 1), "p99": round(times.p99_ms, 1)}
