"""Core's view of a generation as the body and the ETag that a client gets. Pure.

This is on the hot path, so it builds plain dictionaries; `bodies/responses.py` describes them.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from gateway.pictures.signing import Urls
from schema import fast, pb

Json = dict[str, Any]

STATUSES = ("unknown", "queued", "running", "succeeded", "failed", "cancelled", "expired")
"""The public names of pb.GenerationStatus, by number."""
FORMATS = ("unknown", "png", "webp", "jpeg")
_IMAGE_STATUSES = ("unknown", "queued", "running", "published", "failed", "dropped", "erased")
_QUEUED = int(pb.GenerationStatus.QUEUED)
_FAILED = int(pb.GenerationStatus.FAILED)
_WITHOUT_IMAGES = (int(pb.GenerationStatus.CANCELLED), int(pb.GenerationStatus.EXPIRED))
_IMAGE_RUNNING = int(pb.ImageStatus.RUNNING)
_IMAGE_PUBLISHED = int(pb.ImageStatus.PUBLISHED)
_IMAGE_FAILED = int(pb.ImageStatus.FAILED)
_IMAGE_ERASED = int(pb.ImageStatus.ERASED)
_FAILURES = (
    ("unknown", "The image could not be made."),
    ("model_error", "The model failed on this image."),
    ("out_of_memory", "The image does not fit into the GPU's memory."),
    ("bad_output", "The model gave no usable picture."),
    ("unsupported", "No worker can make this image."),
    ("hung", "The model made no progress."),
    ("object_lost", "The finished picture was lost in storage."),
    ("drained", "The worker stopped before the picture was finished."),
    ("worker_lost", "Workers that started the image stopped reporting."),
    ("dead_lettered", "The queue dead-lettered the image before a worker started it; it is sent again."),
    ("model_broken", "The model cannot be loaded."),
    ("unknown", "The image could not be made."),  # 11 is reserved in AttemptFailure
    ("refused", "The model, or the server that runs it, refuses this image."),
    ("model_away", "The model cannot be used for now; the image is sent again."),
)
"""Code and message of each pb.AttemptFailure, by number."""
_WITH_REASON = frozenset({int(pb.AttemptFailure.MODEL_BROKEN), int(pb.AttemptFailure.REFUSED)})
"""Failures whose reason is shown to clients: the worker wrote it, for clients, about a model or model server."""


def etag(view: fast.GenerationView, signed: Urls) -> str:
    """A strong ETag: two bodies of the same URL with the same tag are the same bytes. `signed` as for the body.

    Steps and the backlog position change without an event. The tag holds the steps themselves, not core's count of
    their changes, which starts again with each core process.
    """
    tag = f"{view.version}.{_steps_done(view)}.{view.backlog_position}"
    if not without_images(view) and any(image.status == _IMAGE_PUBLISHED for image in view.images):
        tag += f".{signed.mark}"
    return f'"{tag}"'


def status_name(view: fast.GenerationView) -> str:
    """The public name of the generation's status."""
    return _name(STATUSES, view.status)


def has_ended(view: fast.GenerationView) -> bool:
    """Whether the generation is in a terminal state, which only erasure can follow."""
    return view.status > pb.GenerationStatus.RUNNING


def without_images(view: fast.GenerationView) -> bool:
    """Whether the generation has no images to fetch, even if some were published before."""
    return view.erased or view.status in _WITHOUT_IMAGES


def body(view: fast.GenerationView, base_url: str, signed: Urls) -> Json:
    """The JSON body of a generation. `base_url` goes before its links, empty: links are paths; `signed` signs URLs.

    For an erased generation it shows what core still has: no prompts, seeds, links, digests or sizes.
    """
    spec, prompts, status = view.spec, view.prompts, view.status
    here = f"{base_url}/v1/generations/{view.generation_id}"
    link = None if without_images(view) else here
    return {
        "id": view.generation_id,
        "object": "generation",
        "status": _name(STATUSES, status),
        "version": view.version,
        "model": spec.model,
        "prompt": prompts.prompt,
        "negative_prompt": prompts.negative_prompt,
        "width": spec.width,
        "height": spec.height,
        "num_inference_steps": spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale,
        "scheduler": spec.scheduler or None,
        "seed": None if view.erased else spec.seed,
        "n": spec.n,
        "output_format": _name(FORMATS, spec.output_format),
        "priority": view.priority,
        "ttl_s": view.ttl_s,
        "created_at": _timestamp(view.requested_at_ms),
        "started_at": _timestamp(view.started_at_ms),
        "finished_at": _timestamp(view.finished_at_ms),
        "erased": view.erased,
        "backlog_position": view.backlog_position or None,
        "progress": None if status == _QUEUED or view.erased else _progress(view),
        "images": [_image(image, view, link, signed) for image in view.images],
        "error": _error(view) if status == _FAILED else None,
        "links": {"self": here, "cancel": here + "/cancel"},
    }


def _image(image: fast.ImageView, view: fast.GenerationView, link: str | None, signed: Urls) -> Json:
    status = _IMAGE_ERASED if view.erased and image.status == _IMAGE_PUBLISHED else image.status
    published = status == _IMAGE_PUBLISHED
    fetchable = published and link is not None
    return {
        "index": image.index,
        "status": _name(_IMAGE_STATUSES, status),
        "seed": None if view.erased else image.seed,
        "url": f"{link}/images/{image.index}" if fetchable else None,
        "signed_url": signed.url(view.generation_id, image.index) if fetchable else None,
        "signed_url_expires_at": _timestamp(signed.expires_s * 1000) if fetchable else None,
        "sha256": image.sha256.hex() if published else None,
        "size_bytes": image.size_bytes if published else None,
        "error": failure(image.failure) if image.status == _IMAGE_FAILED else None,
    }


def failure(number: int) -> Json:
    """Why an image failed, for the client. A number that this version does not know is `unknown`."""
    code, message = _FAILURES[number] if 0 <= number < len(_FAILURES) else _FAILURES[0]
    return {"code": code, "message": message}


def _error(view: fast.GenerationView) -> Json:
    failed = [image.failure for image in view.images if image.status == _IMAGE_FAILED]
    message = f"{len(failed)} of {len(view.images)} images could not be made."
    if view.failure_detail and any(each in _WITH_REASON for each in failed):
        message = f"{view.failure_detail}."
    return {"code": "generation_failed", "message": message}


def _progress(view: fast.GenerationView) -> Json:
    return {"step": _steps_done(view), "steps": view.spec.num_inference_steps * len(view.images)}


def _steps_done(view: fast.GenerationView) -> int:
    per_image = view.spec.num_inference_steps
    step = 0
    for image in view.images:
        if image.status == _IMAGE_PUBLISHED:
            step += per_image
        elif image.status == _IMAGE_RUNNING:
            step += min(image.progress_step, per_image)
    return step


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


def _timestamp(at_ms: int) -> str | None:
    """RFC 3339 in UTC with milliseconds; None for 0."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z" if at_ms else None


@lru_cache(maxsize=256)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
