"""Core's names, sizes and times, independent of how they are configured. `config.tuning` derives them from settings."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.erasure.object_deletions import LOOKS_S
from core.erasure.retention import Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Names, sizes and times. Each is described in `config.py`."""

    jobs_queue: str
    replies_queue: str
    visibility_s: float
    backlog_cap: int = 10_000
    backlog_images: int = 0
    runway: int = 0
    recheck_cap_s: float = 900.0
    overtaking_s: float = 30.0
    reply_consumers: int = 2
    reply_wait_s: int = 20
    reply_visibility_s: int = 10
    dead_letters_s: float = 15.0
    publishers: int = 16
    max_waiters: int = 10_000
    keep: Keep = Keep()  # noqa: RUF009  (immutable)
    erasure_looks_s: Sequence[float] = LOOKS_S
