"""One call over a network to a simulated service, with all that may happen to it on the way.

The caller waits in its own context, the service acts in nobody's: a caller that is killed after it has sent does not
take its request back, and one that is frozen finds its answer when it goes on.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from infra.retry import Retryable
from tests.simulation.world import World

T = TypeVar("T")
_QUICK_S = 0.01
_GIVES_UP_S = 5.0


class Net:
    """All services are reached through here."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice("net")

    def delay_s(self, service: str) -> float:
        """One way."""
        return self._dice.expovariate(1 / _QUICK_S) + self._dice.random() * self._world.weather[service].slow_s

    async def call(self, service: str, name: str, act: Callable[[], T]) -> T:
        """The service's answer: `act` is what it does. Raises what `act` raises, or Retryable, done or not done."""
        self._world.reach(f"{service}.{name}")
        answer: asyncio.Future[T] = self._world.loop.create_future()
        self.later(self.delay_s(service), lambda: self._arrive(service, name, act, answer))
        return await answer

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """In the world outside, after a while."""
        self._world.loop.call_later(delay_s, act, context=self._world.loop.neutral)

    def refused(self, service: str, name: str) -> Retryable | None:
        """Why a request does not even arrive."""
        weather = self._world.weather[service]
        if weather.down:
            self._hit("unreachable", service, name)
            return Retryable(f"{service}: unreachable")
        if weather.throttled and self._dice.random() < weather.throttled:
            self._hit("throttled", service, name)
            return Retryable(f"{service}: throttled")
        return None

    def reply(self, service: str, name: str, answer: "asyncio.Future[T]", outcome: T | Exception) -> None:
        """Send an answer, which may be lost."""
        weather = self._world.weather[service]
        if weather.answers_lost and self._dice.random() < weather.answers_lost:
            self._hit("answer_lost", service, name)
            self.later(self._dice.random() * _GIVES_UP_S, lambda: _settle(answer, Retryable(f"{service}: no answer")))
            return
        if weather.slow_s:
            self._world.faults["slow"] += 1
        self.later(self.delay_s(service), lambda: _settle(answer, outcome))

    def _arrive(self, service: str, name: str, act: Callable[[], T], answer: "asyncio.Future[T]") -> None:
        refused = self.refused(service, name)
        if refused is not None:
            self.later(self.delay_s(service), lambda: _settle(answer, refused))
            return
        outcome: T | Exception
        try:
            outcome = act()
        except Exception as error:  # noqa: BLE001  (the service's answer)
            outcome = error
        self.reply(service, name, answer, outcome)

    def _hit(self, fault: str, service: str, name: str) -> None:
        self._world.faults[fault] += 1
        self._world.note(f"{service}.{name} {fault}")


def _settle(answer: "asyncio.Future[T]", outcome: T | Exception) -> None:
    if answer.done():
        return  # nobody waits any more
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
