"""The projection: the rows of a generation, computed from its state. Pure.

The log stores them; `core.api.views` shows them to clients. Open generations are projected from memory and ended ones
read from the database, so both are shown by the same code, and a rebuild from the log can be compared byte for byte.
"""

from dataclasses import dataclass

from core.domain.state import Ending, Generation, Image, Phase
from schema import pb


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
    """The public status. It never goes back: queued, running from the first start on, then the ending."""
    if state.ending in _ENDED:
        return _ENDED[state.ending]
    return pb.GenerationStatus.RUNNING if state.started_at_ms else pb.GenerationStatus.QUEUED


def project(state: Generation) -> Rows:
    """The rows of this state in the database."""
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
    """For an erased generation the row keeps status, dispatches and failure, and nothing about a picture."""
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
