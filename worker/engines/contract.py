"""What the worker asks of anything that turns prompts into pictures: a small step-level contract.

One engine serves one model. `load`, `admit`, `step`, `decode`, `park`, `unpark`, `reset` and `unload` are
called on the GPU thread only, never two at a time; `key` and `evict` from any thread at any time. The worker
checks every picture's size itself. Engines know nothing of queues, stores or users.

The order of one job: `admit`, then `step` until it comes back as finished or evicted, then `decode`. With
`join_midway` others may be admitted between any two steps; with `park` a member may stand aside meanwhile. While
others go on, finished jobs are decoded one between two steps. An engine with a second stream begins the decoding at
the end of `step` and says that it is `ahead`: then, while others go on, jobs are decoded after the step that follows
the one they finished with, so that the device is at that step while `decode` waits for what is left of theirs. A
finished job that is no longer wanted is never decoded.

After any exception out of `admit`, `step`, `park`, `unpark` or `decode` (BadOutput excepted) the worker calls `reset`,
which forgets all members and frees what they held; after EngineDied it also makes the engine ready again.
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
    (otherwise only when every member is evicted). `park`: members can stand aside and come back. `restartable`: the
    model lives in a process of its own, which `kill` ends and `reset` starts again. `remote`: it is on another server,
    which may go away and come back at any time.
    """

    join_midway: bool = False
    evict_one: bool = False
    park: bool = False
    restartable: bool = False
    remote: bool = False
    max_batch: int = 1

    @property
    def apart(self) -> bool:
        """Whether nothing that happens to the model can make this process useless to others."""
        return self.restartable or self.remote


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAbilities:
    """What a request may ask of the model. `guidance`: "cfg", "true", "embedded" or "none"; empty: nothing is known
    yet, as before `load`. At or below `guidance_off` there is no guidance. `schedulers`: names that a request may
    give. Sides that are no multiple of `size_factor` pixels are rendered larger and cut. 0: not known.
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
class StepTime:
    """What one step of a batch of `size` took."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What one `step` brought: jobs that are finished, and jobs that left because they were evicted.

    `fits`: how many images of this batch key measured memory allows at once; None while that is not known. `ahead`:
    the device may still be at the step, and decodes the pictures of `finished` beside the next one; only when no
    member is left for another step has the call waited for this one. `timed`: with `ahead`, the newest step that is
    over, by the device's own clock, since the length of the call says nothing about it.
    """

    finished: Sequence[Done] = ()
    evicted: Sequence[str] = ()
    fits: int | None = None
    ahead: bool = False
    timed: StepTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was done, where it may differ from what was asked for. `guidance` is a kind as in ModelAbilities, empty if
    the engine does not say. `guidance_scale` is the value that took effect, 0 if none did; `negative_prompt`: whether
    one took effect. `width` and `height` are pixels before the cut to the asked size, 0 if not known.
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
        """Let jobs of one key in; with `join_midway` beside those of that key that run.

        Raises errors.OutOfMemory, errors.EngineLost, errors.EngineDied, or anything for a model's error.
        """

    def step(self, report: Report) -> Stepped:
        """Go on: by exactly one denoising step of every unparked member with `join_midway`, else by one at least, to
        the end at most. Raises like `admit`.
        """

    def evict(self, job_id: str) -> None:
        """The job's picture is not wanted any more. Any thread; unknown ids are ignored."""

    def park(self, job_id: str) -> None:
        """Set a member aside, its latents kept. Only with `capabilities.park`."""

    def unpark(self, job_id: str) -> None:
        """Let a parked member go on."""

    def decode(self, done: Done) -> Picture | EncodedPicture:
        """The picture of a finished job. Raises errors.BadOutput for this job alone, else like `admit`."""

    def reset(self) -> None:
        """Forget all members. Raises errors.EngineLost when nothing can be rendered any more, LoadFailed when the
        engine's process cannot be started again.
        """

    def kill(self) -> None:
        """End the engine's process at once, so that a call that hangs in it raises EngineDied. Any thread; only with
        `capabilities.restartable`.
        """
