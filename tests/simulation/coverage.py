"""What the schedules have gone through, and what of all there is they have not."""

from collections import Counter
from dataclasses import dataclass, field

from tests.simulation import poison
from tests.simulation.faults import KINDS
from tests.simulation.schedule import Outcome

OUTCOMES = ("unacknowledged_kept", "unacknowledged_lost", "dead_letter_recorded")
"""What a crash of core in the middle of a commit, or a dead letter, comes to: chance; a third as often."""

POISON = tuple(f"poison_{kind}" for kind in poison.KINDS)

TRANSITIONS = (
    "requested",
    "image.dispatched pending>dispatched",
    "image.dispatched dispatched>dispatched",
    "image.dispatched started>dispatched",
    "image.started pending>started",
    "image.started dispatched>started",
    "image.started started>started",
    "image.rendered pending>rendered",
    "image.rendered dispatched>rendered",
    "image.rendered started>rendered",
    "image.published rendered>published",
    "image.attempt_failed dispatched>pending",
    "image.attempt_failed started>pending",
    "image.attempt_failed rendered>pending",
    "image.failed pending>failed",
    "image.failed started>failed",
    "generation.succeeded running",
    "generation.failed running",
    "generation.cancelled queued",
    "generation.cancelled running",
    "generation.expired queued",
    "generation.expired running",
    "generation.erased tenant",
    "generation.erased retention",
)
ENOUGH = 100
"""Times that each fault is to be met in a run of thousands; in shorter ones, fewer."""


@dataclass
class Tally:
    """Of all schedules of one run."""

    schedules: int = 0
    accepted: int = 0
    failed: int = 0
    events: int = 0
    stuck: int = 0
    lost: int = 0
    double: int = 0
    wrong: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)
    bad: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more schedule."""
        self.schedules += 1
        self.accepted += outcome.accepted
        self.failed += outcome.failed
        self.events += outcome.events
        self.stuck += bool(outcome.stuck)
        kinds = [text.partition(":")[0] for text in outcome.violations]
        self.lost += "lost" in kinds
        self.double += "double" in kinds
        self.wrong += "wrong" in kinds
        self.faults.update(outcome.faults)
        self.transitions.update(outcome.transitions)
        if not outcome.good:
            self.bad.append(outcome)

    def uncovered(self, enough: int = 0) -> list[str]:
        """Faults met less than `enough` times (0: as a run of this length can ask for), transitions never seen."""
        return self.rare(enough or max(1, min(ENOUGH, self.schedules // 20))) + self.unseen()

    def rare(self, enough: int) -> list[str]:
        """Faults met less than `enough` times."""
        wanted = dict.fromkeys(KINDS, enough) | dict.fromkeys((*OUTCOMES, *POISON), enough // 3)
        met = self.faults
        return [f"{fault} ({met[fault]} of {times})" for fault, times in wanted.items() if met[fault] < times]

    def unseen(self) -> list[str]:
        """Transitions that never came about. The rarest comes in one schedule of a hundred."""
        return [move for move in TRANSITIONS if not self.transitions[move]]
