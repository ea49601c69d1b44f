"""What travels through the worker: jobs as received, the mutable entry of each in the window, batches, results.

All are frozen except `Held`, whose docstring says who writes which field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from opentelemetry.trace import INVALID_SPAN, Span

from schema import fast
from worker.engines.contract import BatchKey, EncodedPicture, Engine, EngineFacts, Made, Picture, RenderJob

MAX_RECEIPTS = 8
"""Messages of one image that are held together; a later one is left to be redelivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageId:
    """Identifies an image: its generation, and its index in that generation."""

    generation_id: str
    index: int

    def __str__(self) -> str:
        return f"{self.generation_id}/{self.index}"

    def ref(self) -> fast.ImageRef:
        """The same in the schema's form."""
        return fast.ImageRef(generation_id=self.generation_id, index=self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One valid job message.

    `output_format` is a number of schema.pb.OutputFormat; `requested_at_s` is Unix time, 0 when unknown; `trace`
    carries the context of the parent of the image's process span.
    """

    image: ImageId
    dispatch: int
    render: RenderJob
    output_format: int
    priority: int = 0
    solo: bool = False
    requested_at_s: float = 0.0
    trace: Mapping[str, str] = field(default_factory=dict)


class Failure(IntEnum):
    """Why an attempt gave no picture: those of schema's AttemptFailure that workers report."""

    MODEL_ERROR = 1
    OUT_OF_MEMORY = 2
    BAD_OUTPUT = 3
    UNSUPPORTED = 4
    HUNG = 5
    DRAINED = 7
    MODEL_BROKEN = 10
    REFUSED = 12
    MODEL_AWAY = 13


class ModelState(IntEnum):
    """Whether a model can be used here. The numbers are schema's."""

    UNLOADED = 1
    """To be loaded when an image needs it."""
    LOADING = 2
    LOADED = 3
    BROKEN = 4
    """Its files or settings cannot be loaded; tried again later, or when the files change."""
    AWAY = 5
    """Its server does not answer, its process died, or memory is short; tried again later."""


class State(Enum):
    """How far a held job is. Only WAITING ones may be given back to the queue without a reply."""

    WAITING = "waiting"
    STARTED = "started"
    """It is being announced, or is announced and not yet on the GPU."""
    RUNNING = "running"
    """It has been admitted to the GPU."""
    FINISHING = "finishing"
    """It has left the GPU, or does not need it: what is left is to deliver its picture or another answer."""
    SETTLED = "settled"
    """Its reply was accepted, or none is needed: what is left is to delete its message."""
    GONE = "gone"
    """It is no longer held."""


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """A job in the window, from receipt to deletion. `receipts`: message id to receipt, of all copies; `newer`: ids of
    the messages of a newer dispatch than the one in progress, which a picture answers and a failure does not.

    `existed_s`: when the image was requested, in the worker's clock, as far as the two machines' clocks agree.

    All is written on the event loop: `step`, `gpu_s`, `wait_s`, `wait_reason` and `span` by the render record,
    everything else by the window. The GPU thread reads `unwanted`, `received_s` and `order`, and `job`, which does not
    change once the image has started.
    """

    job: Job
    key: BatchKey
    receipts: dict[str, str]
    received_s: float
    existed_s: float
    order: int
    state: State = State.WAITING
    attempt_id: str = ""
    step: int = 0
    unwanted: bool = False
    newer: set[str] = field(default_factory=set)
    gpu_s: float = 0.0
    wait_s: float = 0.0
    wait_reason: str = ""
    span: Span = INVALID_SPAN

    @property
    def id(self) -> str:
        """The job's id within this worker."""
        return self.job.render.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images that go through the model together; `solo`: one image, with no other in progress on the worker."""

    id: str
    engine: Engine = field(repr=False)
    key: BatchKey
    members: tuple[Held, ...]
    solo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a picture was made, for its reply. Times in seconds."""

    facts: EngineFacts
    width: int
    height: int
    scheduler: str
    made: Made
    batch_id: str
    batch_members: tuple[ImageId, ...]
    batch_gpu_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A decoded picture that has left the GPU."""

    held: Held
    origin: Origin
    picture: Picture | EncodedPicture = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A picture as a file."""

    held: Held
    origin: Origin
    data: bytes = field(repr=False)
    sha256: bytes
    content_type: str
    encode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A picture in the temporary bucket under `key`. Holds none of its bytes, since its reply may have to wait long."""

    held: Held
    origin: Origin
    key: str
    sha256: bytes
    size_bytes: int
    encode_s: float
    upload_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An image whose message may be deleted. `began_s`: when sending its reply began; `error` is empty
    for a picture.
    """

    held: Held
    began_s: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An attempt that gave no picture. `detail` contains no prompt; the reply carries its first 200 characters."""

    held: Held
    failure: Failure
    detail: str
