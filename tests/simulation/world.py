"""What everything in one simulated schedule shares: seeded chance, the weather, the trace, what was covered.

The weather is the faults that are on at the moment, per service; `net` asks it about every call.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from tests.simulation.loop import VirtualLoop

QUEUES = ("jobs", "replies")
STORES = ("temp", "public")


@dataclass(slots=True)
class Weather:
    """Of one service. Probabilities from 0 to 1, times in seconds."""

    down: int = 0
    throttled: float = 0.0
    answers_lost: float = 0.0
    slow_s: float = 0.0
    lose: float = 0.0
    corrupt: float = 0.0
    refuse: float = 0.0
    duplicate: float = 0.0
    delay_s: float = 0.0
    shuffled: bool = False

    def fair(self) -> bool:
        """Whether nothing is wrong."""
        return self == Weather()


@dataclass
class World:
    """One schedule's. `traced` keeps the lines of the trace; its digest is made in any case."""

    seed: str
    loop: VirtualLoop
    traced: bool = False
    lines: list[str] = field(default_factory=list)
    weather: dict[str, Weather] = field(default_factory=lambda: defaultdict(Weather))
    faults: Counter[str] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    wall_offset_ms: int = 0
    stormy: int = 0
    trips: dict[str, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._digest = sha256()
        self._dice: dict[str, Random] = {}

    def dice(self, what: str) -> Random:
        """The chance of one purpose: what one part draws does not shift what the others draw."""
        if what not in self._dice:
            self._dice[what] = Random(f"{self.seed}/{what}")
        return self._dice[what]

    def reach(self, what: str) -> None:
        """A process is at such a point: whoever lies in wait for it hears of it, once."""
        if self.trips:
            act = self.trips.pop(f"{self.loop.acting().partition('.')[0]}:{what}", None)
            if act is not None:
                act()

    def note(self, text: str) -> None:
        """One line of the trace."""
        if self.loop.over:
            return
        line = f"{self.loop.time() - 1_000:10.4f}  {text}"
        self._digest.update(line.encode())
        if self.traced:
            self.lines.append(line)

    def violate(self, text: str, kind: str = "wrong") -> None:
        """An invariant does not hold: the schedule ends. `kind`: lost, double or wrong."""
        if self.loop.over:  # what is cancelled with the schedule complains of it
            return
        self.note(f"VIOLATION {kind}: {text}")
        self.violations.append(f"{kind}: {text}")
        self.broken.set()

    def wall_ms(self) -> int:
        """What the clock on the wall says."""
        return 1_700_000_000_000 + int(self.loop.time() * 1_000) + self.wall_offset_ms

    @property
    def digest(self) -> str:
        """Of the whole trace."""
        return self._digest.hexdigest()
