"""What the worker asks of anything that turns prompts into pictures: a small step-level contract.

One engine serves one model. `load`, `admit`, `step`, `decode`, `park`, `unpark`, `reset` and `unload` are
called on the GPU thread only, never two at a time; `key` and `evict` from any thread at any time. The worker
checks every picture's size itself. Engines know nothing of queues, stores or users.

The order of one batch: ``admit(jobs)``, then ``step`` until every job has come back as finished or evicted,
``decode`` for each finished one. After any exception out of `admit`, `step` or `decode` (BadOutput excepted)
the worker calls `reset`, which forgets all members and frees what they held.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

BatchKey = tuple[str | int | float, ...]
"""What images must share to go through one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderJob:
    """One picture to make. `id` is "{generation}/{index}", unique within the worker."""

    id: str
    model: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    scheduler: str = ""
    prompt: str = field(repr=False)
    negative_prompt: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do beside rendering a batch from its first step to its last.

    `join_midway`: `admit` may be called while members run. `evict_one`: `evict` frees the slot within one step
    (otherwise only when every member is evicted). `park`: members can stand aside and come back.
    """

    join_midway: bool = False
    evict_one: bool = False
    park: bool = False
    max_batch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What explains and replays a picture; known after `load`."""

    engine: str
    model: str
    model_revision: str = ""
    dtype: str = ""
    device: str = ""
    libraries: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One denoising step is done. Steps done of each running job, by id."""

    steps: dict[str, int]


Report = Callable[[Progress], None]
"""Called on the GPU thread after each denoising step; must return at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A job whose denoising is finished. `result` is the engine's own: latents, pixels or an encoded file."""

    job_id: str
    result: object = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What one `step` brought: jobs that are finished, and jobs that left because they were evicted."""

    finished: Sequence[Done] = ()
    evicted: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """8-bit RGB, rows from the top, without padding: width * height * 3 bytes. `scheduler` is the one used."""

    width: int
    height: int
    rgb: bytes = field(repr=False)
    scheduler: str = ""


class Engine(Protocol):
    """See the module's text for threads and order."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; known before `load`."""

    @property
    def facts(self) -> EngineFacts:
        """What it is."""

    @property
    def loaded(self) -> bool:
        """Whether `admit` may be called."""

    def key(self, job: RenderJob) -> BatchKey:
        """The batch key; needs no loaded model. Raises errors.Unsupported."""

    def load(self) -> None:
        """Make ready for `admit`. Raises errors.LoadFailed."""

    def unload(self) -> None:
        """Free everything that `load` took."""

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """Let jobs of one key in. Raises errors.OutOfMemory, errors.EngineLost, or anything for a model's error."""

    def step(self, report: Report) -> Stepped:
        """Go on: by one denoising step at least, to the end at most. Raises like `admit`."""

    def evict(self, job_id: str) -> None:
        """The job's picture is not wanted any more. Any thread; unknown ids are ignored."""

    def park(self, job_id: str) -> None:
        """Set a member aside, its latents kept. Only with `capabilities.park`."""

    def unpark(self, job_id: str) -> None:
        """Let a parked member go on."""

    def decode(self, done: Done) -> Picture:
        """The pixels of a finished job. Raises errors.BadOutput for this job alone."""

    def reset(self) -> None:
        """Forget all members. Raises errors.EngineLost when nothing can be rendered any more."""
