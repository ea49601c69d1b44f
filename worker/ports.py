"""What the worker needs from outside, as protocols that the worker owns. Adapters fit them structurally; `app.py`
joins the two.

Every call may raise infra.retry.Retryable or infra.retry.Permanent, and nothing else but cancellation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from worker.engines.contract import Engine, EngineFacts

T = TypeVar("T")
RECEIVE_LIMIT = 10
"""Most messages of one receive, which is the limit of SQS."""

NewId = Callable[[str], str]
"""Mints an id with this prefix."""

Rng = Callable[[], float]
"""Draws a number from 0 to 1, for jitter."""


class Received(Protocol):
    """A message as the queue delivered it."""

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
    """The jobs queue. Answers are in the order of the receipts."""

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> Sequence[Received]:
        """Up to `limit` (at most RECEIVE_LIMIT) messages, hidden from others for `visibility_s`."""

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> Sequence[bool]:
        """Hide the messages for that long from now; 0 makes them visible. False: the receipt is no longer valid."""

    async def delete(self, receipts: Sequence[str]) -> Sequence[bool]:
        """True: the message is deleted, or was before."""


class ReplyQueue(Protocol):
    """A queue that the worker only sends to: for replies, or for quarantined messages."""

    async def send(self, messages: Sequence[Reply]) -> Sequence[bool]:
        """True for each message that the queue has accepted."""


class TempStore(Protocol):
    """The temporary bucket."""

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        """Returns once the store has verified the digest of what it has stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the worker reports of one image that it holds."""

    generation_id: str
    index: int
    running: bool
    step: int
    dispatch: int = 0
    """The newest dispatch of the image that is held; 0: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """What the worker reports of one model that it serves. `state` is a number of types.ModelState, `reason` one line
    that says why the model is broken or away.
    """

    facts: EngineFacts
    state: int
    reason: str
    max_batch: int


class ModelFiles(Protocol):
    """Whether a model's files are complete, and whether they have changed."""

    def problem(self, model: str, /) -> str:
        """What is wrong with the files, found without loading them; empty for nothing. On the GPU thread."""

    def stamp_at_load(self, model: str, /) -> str:
        """The stamp of the files that are about to be loaded. On the GPU thread."""

    async def stamp(self, model: str, /) -> str:
        """A text that changes when the files do; empty for a model without files. May take long."""


class NoModelFiles:
    """Models without files."""

    def problem(self, _model: str) -> str:
        """Empty: no files."""
        return ""

    def stamp_at_load(self, _model: str) -> str:
        """Empty: no files."""
        return ""

    async def stamp(self, _model: str) -> str:
        """Empty: no files."""
        return ""


class LoadMarks(Protocol):
    """Remembers across restarts which model was being loaded when the worker's process ended."""

    def left(self) -> Mapping[str, int]:
        """Models during whose load the process ended, and how often in a row."""

    def begin(self, model: str, /) -> None:
        """A load begins. On the GPU thread."""

    def end(self, model: str, /) -> None:
        """The load has ended, in success or failure. On the GPU thread."""


class NoLoadMarks:
    """Remembers nothing."""

    def left(self) -> Mapping[str, int]:
        """Empty."""
        return {}

    def begin(self, _model: str) -> None:
        """Does nothing."""

    def end(self, _model: str) -> None:
        """Does nothing."""


class StillWanted(Protocol):
    """Asks core which images are still wanted, that is, neither cancelled nor expired. The call also reports their
    progress and the states of the models.
    """

    async def ask(self, worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        """One answer for each of `held`, in its order. False: the image is to be dropped."""


class Threads(Protocol):
    """One thread or several, outside the event loop."""

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, run on a thread. Cancelling abandons the result; the work runs on."""


class Recorder(Protocol):
    """Records a timeline: what was done from when to when, in seconds of the worker's clock. Any thread."""

    def __call__(self, lane: str, name: str, began_s: float, ended_s: float) -> None: ...


def record_nothing(lane: str, name: str, began_s: float, ended_s: float) -> None:
    """The recorder of a worker without a timeline."""


class Failpoints(Protocol):
    """Named places where tests kill the process."""

    async def reach(self, name: str) -> None: ...
    def reach_now(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The worker's adapters. `quarantine` sends to the dead-letter queue; without `still_wanted` the worker renders
    whatever it receives. `clock` is the event loop's time in seconds and may be read from any thread; `wall_ms` is Unix
    time in milliseconds, used only for the age of a job.
    """

    jobs: JobQueue
    replies: ReplyQueue
    quarantine: ReplyQueue
    temp: TempStore
    still_wanted: StillWanted | None
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
