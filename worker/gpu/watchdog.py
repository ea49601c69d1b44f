"""Distinguishes a hung engine from a slow one. A hung thread cannot be stopped: a process has to end, the engine's
own or else the worker's.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker.batching.measurements import Measurements, step_kind
from worker.engines.contract import BatchKey

_log = structlog.get_logger()
_RESET: BatchKey = ("reset",)
_LOAD: BatchKey = ("load",)


class Hung(Exception):
    """The GPU thread has not made a step, or loaded a model, for too long."""


class Pulse:
    """Signs of life of the GPU thread while it works. Learns how long the thread is usually silent, per batch key.
    `floor_s` is the least deadline between steps, `reset_s` and `load_s` those of a reset and a load.
    """

    def __init__(self, measured: Measurements, *, floor_s: float, reset_s: float, load_s: float = 660.0) -> None:
        self._measured = measured
        self._floor_s = floor_s
        self._limits_s = {step_kind(_RESET): reset_s, step_kind(_LOAD): load_s}
        self._kind: tuple[object, ...] = ()
        self._last_s = 0.0
        self._longest_s = 0.0
        self.beats = 0
        self.working = False

    def begin(self, key: BatchKey, now_s: float) -> None:
        """The thread has been given work."""
        self._kind = step_kind(key)
        self._last_s = now_s
        self._longest_s = 0.0
        self.beats += 1
        self.working = True

    def begin_reset(self, now_s: float) -> None:
        """The engine is being reset, which has a limit of its own and is not learned from."""
        self.begin(_RESET, now_s)

    def begin_load(self, now_s: float) -> None:
        """A model is being loaded, or makes room for one."""
        self.begin(_LOAD, now_s)

    def beat(self, now_s: float) -> None:
        """A step is done."""
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._last_s = now_s
        self.beats += 1

    def end(self, now_s: float) -> None:
        """The work is done."""
        self.beat(now_s)
        self.learn()
        self.working = False

    def learn(self) -> None:
        """A picture is done: learn the longest silence since the last one, prompt encoding and decoding included."""
        # At most the floor, so that one long pause does not raise the deadline beyond ten floors.
        self._measured.observe(self._kind, min(self._longest_s, self._floor_s))
        self._longest_s = 0.0

    def fail(self) -> None:
        """The work has ended in an error, or was a load: nothing is learned from it."""
        self.beats += 1
        self.working = False

    @property
    def missing(self) -> str:
        """What the thread has failed to produce when the deadline is over, for error messages."""
        return "no loaded model" if self._kind == step_kind(_LOAD) else "no step"

    def deadline_s(self) -> float:
        """Seconds without a sign of life after which the current work counts as hung."""
        limit_s = self._limits_s.get(self._kind)
        if limit_s is not None:
            return limit_s
        return hang_deadline_s(floor_s=self._floor_s, learned_s=self._measured.seconds(self._kind))


class Watchdog:
    """One task of the service. It sums its own ticks, each at most twice `tick_s`, so that a process that was stopped
    and continued does not count as hung.

    `leave` is called at a hang with the reason. It returns True if it has ended the engine's process, so that the
    worker goes on.
    """

    def __init__(self, pulse: Pulse, *, tick_s: float, leave: Callable[[str], Awaitable[bool]]) -> None:
        self._pulse = pulse
        self._tick_s = tick_s
        self._leave = leave

    async def run(self) -> None:
        """Watch until cancelled. Raises Hung once `leave` has reported the running images and returned False."""
        loop = asyncio.get_running_loop()
        seen, silent_s = -1, 0.0
        while True:
            before = loop.time()
            await asyncio.sleep(self._tick_s)
            if not self._pulse.working or self._pulse.beats != seen:
                seen, silent_s = self._pulse.beats, 0.0
                continue
            silent_s += min(loop.time() - before, 2 * self._tick_s)
            if silent_s > self._pulse.deadline_s():
                _log.error("gpu.hung", silent_s=round(silent_s, 1))
                if await self._leave(f"{self._pulse.missing} within the deadline"):
                    silent_s = 0.0
                    continue
                raise Hung(f"{self._pulse.missing} for {silent_s:.0f} s")


def hang_deadline_s(*, floor_s: float, learned_s: float | None) -> float:
    """Seconds without a step after which the engine counts as hung: ten times the learned silence, at least `floor_s`;
    four times `floor_s` while nothing is learned.
    """
    return 4 * floor_s if learned_s is None else max(floor_s, 10 * learned_s)
