"""Which events may be written and read: required fields, ranges, finite numbers.

The codec calls `check` before it writes an event and after it reads one. `check` judges one event by itself; whether
it fits its stream is for `decide`, and for `core verify`.
"""

from typing import Final, assert_never

from core.domain import events as e
from core.domain.events import Event, Failure
from core.domain.shares import MOST
from schema import limits
from schema import validate as v

MAX_ENDING_CHARS: Final = 3 * limits.MAX_DETAIL_CHARS
"""A generation's failure text quotes that of its first failed image."""

_MAX_COUNT: Final = 2**32 - 1
_MAX_MS: Final = 2**53
"""Times stay exact in languages whose only numbers are IEEE doubles."""


def check(event: Event) -> None:
    """Raises schema.validate.Invalid, which names the field, for an event that must not be written or read."""
    match event:
        case e.GenerationRequested():
            _requested(event)
        case e.ImageDispatched():
            _index(event.index)
            v.whole("dispatch", event.dispatch, 1, _MAX_COUNT)
            v.whole("recheck_at_running_ms", event.recheck_at_running_ms, 0, _MAX_MS)
        case e.ImageStarted():
            _attempt(event)
            v.whole("dispatch", event.dispatch, 1, _MAX_COUNT)
            v.identifier("batch_id", event.batch_id)
            v.whole("batch_size", event.batch_size, 1, 4096)
            v.whole("recheck_at_running_ms", event.recheck_at_running_ms, 0, _MAX_MS)
        case e.ImageRendered():
            _rendered(event)
        case e.ImagePublished():
            _index(event.index)
            v.text("public_key", event.public_key, limits.MAX_DETAIL_CHARS)
        case e.ImageAttemptFailed():
            whose = _no_attempt if event.failure is Failure.DEAD_LETTERED else _attempt
            whose(event)
            v.whole("dispatch", event.dispatch, 0, _MAX_COUNT)
            _failed(event)
        case e.ImageFailed():
            _index(event.index)
            _failed(event)
        case e.GenerationFailed():
            v.text("detail", event.detail, MAX_ENDING_CHARS, empty=True)
        case e.GenerationSucceeded() | e.GenerationCancelled() | e.GenerationExpired() | e.GenerationErased():
            pass
        case _:
            assert_never(event)


def _requested(event: e.GenerationRequested) -> None:
    v.identifier("tenant", event.tenant)
    v.spec(event.spec)
    v.whole("priority", event.priority, limits.MIN_PRIORITY, limits.MAX_PRIORITY)
    v.whole("ttl_s", event.ttl_s, 0, limits.MAX_TTL_S)
    v.whole("requested_at_ms", event.requested_at_ms, 0, _MAX_MS)
    v.whole("expires_at_running_ms", event.expires_at_running_ms, 0, _MAX_MS)
    if len(event.prompt_hmac) != 32:
        raise v.Invalid("prompt_hmac", "must have 32 bytes")
    v.trace(event.trace)
    v.whole("charge", event.charge, 0, MOST)


def _rendered(event: e.ImageRendered) -> None:
    _attempt(event)
    v.text("temp_key", event.temp_key, limits.MAX_DETAIL_CHARS)
    if len(event.sha256) != 32:
        raise v.Invalid("sha256", "must have 32 bytes")
    v.whole("size_bytes", event.size_bytes, 1, limits.MAX_OBJECT_BYTES)
    v.side("width", event.width)
    v.side("height", event.height)
    v.whole("format", event.format, 1, 3)
    v.identifier("public_token", event.public_token)
    v.timings(event.timings)
    _facts(event.facts)


def _facts(facts: e.RenderFacts) -> None:
    v.facts_but_members(facts)
    v.batch_members(facts.batch_members)
    for generation_id, index in facts.batch_members:
        v.identifier("facts.batch_members", generation_id)
        _index(index)


def _attempt(event: e.ImageStarted | e.ImageRendered | e.ImageAttemptFailed) -> None:
    _index(event.index)
    v.identifier("attempt_id", event.attempt_id)
    v.identifier("worker_id", event.worker_id)


def _no_attempt(event: e.ImageAttemptFailed) -> None:
    _index(event.index)
    for name, value in (("attempt_id", event.attempt_id), ("worker_id", event.worker_id), ("solo", event.solo)):
        if value:
            raise v.Invalid(name, "must be empty when dead-lettered")


def _failed(event: e.ImageAttemptFailed | e.ImageFailed) -> None:
    if event.failure is Failure.NONE:
        raise v.Invalid("failure", "must say why")
    v.text("detail", event.detail, limits.MAX_DETAIL_CHARS, empty=True)


def _index(index: int) -> None:
    v.whole("index", index, 0, limits.MAX_IMAGES - 1)
