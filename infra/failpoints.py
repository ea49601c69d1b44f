"""Named places in the code where a test may kill, stop, delay or fail the process.

Armed by `DARKROOM_FAILPOINTS` in kill tests, and by nothing else. The text is a list such as
`core.before_commit=kill; worker.gpu_mid=kill@3; core.after_send=sleep:5; worker.encoded=raise`:
`@N` acts at the Nth arrival only. Unarmed, reaching a place costs one truth test.
"""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.lifecycle import ConfigError

_ENTRY = re.compile(r"(?P<name>[a-z_.]+)=(?P<action>kill|stop|raise|sleep:(?P<s>[0-9.]+))(@(?P<nth>[1-9][0-9]*))?")


class FailpointReached(Exception):
    """What `name=raise` raises."""


@dataclass(slots=True, kw_only=True)
class _Armed:
    name: str
    action: str
    sleep_s: float
    nth: int | None
    arrivals: int = field(default=0)


class Failpoints:
    """The armed places. Safe to reach from any thread."""

    def __init__(self, armed: Sequence[_Armed] = ()) -> None:
        self._armed = tuple(armed)
        self._lock = threading.Lock()

    @classmethod
    def from_env(cls, text: str) -> "Failpoints":
        """From the text of `DARKROOM_FAILPOINTS`; empty arms nothing. Raises ConfigError."""
        return cls([_parse(entry.strip()) for entry in text.split(";") if entry.strip()])

    async def reach(self, name: str) -> None:
        """Arrive at `name` in the event loop; `sleep` suspends only the calling task."""
        if self._armed:
            for point in self._due(name):
                if point.sleep_s:
                    await asyncio.sleep(point.sleep_s)
                else:
                    _act(point)

    def reach_now(self, name: str) -> None:
        """Arrive at `name` in a thread; `sleep` blocks it."""
        if self._armed:
            for point in self._due(name):
                if point.sleep_s:
                    time.sleep(point.sleep_s)
                else:
                    _act(point)

    def _due(self, name: str) -> list[_Armed]:
        due = []
        with self._lock:
            for point in self._armed:
                if point.name == name:
                    point.arrivals += 1
                    if point.nth is None or point.arrivals == point.nth:
                        due.append(point)
        return due


def _parse(entry: str) -> _Armed:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigError(
            f"DARKROOM_FAILPOINTS: {entry!r} is not name=kill|stop|raise|sleep:SECONDS, with @N or without"
        )
    nth = match["nth"]
    return _Armed(
        name=match["name"],
        action=match["action"].partition(":")[0],
        sleep_s=float(match["s"] or 0),
        nth=int(nth) if nth else None,
    )


def _act(point: _Armed) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise FailpointReached(point.name)
        case _:  # sleep:0
            pass
