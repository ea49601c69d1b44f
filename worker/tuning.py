"""What a worker is made of: its ports, and its names, sizes and times."""

from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """How the worker goes about it. The simpler loops are kept as references to measure the real one against."""

    PLAIN = "plain"
    """One image at a time: received, rendered, uploaded, answered, deleted, and only then the next."""
    BATCHED = "batched"
    """A batch at a time, everything of it settled before the next is received."""
    OVERLAPPED = "overlapped"
    """The real one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Names, sizes and times. Each is described in `config.py`."""

    worker_id: str
    jobs_queue: str = "darkroom-jobs"
    replies_queue: str = "darkroom-replies"
    temp_bucket: str = "darkroom-temp"
    visibility_s: int = 60
    drain_s: float = 20.0
    window_images: int = 64
    receive_wait_s: int = 3
    suspect_receives: int = 3
    encoders: int = 2
    uploads: int = 8
    line_images: int = 16
    upload_deadline_s: float = 30.0
    wanted_every_s: float = 1.0
    hang_s: float = 30.0
    reset_s: float = 300.0
    """An engine may be made ready again for so long; one behind HTTP waits two minutes for its server."""
    undeleted: int = 1_024
    """Images that may wait to be answered or deleted, beyond what fills the line, before nothing more is received: ten
    seconds without deletions at a hundred images a second. Every heartbeat extends them, ten to a call, one call after
    the other: within a quarter of the visibility timeout for calls of up to 130 ms.
    """
    load_s: float = 660.0
    """A model may be loaded for so long. An engine in a process of its own gives up a minute before and tries again."""
    models_loaded: int = 1
    longest_away_s: float = 60.0
    preload: bool = True
    mode: Mode = Mode.OVERLAPPED
