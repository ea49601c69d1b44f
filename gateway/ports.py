"""What the gateway needs of other processes, as Protocols. `app.py` supplies the adapters, tests supply fakes.

Views, items and results are the messages of `schema/fast.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schema import fast


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list, newest first, perhaps shorter than asked for. An empty cursor: no more."""

    generations: Sequence[fast.GenerationView]
    next_cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOutcome:
    """The result of a cancel: whether the generation is cancelled now, and its current state."""

    cancelled: bool
    generation: fast.GenerationView


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseOutcome:
    """The result of an erasure: whether the generation is erased now, and its current state."""

    erased: bool
    generation: fast.GenerationView


class Core(Protocol):
    """Core, which owns the generations. Calls raise Unavailable or Broken, and NotFound for a foreign or unknown id."""

    async def submit(self, item: fast.SubmitItem) -> fast.SubmitResult:
        """Core's decision; an accepted item is durable when this returns. Repeating an item is harmless."""

    async def get(self, tenant: str, generation_id: str, *, wait_s: float = 0.0) -> fast.GenerationView:
        """The generation. With `wait_s` seconds, core answers once it has ended or the time is over.

        The answer may come earlier: core stops, or the wait is displaced for another tenant.
        """

    async def page(self, tenant: str, *, size: int, cursor: str, status: int) -> Page:
        """A page of the tenant's generations. Raises InvalidFields for an invalid cursor."""

    async def cancel(self, tenant: str, generation_id: str) -> CancelOutcome:
        """Cancels, unless every image is decided."""

    async def models(self) -> fast.ModelsReply:
        """What the workers have reported of their models recently."""

    async def erase(self, tenant: str, generation_id: str) -> EraseOutcome:
        """Erases what has ended; repeating it is harmless. After Unavailable it may have happened or still happen."""


class Piece(Protocol):
    """Some bytes of a picture of `total_bytes`. `tag` changes with the stored content.

    `sha256` is the whole picture's, as stored with it; None if it was stored without one.
    """

    @property
    def data(self) -> bytes: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def tag(self) -> str: ...
    @property
    def sha256(self) -> bytes | None: ...


class PictureStore(Protocol):
    """Where the published pictures are. Calls raise infra.retry.Retryable and Permanent."""

    async def read(self, key: str, *, first: int, last: int, tag: str = "") -> Piece | None:
        """Bytes `first` to `last`, both included; None where there is no such picture.

        With `tag`, of an earlier piece, only from the same content: Retryable if it has changed.
        """

    async def link(self, key: str, *, expires_s: int) -> str:
        """A fresh signed link to `key` at the store, for clients that can reach it."""


class Failpoints(Protocol):
    """Named places in the code where a test lets this process kill itself."""

    async def reach(self, name: str) -> None:
        """Reports that the process has arrived at the place `name`."""


class ModelEntry(Protocol):
    """A model of the models file: the defaults and bounds of its requests."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def api(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def min_width(self) -> int: ...
    @property
    def max_width(self) -> int: ...
    @property
    def min_height(self) -> int: ...
    @property
    def max_height(self) -> int: ...
    @property
    def min_num_inference_steps(self) -> int: ...
    @property
    def max_num_inference_steps(self) -> int: ...
    @property
    def min_guidance_scale(self) -> float: ...
    @property
    def max_guidance_scale(self) -> float: ...
