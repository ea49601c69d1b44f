"""What a worker is made of: its ports, and its names, sizes and times."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from worker.engines.contract import Engine
from worker.ports import (
    Failpoints,
    JobQueue,
    LoadMarks,
    ModelFiles,
    NewId,
    NoLoadMarks,
    NoModelFiles,
    ObjectStore,
    Recorder,
    ReplyQueue,
    Rng,
    StillWanted,
    Threads,
    record_nothing,
)
from worker.types import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything outside the worker. `clock` is the loop's time and may be read from threads; `wall_ms` is Unix time
    and only tells how long ago a job was requested.
    """

    jobs: JobQueue
    replies: ReplyQueue
    dead: ReplyQueue
    store: ObjectStore
    wanted: StillWanted | None
    engines: Mapping[str, Engine]
    gpu_thread: Threads
    encode_threads: Threads
    failpoints: Failpoints
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    new_id: NewId
    rng: Rng
    recorder: Recorder = record_nothing
    model_files: ModelFiles = field(default_factory=NoModelFiles)
    load_marks: LoadMarks = field(default_factory=NoLoadMarks)


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
