"""Why a model cannot be used here, and when it is tried again. Pure: no clock and no I/O of its own."""

import errno
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from infra.retry import backoff_s
from schema.limits import MAX_DETAIL_CHARS
from worker.engines.errors import EngineAway, EngineDied, Incapable, ModelAway, OutOfMemory, Unsupported
from worker.holding.types import Failure, ModelState

MAX_LOADS: Final = 3
"""Loads that fail in a row before a model is broken: a disk or a hub may have been out of reach for a moment."""

BROKEN_AFTER_TRIES: Final = 5
BROKEN_AFTER_S: Final = 600.0
"""A local model that has failed this many times in a row, over at least this many seconds, is broken, so that requests
for it end. A remote one stays away, since its server may come back at any time.
"""

DEATHS_BROKEN: Final = 3
"""A model is broken once this many worker processes in a row have ended while loading it."""

_DEATH_PAUSES_S: Final = (30.0, 600.0, 900.0)
_FIRST_S: Final = {ModelState.BROKEN: 30.0, ModelState.AWAY: 2.0}
_LONGEST_BROKEN_S: Final = 900.0
_MOST_S: Final = 1_800.0
_SHORT_OF: Final = frozenset({errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
_FOLDERS: Final = re.compile(r"(?<![\w.:/])(?:/[^\s/'\":,;()]+)+/(?=[^\s/])")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFault:
    """Why one model cannot be used. It has failed `times` in a row since `since_s`, and is not tried again before
    `until_s`, in the worker's clock.
    """

    state: ModelState
    reason: str
    times: int
    since_s: float
    until_s: float

    @property
    def failure(self) -> Failure:
        """The failure that replies report for images of this model."""
        return Failure.MODEL_BROKEN if self.state is ModelState.BROKEN else Failure.MODEL_AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What went wrong in one attempt. Holds no exception, whose traceback would keep tensors alive."""

    state: ModelState
    reason: str
    kind: str = ""
    text: str = ""
    pause_s: float = 0.0


def trouble_of(error: BaseException) -> Trouble:
    """What a failed load, or a server that is away, says of the model."""
    text = str(error) or type(error).__name__
    away = isinstance(error, ModelAway | EngineAway | EngineDied) or _is_short(error)
    named = text if isinstance(error, ModelAway | EngineAway) or _is_ours(error) else f"{type(error).__name__}: {text}"
    return Trouble(
        state=ModelState.AWAY if away else ModelState.BROKEN,
        reason=one_line(named),
        kind=type(error).__name__,
        text=text[:1_000],
        pause_s=error.pause_s if isinstance(error, EngineAway) else 0.0,
    )


def fault_after(
    before: ModelFault | None,
    trouble: Trouble,
    *,
    now_s: float,
    took_s: float,
    draw: float,
    remote: bool,
    longest_away_s: float,
) -> ModelFault:
    """The model's fault after one more failure, with the time of the next try. After a load that took `took_s` the
    pause is at least twice that, since other models need the GPU. `draw` from 0 to 1 is the jitter of the pause.
    """
    times, since_s = (before.times + 1, before.since_s) if before is not None else (1, now_s)
    state, reason = trouble.state, trouble.reason
    if state is ModelState.BROKEN and times < MAX_LOADS:
        state = ModelState.AWAY
    lasts = times >= BROKEN_AFTER_TRIES and now_s - since_s >= BROKEN_AFTER_S
    if state is ModelState.AWAY and lasts and not remote:
        state = ModelState.BROKEN
    first_s = _FIRST_S[state]
    cap_s = _LONGEST_BROKEN_S if state is ModelState.BROKEN else longest_away_s
    pause_s = first_s / 2 + backoff_s(times - 1, first_s=first_s, cap_s=cap_s, draw=draw)
    pause_s = min(_MOST_S, max(pause_s, 2 * took_s, trouble.pause_s))
    return ModelFault(state=state, reason=reason, times=times, since_s=since_s, until_s=now_s + pause_s)


def fault_of_deaths(deaths: int, now_s: float) -> ModelFault:
    """The fault of a model whose load has ended the worker `deaths` times in a row. Its pause lets the other models
    load first, since this load may end the worker again.
    """
    times = "once" if deaths == 1 else f"{deaths} times in a row"
    return ModelFault(
        state=ModelState.BROKEN if deaths >= DEATHS_BROKEN else ModelState.AWAY,
        reason=f"the worker has ended {times} while it loaded the model",
        times=deaths,
        since_s=now_s,
        until_s=now_s + _DEATH_PAUSES_S[min(deaths, len(_DEATH_PAUSES_S)) - 1],
    )


def one_line(text: str) -> str:
    """A reason that clients may see: one printable line of at most 200 characters, each absolute path cut to its last
    folder and its file.
    """
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    line = _FOLDERS.sub(lambda found: f"{PurePath(found[0]).name}/", line)
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"


def refusal_of(error: Unsupported) -> tuple[Failure, str]:
    """The failure and the reason to report for an image that this worker, or any worker, cannot render."""
    return Failure.REFUSED if isinstance(error, Incapable) else Failure.UNSUPPORTED, str(error)


def is_panic(error: BaseException) -> bool:
    """Whether a library gave up in a way that is no Exception: Rust's panics, and SystemExit on a thread."""
    return isinstance(error, SystemExit) or type(error).__name__ == "PanicException"


def _is_short(error: BaseException | None) -> bool:
    """Whether memory, disk or files ran short, which may be over later."""
    while error is not None:
        if isinstance(error, OutOfMemory | MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno in _SHORT_OF:
            return True
        error = error.__cause__
    return False


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__ == "worker.engines.errors" and str(error) != ""
