"""Tells a hung engine from a slow one. A hung GPU thread cannot be stopped: the process has to end."""

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
    """Signs of life of the GPU thread while it works; also where step times are learned."""

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
        """The engine is being made ready again: nothing to learn from, and longer than a step."""
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
        """A picture is done. The longest silence is what is learned: it covers encoding prompts and decoding."""
        self._measured.observe(self._kind, min(self._longest_s, self._floor_s))
        self._longest_s = 0.0

    def fail(self) -> None:
        """The work ended in an error, or was no step: nothing is learned."""
        self.beats += 1
        self.working = False

    @property
    def missing(self) -> str:
        """What has been waited for in vain when the deadline is over."""
        return "no loaded model" if self._kind == step_kind(_LOAD) else "no step"

    def deadline_s(self) -> float:
        """How long the silence may be."""
        limit_s = self._limits_s.get(self._kind)
        if limit_s is not None:
            return limit_s
        return hang_deadline_s(floor_s=self._floor_s, learned_s=self._measured.seconds(self._kind))


class Watchdog:
    """One task of the service. Counts its own ticks, so that a stopped and continued process is not taken for hung.

    `leave` is called at a hang with what is missing. True: it has ended the engine's process, and the worker goes on.
    """

    def __init__(self, pulse: Pulse, *, tick_s: float, leave: Callable[[str], Awaitable[bool]]) -> None:
        self._pulse = pulse
        self._tick_s = tick_s
        self._leave = leave

    async def run(self) -> None:
        """Until cancelled; raises Hung after the images that ran have been reported."""
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
    """Seconds without a step after which the engine counts as hung; four floors while nothing is learned."""
    return 4 * floor_s if learned_s is None else max(floor_s, 10 * learned_s)
