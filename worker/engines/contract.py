"""What the worker asks of anything that turns prompts into pictures: a small step-level contract.

One engine serves one model. `load`, `admit`, `step`, `decode`, `park`, `unpark`, `reset` and `unload` are
called on the GPU thread only, never two at a time; `key` and `evict` from any thread at any time. The worker
checks every picture's size itself. Engines know nothing of queues, stores or users.

A job passes through `admit`, then `step` until it is reported as finished or evicted, then `decode`. With
`join_midway` more jobs may be admitted between any two steps; with `park` a member can skip steps. While other members
run, finished jobs are decoded between two steps, a few at a time. An engine with a second stream starts the decoding
at the end of `step` and reports `ahead`: while other members run, a job is then decoded one step after the one that
finished it, so that the device computes that step while `decode` waits for the rest of the decoding. A finished job
that is no longer wanted is never decoded.

After an exception out of `admit`, `step`, `park`, `unpark` or `decode` the worker calls `reset`, which forgets all
members and frees what they held; after EngineDied it also starts the engine's process again. `reset` is not called
after EngineAway and EngineLost, nor after BadOutput, Refused and NotNow out of `decode`, which concern that job alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

BatchKey = tuple[str | int | float, ...]
"""What images must share to go through one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderJob:
    """One picture to make. `id` is "{generation}/{index}", unique within the worker. Sides are in pixels; an empty
    `scheduler` means the model's own.
    """

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
    (otherwise only when every member is evicted). `park`: members can skip steps and resume. `restartable`: the model
    lives in a process of its own, which `kill` ends and `reset` starts again. `remote`: the model is on another server,
    which may go away and come back at any time. `max_batch`: the most images that share a step.
    """

    join_midway: bool = False
    evict_one: bool = False
    park: bool = False
    restartable: bool = False
    remote: bool = False
    max_batch: int = 1

    @property
    def apart(self) -> bool:
        """Whether the model lives outside this process, so that its failure cannot take other models down."""
        return self.restartable or self.remote


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAbilities:
    """What a request may ask of the model. `guidance`: "cfg", "true", "embedded" or "none"; empty: not known yet, as
    before `load`. At or below `guidance_off` there is no guidance. `schedulers`: names that a request may give. Sides
    are in pixels; one that is no multiple of `size_factor` is rendered larger and cut. Numbers are 0 when not known.
    """

    negative_prompt: bool = False
    guidance: str = ""
    guidance_off: float = 0.0
    size_factor: int = 0
    schedulers: tuple[str, ...] = ()
    min_width: int = 0
    max_width: int = 0
    min_height: int = 0
    max_height: int = 0
    min_steps: int = 0
    max_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What explains and replays a picture, and what the model can do; known after `load`."""

    engine: str
    model: str
    model_revision: str = ""
    dtype: str = ""
    device: str = ""
    libraries: str = ""
    abilities: ModelAbilities = ModelAbilities()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The number of steps done by each running job, by id. An empty one is a sign of life within a step."""

    steps: dict[str, int]


Report = Callable[[Progress], None]
"""Called on the GPU thread after each denoising step; must return at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A job whose denoising is finished. `result` is the engine's own: latents, pixels or an encoded file."""

    job_id: str
    result: object = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """What one step of a batch of `size` took."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """The outcome of one `step`: the jobs that finished, and the jobs that left because they were evicted.

    `fits`: how many images of this batch key fit at once by measured memory; None while that is not known. `ahead`:
    the device may still be computing the step, and decodes the pictures of `finished` beside the next one; the call
    waits for the step only when no member is left for another. `timed`: with `ahead`, the newest completed step by the
    device's own clock, since the duration of the call says nothing about it.
    """

    finished: Sequence[Done] = ()
    evicted: Sequence[str] = ()
    fits: int | None = None
    ahead: bool = False
    timed: StepTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the engine did, where that may differ from the request. `guidance` is a kind as in ModelAbilities, empty if
    the engine does not say. `guidance_scale` is the value that took effect, 0 if none did; `negative_prompt`: whether
    one took effect. `width` and `height` are pixels before the cut to the requested size, 0 if not known.
    """

    guidance: str = ""
    guidance_scale: float = 0.0
    negative_prompt: bool = False
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """8-bit RGB, rows from the top, without padding: width * height * 3 bytes. `scheduler` is the one used."""

    width: int
    height: int
    rgb: bytes = field(repr=False)
    scheduler: str = ""
    made: Made = Made()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPicture:
    """A picture from a server that encodes by itself. `media_type` is image/png, image/webp or image/jpeg."""

    width: int
    height: int
    data: bytes = field(repr=False)
    media_type: str
    scheduler: str = ""
    made: Made = Made()


class Engine(Protocol):
    """The step-level contract; threads and call order are in the module docstring."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; known before `load`."""

    @property
    def facts(self) -> EngineFacts:
        """Which engine and model this is; complete after `load`."""

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
        """Admit jobs of one batch key; with `join_midway` also while members of that key run.

        Raises errors.OutOfMemory, errors.EngineLost, errors.EngineDied, errors.EngineAway, errors.Unsupported, or
        whatever the model raises.
        """

    def step(self, report: Report) -> Stepped:
        """Advance the unparked members: with `join_midway` by exactly one denoising step each, otherwise by one step up
        to the whole job. Raises like `admit`.
        """

    def evict(self, job_id: str) -> None:
        """Drop a job whose picture is no longer wanted. Any thread; unknown ids are ignored."""

    def park(self, job_id: str) -> None:
        """Set a member aside, its latents kept. Only with `capabilities.park`."""

    def unpark(self, job_id: str) -> None:
        """Let a parked member go on."""

    def decode(self, done: Done) -> Picture | EncodedPicture:
        """The picture of a finished job. Raises errors.BadOutput, errors.Refused or errors.NotNow for this job alone,
        otherwise like `admit`.
        """

    def reset(self) -> None:
        """Forget all members. Raises errors.EngineLost when the device can render nothing any more, errors.LoadFailed
        when the engine's process cannot be started again.
        """

    def kill(self) -> None:
        """End the engine's process at once, so that a call that hangs in it raises EngineDied. Any thread; only with
        `capabilities.restartable`.
        """
