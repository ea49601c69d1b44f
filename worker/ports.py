"""What the worker needs from the world, in its own words. Adapters fit structurally; `app.py` joins them.

Every call may raise infra.retry.Retryable or infra.retry.Permanent, and nothing else but cancellation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from worker.engines.contract import Engine, EngineFacts

T = TypeVar("T")
NewId = Callable[[str], str]
"""Mints an id with this prefix."""

Rng = Callable[[], float]
"""Numbers from 0 to 1, for jitter."""


class Received(Protocol):
    """A message as it came from the queue."""

    @property
    def message_id(self) -> str: ...
    @property
    def receipt(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def receive_count(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A message to be sent: sealed bytes and text attributes (trace context)."""

    body: bytes
    attributes: Mapping[str, str]


class JobQueue(Protocol):
    """Where jobs come from. Answers are in the order of the receipts."""

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> Sequence[Received]:
        """Up to `limit` (at most 10) messages, hidden from others for `visibility_s`."""

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> Sequence[bool]:
        """Hide them for that long from now; 0 gives them back. False: the receipt is no longer valid."""

    async def delete(self, receipts: Sequence[str]) -> Sequence[bool]:
        """True: gone."""


class ReplyQueue(Protocol):
    """Where replies and quarantined messages go."""

    async def send(self, messages: Sequence[Reply]) -> Sequence[bool]:
        """True where the queue has accepted."""


class ObjectStore(Protocol):
    """Where pictures go."""

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        """Store; returns once the store has verified the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the worker says of one image it holds."""

    generation_id: str
    index: int
    running: bool
    step: int
    dispatch: int = 0
    """The newest dispatch of it that is held; 0: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """What the worker says of one model that it serves. `state` is a number of types.ModelState, `reason` one line
    that says why it is broken or away.
    """

    facts: EngineFacts
    state: int
    reason: str
    max_batch: int


class ModelFiles(Protocol):
    """Whether the files of a model are there, and have changed."""

    def problem(self, model: str, /) -> str:
        """What is plainly wrong before anything is loaded; empty for nothing. On the GPU thread."""

    def stamp_at_load(self, model: str, /) -> str:
        """The stamp of the files that a load is about to read. On the GPU thread."""

    async def stamp(self, model: str, /) -> str:
        """Changes with them; empty where there is nothing to look at. May take long."""


class NoModelFiles:
    """Models without files."""

    def problem(self, _model: str) -> str:
        """Nothing to look at."""
        return ""

    def stamp_at_load(self, _model: str) -> str:
        """Nothing to look at."""
        return ""

    async def stamp(self, _model: str) -> str:
        """Nothing to look at."""
        return ""


class LoadMarks(Protocol):
    """Remembers across lives of the worker during which model's load one ended."""

    def left(self) -> Mapping[str, int]:
        """Models during whose load the worker ended, and how often in a row."""

    def begin(self, model: str, /) -> None:
        """A load begins. On the GPU thread."""

    def end(self, model: str, /) -> None:
        """It has come to an end, good or bad. On the GPU thread."""


class NoLoadMarks:
    """No memory."""

    def left(self) -> Mapping[str, int]:
        """Nothing is known."""
        return {}

    def begin(self, _model: str) -> None:
        """Not kept."""

    def end(self, _model: str) -> None:
        """Not kept."""


class StillWanted(Protocol):
    """Optional: somebody who knows which images are cancelled or expired, and hears of progress and of models."""

    async def ask(self, worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        """False: drop it. In the order of `held`."""


class Threads(Protocol):
    """One thread or several, outside the event loop."""

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, made on a thread. Cancelling gives up the result, not the work."""


class Recorder(Protocol):
    """Draws a run's timeline: what was done from when to when, in seconds of the worker's clock. Any thread."""

    def __call__(self, lane: str, name: str, began_s: float, ended_s: float) -> None: ...


def record_nothing(lane: str, name: str, began_s: float, ended_s: float) -> None:
    """The recorder of a worker whose timeline nobody draws."""


class Failpoints(Protocol):
    """Named places where tests kill the process."""

    async def reach(self, name: str) -> None: ...
    def reach_now(self, name: str) -> None: ...


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
