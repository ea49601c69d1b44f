"""The public view of a generation, from its projection rows and what workers have reported. Pure."""

from collections.abc import Sequence

from core.domain.events import Prompts
from core.domain.projection import GenerationRow, ImageRow, Rows
from core.domain.state import image_seed
from core.runtime.worker_reports import NO_PROGRESS, LiveProgress
from schema import fast


def view(rows: Rows, prompts: Prompts | None, live: LiveProgress = NO_PROGRESS) -> fast.GenerationView:
    """What the client may see. `prompts` is None for an erased generation; its seeds are not shown either."""
    row = rows.generation
    return fast.GenerationView(
        generation_id=row.id,
        status=row.status,
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
    """The time, raised to that of the step before it; 0 where it is not set. Logs of earlier releases hold times that a
    clock step put out of order. Their rows are not corrected, so that a rebuild gives the same bytes.
    """
    return max(at_ms, earlier_ms) if at_ms else 0


def _shown(prompts: Prompts | None) -> fast.Prompts:
    """The prompts as a message; empty for None."""
    if prompts is None:
        return fast.Prompts()
    return fast.Prompts(prompt=prompts.prompt, negative_prompt=prompts.negative_prompt)


def _spec(row: GenerationRow) -> fast.GenerationSpec:
    return fast.GenerationSpec(
        model=row.model,
        width=row.width,
        height=row.height,
        num_inference_steps=row.num_inference_steps,
        guidance_scale=row.guidance_scale,
        seed=0 if row.erased else row.seed,
        n=row.n,
        output_format=row.output_format,
        scheduler=row.scheduler,
    )


def _image_view(row: GenerationRow, image: ImageRow, steps: Sequence[int]) -> fast.ImageView:
    return fast.ImageView(
        index=image.index,
        status=image.status,
        seed=0 if row.erased else image_seed(row.seed, image.index),
        public_key=image.public_key,
        sha256=image.sha256,
        size_bytes=image.size_bytes,
        failure=image.failure,
        progress_step=steps[image.index] if image.index < len(steps) else 0,
    )
