"""What happens to the stack and when, drawn from a seed. Pure: no process, no clock.

Kinds come from shuffled decks, so that a short run meets each of them too.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gateway", "core", "worker", "emulator"]
Weather = Literal["refused", "reset", "half", "lost", "torn", "slow", "down", "purge"]

KILLS: Final[tuple[Kind, ...]] = (
    *("worker", "worker", "worker", "worker", "worker", "worker", "worker", "worker"),
    *("core", "core", "core", "core", "core", "core"),
    *("gateway", "gateway", "gateway", "gateway", "gateway"),
    "emulator",
)
STOPS: Final[tuple[Kind, ...]] = ("worker", "core", "worker", "gateway", "worker")
WEATHERS: Final[tuple[Weather, ...]] = ("refused", "reset", "half", "lost", "torn", "slow", "down", "purge")
LOOP_EVERY_S: Final = 2.0
"""In the last `loop_s`, core is killed at this interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL to a process of this kind, which is started again after a pause."""

    at_s: float
    kind: Kind
    away_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """SIGSTOP to a process of this kind, SIGCONT after a while."""

    at_s: float
    kind: Kind
    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Queue and store misbehave for `for_s`: each request with probability `chance`."""

    at_s: float
    weather: Weather
    for_s: float
    chance: float


Action = Kill | Stop | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the caller wants. With `only`, processes of this kind are killed and nothing else happens.

    In the last `loop_s` of `seconds`, core alone is killed, every LOOP_EVERY_S.
    """

    seconds: float
    kill_every_s: float
    visibility_s: int
    only: Kind | None = None
    loop_s: float = 0.0


def timetable(asked: Asked, rng: random.Random) -> list[Action]:
    """Everything that will happen, in order."""
    mixed_s = asked.seconds - asked.loop_s
    actions: list[Action] = [*_kills(rng, [asked.only] if asked.only else KILLS, 0, mixed_s, asked.kill_every_s)]
    if not asked.only:
        actions += _stops(rng, asked, mixed_s)
        actions += _faults(rng, asked, mixed_s)
    if asked.loop_s:
        actions += _kills(rng, ["core"], mixed_s, asked.seconds, LOOP_EVERY_S)
    return sorted(actions, key=lambda each: each.at_s)


def _kills(rng: random.Random, kinds: Sequence[Kind], begin_s: float, end_s: float, every_s: float) -> Iterator[Kill]:
    deck = _deck(rng, kinds)
    at_s = begin_s + every_s
    while at_s <= end_s:
        # Most are back at once, as under a supervisor; some stay away for a while.
        away_s = 0.0 if len(kinds) == 1 or rng.random() < 0.6 else rng.uniform(0.2, 3.0)
        yield Kill(at_s=at_s, kind=next(deck), away_s=away_s)
        at_s += every_s


def _stops(rng: random.Random, asked: Asked, end_s: float) -> Iterator[Stop]:
    deck, every_s = _deck(rng, STOPS, shuffled=False), max(14.0, 4 * asked.kill_every_s)
    at_s = every_s / 2
    while at_s < end_s:
        yield Stop(at_s=at_s, kind=next(deck), for_s=asked.visibility_s + rng.uniform(1, 4))
        at_s += every_s * rng.uniform(0.9, 1.1)


def _faults(rng: random.Random, asked: Asked, end_s: float) -> Iterator[Fault]:
    deck, every_s = _deck(rng, WEATHERS), max(9.0, 2 * asked.kill_every_s)
    at_s = every_s / 3
    while at_s < end_s:
        yield Fault(at_s=at_s, weather=next(deck), for_s=rng.uniform(2, 5), chance=rng.uniform(0.2, 0.7))
        at_s += every_s * rng.uniform(0.9, 1.1)


def _deck(rng: random.Random, cards: Sequence, *, shuffled: bool = True) -> Iterator:  # type: ignore[type-arg]
    """Yields all cards in some order, then all in another, without end."""
    while True:
        yield from rng.sample(cards, len(cards)) if shuffled else cards
