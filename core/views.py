"""What the log looks like from outside: projection rows from a state, and the client's view from rows.

The rows are what the projection stores, so that open generations (in memory) and ended ones
(from the database) are shown by the same code, and a rebuild from the log can be compared byte
for byte. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.events import Prompts
from core.state import Ending, Generation, Image, Phase
from schema import fast, limits, pb


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRow:
    """One row of the table `generations`. Statuses are numbers of `pb.GenerationStatus`."""

    id: str
    tenant: str
    status: int
    version: int
    model: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    n: int
    output_format: int
    scheduler: str
    priority: int
    ttl_s: int
    requested_at_ms: int
    started_at_ms: int
    finished_at_ms: int
    detail: str
    erased: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One row of the table `images`. Statuses are numbers of `pb.ImageStatus`, failures of `pb.AttemptFailure`."""

    generation_id: str
    index: int
    status: int
    dispatches: int
    attempt_id: str
    public_key: str
    sha256: bytes
    size_bytes: int
    failure: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The projection of one generation."""

    generation: GenerationRow
    images: tuple[ImageRow, ...]


_ENDED = {
    Ending.SUCCEEDED: pb.GenerationStatus.SUCCEEDED,
    Ending.FAILED: pb.GenerationStatus.FAILED,
    Ending.CANCELLED: pb.GenerationStatus.CANCELLED,
    Ending.EXPIRED: pb.GenerationStatus.EXPIRED,
}


def status_of(state: Generation) -> int:
    """The public status. It never goes back: queued, then running from the first start on, then how it ended."""
    if state.ending in _ENDED:
        return _ENDED[state.ending]
    return pb.GenerationStatus.RUNNING if state.started_at_ms else pb.GenerationStatus.QUEUED


def project(state: Generation) -> Rows:
    """The rows that stand for this state in the database."""
    spec = state.spec
    generation = GenerationRow(
        id=state.id,
        tenant=state.tenant,
        status=int(status_of(state)),
        version=state.version,
        model=spec.model,
        width=spec.width,
        height=spec.height,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        seed=spec.seed,
        n=spec.n,
        output_format=spec.output_format,
        scheduler=spec.scheduler,
        priority=state.priority,
        ttl_s=state.ttl_s,
        requested_at_ms=state.requested_at_ms,
        started_at_ms=state.started_at_ms,
        finished_at_ms=state.finished_at_ms,
        detail="" if state.erased else state.detail,
        erased=int(state.erased),
    )
    return Rows(generation=generation, images=tuple(_image_row(state, image) for image in state.images))


def _image_row(state: Generation, image: Image) -> ImageRow:
    """Of an erased generation the row keeps what happened, and nothing that leads to a picture or describes it."""
    published = image.phase is Phase.PUBLISHED and image.rendered is not None and not state.erased
    return ImageRow(
        generation_id=state.id,
        index=image.index,
        status=int(_image_status(state, image)),
        dispatches=image.dispatches,
        attempt_id="" if state.erased else image.attempt_id,
        public_key="" if state.erased else image.public_key,
        sha256=image.rendered.sha256 if published and image.rendered else b"",
        size_bytes=image.rendered.size_bytes if published and image.rendered else 0,
        failure=int(image.failure),
    )


def _image_status(state: Generation, image: Image) -> int:
    if image.phase is Phase.PUBLISHED:
        return pb.ImageStatus.ERASED if state.erased else pb.ImageStatus.PUBLISHED
    if image.phase is Phase.FAILED:
        return pb.ImageStatus.FAILED
    if not state.open:
        return pb.ImageStatus.DROPPED
    return pb.ImageStatus.RUNNING if image.ever_started else pb.ImageStatus.QUEUED


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What only a running core knows of an open generation; lossy, kept in memory."""

    backlog_position: int = 0
    steps: tuple[int, ...] = ()
    revision: int = 0


NOTHING_LIVE = Live()


def view(rows: Rows, prompts: Prompts | None, live: Live = NOTHING_LIVE) -> pb.GenerationView:
    """What the client may see. `prompts` None: erased, or not asked for."""
    row = rows.generation
    return fast.GenerationView(
        generation_id=row.id,
        status=pb.GenerationStatus(row.status),
        version=row.version,
        spec=_spec(row),
        prompts=_shown(prompts),
        priority=row.priority,
        ttl_s=row.ttl_s,
        requested_at_ms=row.requested_at_ms,
        started_at_ms=_not_before(row.started_at_ms, row.requested_at_ms),
        finished_at_ms=_not_before(row.finished_at_ms, max(row.requested_at_ms, row.started_at_ms)),
        images=[_image_view(row, image, live.steps) for image in rows.images],
        backlog_position=live.backlog_position,
        erased=bool(row.erased),
        failure_detail=row.detail,
        progress_revision=live.revision,
    )


def _not_before(at_ms: int, earlier_ms: int) -> int:
    """A time that is set and later than the step before it. Logs of earlier releases hold times that a clock step
    turned around; their rows stay as they are, so that a rebuild gives the same bytes.
    """
    return max(at_ms, earlier_ms) if at_ms else 0


def _shown(prompts: Prompts | None) -> pb.Prompts:
    """The words as a message."""
    if prompts is None:
        return fast.Prompts()
    return fast.Prompts(prompt=prompts.prompt, negative_prompt=prompts.negative_prompt)


def _spec(row: GenerationRow) -> pb.GenerationSpec:
    return fast.GenerationSpec(
        model=row.model,
        width=row.width,
        height=row.height,
        num_inference_steps=row.num_inference_steps,
        guidance_scale=row.guidance_scale,
        seed=0 if row.erased else row.seed,
        n=row.n,
        output_format=pb.OutputFormat(row.output_format),
        scheduler=row.scheduler,
    )


def _image_view(row: GenerationRow, image: ImageRow, steps: Sequence[int]) -> pb.ImageView:
    return fast.ImageView(
        index=image.index,
        status=pb.ImageStatus(image.status),
        seed=0 if row.erased else image_seed(row.seed, image.index),
        public_key=image.public_key,
        sha256=image.sha256,
        size_bytes=image.size_bytes,
        failure=pb.AttemptFailure(image.failure),
        progress_step=steps[image.index] if image.index < len(steps) else 0,
    )


def image_seed(seed: int, index: int) -> int:
    """The seed of one image: (seed + index) mod 2^32."""
    return (seed + index) % limits.SEED_MODULUS
