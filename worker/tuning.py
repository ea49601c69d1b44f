"""The worker's names, sizes and times, independent of their source. `app` fills them from the settings."""

from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """Which GPU loop runs. The simpler two are references to compare the overlapped one with."""

    PLAIN = "plain"
    """One image at a time is received, rendered, uploaded, answered and deleted."""
    BATCHED = "batched"
    """One batch at a time: all of it is settled before the next is received."""
    OVERLAPPED = "overlapped"
    """Receiving, encoding, uploading and answering overlap with rendering. The default."""


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
    """How long a reset of an engine may take; one behind HTTP waits two minutes for its server."""
    undeleted: int = 1_024
    """Images that may wait to be answered or deleted, beyond what fills the delivery pipeline, before receiving stops:
    ten seconds without deletions at a hundred images a second. Every heartbeat extends them, ten to a call, one call
    after the other: within a quarter of the visibility timeout for calls of up to 130 ms.
    """
    load_s: float = 660.0
    """How long a load may take. An engine in a process of its own gives up a minute earlier and tries again."""
    models_loaded: int = 1
    longest_away_s: float = 60.0
    preload: bool = True
    mode: Mode = Mode.OVERLAPPED
