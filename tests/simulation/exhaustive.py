"""Every order in which the steps of a small generation can come: each state is met once, each order counted.

`python -m tests.simulation.exhaustive --images 3 --crashes 2`; the last line is JSON.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass

from tests.simulation.small import Small, State, Step
from tests.simulation.small_core import SmallCore


@dataclass(frozen=True, slots=True)
class Found:
    """What a search went through. `orders`: distinct orders of steps up to the generation's end, images alike."""

    states: int
    steps: int
    decisions: int
    orders: int
    ends: dict[str, int]
    took_s: float


class Search:
    """Depth first, each state once."""

    def __init__(self) -> None:
        self.small = Small(SmallCore())
        self.orders: dict[State, int] = {}
        self.ends: Counter[str] = Counter()
        self.steps = 0
        self.path: list[str] = []
        self._stack: list[tuple[State, list[Step], int]] = []

    def run(self, first: State) -> None:
        """Raises AssertionError with the steps that led there."""
        try:
            self._enter("", first)
            while self._stack:
                self._go_on(*self._stack.pop())
        except AssertionError as error:
            raise AssertionError(f"after{', '.join(self.path)}: {error}") from error

    def _enter(self, name: str, state: State) -> None:
        self.path.append(name)
        if self.small.over(state):
            self.small.settle(state)
            self.orders[state] = 1
            self.ends[self.small.core.ending(state.shell).name.lower()] += 1
            self.path.pop()
            return
        following = self.small.steps(state)
        self.steps += len(following)
        self._stack.append((state, following, 0))

    def _go_on(self, state: State, following: list[Step], place: int) -> None:
        while place < len(following) and following[place][1] in self.orders:
            place += 1
        if place < len(following):
            self._stack.append((state, following, place))
            self._enter(*following[place])
        else:
            self.orders[state] = sum(self.orders[after] for _, after in following)
            self.path.pop()


def explore(images: int, crashes: int, *, repeats: int = 1, failures: int = 0) -> Found:
    """Go through all of them. Raises AssertionError with the steps that led there."""
    search, begun = Search(), time.perf_counter()
    first = search.small.begin(images, crashes, repeats, failures)
    search.run(first)
    return Found(
        states=len(search.orders),
        steps=search.steps,
        decisions=len(search.small.core),
        orders=search.orders[first],
        ends=dict(search.ends),
        took_s=round(time.perf_counter() - begun, 1),
    )


def main() -> None:
    """Fails with a traceback when an order breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.exhaustive", description=__doc__)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--crashes", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="messages that come twice, at most")
    parser.add_argument("--failures", type=int, default=0, help="attempts that fail, at most")
    asked = parser.parse_args()
    print(json.dumps(vars(asked) | asdict(explore(**vars(asked)))))


if __name__ == "__main__":
    main()
