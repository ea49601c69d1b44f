"""What a queue message may say, written down a second time: from the docs, in other words than `schema.validate`'s.

Knows the messages' fields and nothing of the code that checks them.
"""

import math
import string
import unicodedata
from collections.abc import Iterator
from typing import Any

_ID_LETTERS = frozenset(string.ascii_letters + string.digits + "_.:-")
_MODEL_LETTERS = frozenset(string.ascii_letters + string.digits + "_.@/-")
_FORMATS = {1, 2, 3}
_FAILURES_OF_WORKERS = {1, 2, 3, 4, 5, 7, 10, 12, 13}
"""Not 6, 8 and 9 (object lost, worker lost, dead-lettered), which are core's own findings, nor 11 (reserved)."""


def outside(kind: str, message: Any) -> list[str]:
    """The fields of an accepted message that no writer of ours may send; empty: all is well."""
    said = {"job.image": _job, "reply.started": _started, "reply.rendered": _rendered}.get(kind, _failed)
    return [name for name, good in said(message) if not good]


def _id(text: str) -> bool:
    return 1 <= len(text) <= 64 and set(text) <= _ID_LETTERS


def _words(text: str, longest: int, *, needed: bool = False) -> bool:
    plain = all(unicodedata.category(each) != "Cc" or each in "\t\n\r" for each in text)
    return len(text) <= longest and plain and (not needed or text.strip() != "")


def _number(value: float, low: float, high: float) -> bool:
    return not math.isnan(value) and low <= value <= high


def _side(value: int) -> bool:
    return value in range(64, 2049, 8)


def _image(image: Any) -> Iterator[tuple[str, bool]]:
    yield "generation id", _id(image.generation_id)
    yield "index", image.index in range(10)


def _job(job: Any) -> Iterator[tuple[str, bool]]:
    spec = job.spec
    yield from _image(job.image)
    yield "dispatch", 1 <= job.dispatch <= 2**31
    yield "index of n", job.image.index < spec.n
    model = spec.model
    yield "model", 1 <= len(model) <= 128 and set(model) <= _MODEL_LETTERS and model[0] not in "_.@/-"
    yield "width", _side(spec.width)
    yield "height", _side(spec.height)
    yield "steps", spec.num_inference_steps in range(1, 151)
    yield "guidance", _number(spec.guidance_scale, 0, 30)
    yield "seed", spec.seed < 2**32
    yield "n", spec.n in range(1, 11)
    yield "format", spec.output_format in _FORMATS
    yield "scheduler", not spec.scheduler or _id(spec.scheduler)
    yield "prompt", _words(job.prompts.prompt, 2_000, needed=True)
    yield "negative prompt", _words(job.prompts.negative_prompt, 2_000)
    yield "image seed", job.image_seed < 2**32
    yield "priority", job.priority in range(-10, 11)
    yield "requested_at_ms", job.requested_at_ms in range(2**53 + 1)
    yield "traceparent", _words(job.trace.traceparent, 64)
    yield "tracestate", _words(job.trace.tracestate, 512)


def _attempt(reply: Any) -> Iterator[tuple[str, bool]]:
    yield from _image(reply.image)
    yield "attempt id", _id(reply.attempt_id)
    yield "worker id", _id(reply.worker_id)
    yield "dispatch", 1 <= reply.dispatch <= 2**31


def _started(reply: Any) -> Iterator[tuple[str, bool]]:
    yield from _attempt(reply)
    yield "batch id", _id(reply.batch_id)
    yield "batch size", reply.batch_size in range(1, 4097)


def _rendered(reply: Any) -> Iterator[tuple[str, bool]]:
    yield from _attempt(reply)
    parts = ["temp", reply.image.generation_id, str(reply.image.index), reply.attempt_id]
    yield "temp key", reply.temp_key.split("/") == parts
    yield "sha256", len(reply.sha256) == 32
    yield "size", 0 < reply.size_bytes <= 64 << 20
    yield "width", _side(reply.width)
    yield "height", _side(reply.height)
    yield "format", reply.format in _FORMATS
    times, facts = reply.timings, reply.facts
    for name in ("wait_ms", "gpu_ms", "batch_gpu_ms", "decode_ms", "encode_ms", "upload_ms"):
        yield name, _number(getattr(times, name), 0, 1e9)
    yield "wait reason", _words(times.wait_reason, 40)
    for name in ("engine", "model", "model_revision", "scheduler", "dtype", "device", "libraries"):
        yield name, _words(getattr(facts, name), 200)
    yield "batch id", _id(facts.batch_id)
    yield "members", len(facts.batch_members) <= 4096
    for member in facts.batch_members:
        yield from _image(member)
    yield "seed", facts.seed < 2**32


def _failed(reply: Any) -> Iterator[tuple[str, bool]]:
    yield from _attempt(reply)
    yield "failure", reply.failure in _FAILURES_OF_WORKERS
    yield "detail", _words(reply.detail, 200)
