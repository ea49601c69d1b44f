"""Events as the log's bytes and back: protobuf inside the envelope of `schema.envelope`.

`encode` and `decode` are inverse on valid events, and both refuse an invalid one, so that nothing
enters the log that could not be read again. The log's adapters and the offline commands call this.
This module does not know what events mean. Queue messages have parts in common with events: core converts those too
with the records here (`SPEC`, `TIMINGS` and so on).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from core.domain import events as e
from core.domain.events import TYPES, Event
from core.log.event_validation import check
from schema import fast
from schema.envelope import Envelope, seal, unseal
from schema.messages import parse
from schema.records import Record

VERSION: Final = 1
"""The version of every payload written today. A new version needs an upcaster from the one before."""


class BadEvent(ValueError):
    """Not an event that this core can read: damaged, foreign, of a later version, or out of range."""


class LaterEvent(BadEvent):
    """Undamaged (its digest matches), but of a type or version unknown to this core: a later release wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcaster:
    """Converts an old payload to the next version. The old (type, version) is its key in `Upcasters`; `type` and
    `version` here are those of the result. Applied repeatedly until no upcaster matches.
    """

    type: str
    version: int
    convert: Callable[[bytes], bytes]  # may raise ValueError


Upcasters = Mapping[tuple[str, int], Upcaster]

UPCASTERS: Final[Upcasters] = {}
"""Upcasters for payloads of older releases: none yet, since every release so far has written version 1."""


class _Members:
    """`RenderFacts.batch_members`: (generation id, index) in the event, ImageRef in the message."""

    def message(self, value: tuple[tuple[str, int], ...]) -> list[fast.ImageRef]:
        return [fast.ImageRef(generation_id=generation_id, index=index) for generation_id, index in value]

    def value(self, message: Iterable[fast.ImageRef]) -> tuple[tuple[str, int], ...]:
        return tuple((member.generation_id, member.index) for member in message)


class _Failure:
    """A failure decides what happens to the image, so an event with an unknown failure number is refused."""

    def message(self, value: e.Failure) -> int:
        return value

    def value(self, message: int) -> e.Failure:
        try:
            return e.Failure(message)
        except ValueError:
            raise LaterEvent(f"unknown failure {message}: a later release wrote it, install that one") from None


class _Cause:
    """A cause is for information only, so a number that a later release introduced decodes as UNKNOWN."""

    def message(self, value: e.Cause) -> int:
        return value

    def value(self, message: int) -> e.Cause:
        return _CAUSES.get(message, e.Cause.UNKNOWN)


_CAUSES: Final = {int(each): each for each in e.Cause}

SPEC: Final = Record(e.Spec, fast.GenerationSpec)
TRACE: Final = Record(e.Trace, fast.TraceContext)
TIMINGS: Final = Record(e.Timings, fast.AttemptTimings)
FACTS: Final = Record(e.RenderFacts, fast.RenderFacts, {"batch_members": _Members()})

RECORDS: Final[dict[type, Record[Any, Any]]] = {
    e.GenerationRequested: Record(e.GenerationRequested, fast.GenerationRequested, {"spec": SPEC, "trace": TRACE}),
    e.ImageDispatched: Record(e.ImageDispatched, fast.ImageDispatched),
    e.ImageStarted: Record(e.ImageStarted, fast.ImageStartedEvent),
    e.ImageRendered: Record(e.ImageRendered, fast.ImageRenderedEvent, {"timings": TIMINGS, "facts": FACTS}),
    e.ImagePublished: Record(e.ImagePublished, fast.ImagePublished),
    e.ImageAttemptFailed: Record(e.ImageAttemptFailed, fast.ImageAttemptFailedEvent, {"failure": _Failure()}),
    e.ImageFailed: Record(e.ImageFailed, fast.ImageFailed, {"failure": _Failure()}),
    e.GenerationSucceeded: Record(e.GenerationSucceeded, fast.GenerationSucceeded),
    e.GenerationFailed: Record(e.GenerationFailed, fast.GenerationFailed),
    e.GenerationCancelled: Record(e.GenerationCancelled, fast.GenerationCancelled),
    e.GenerationExpired: Record(e.GenerationExpired, fast.GenerationExpired),
    e.GenerationErased: Record(e.GenerationErased, fast.GenerationErased, {"cause": _Cause()}),
}
_EVENTS: Final[dict[str, type]] = {name: cls for cls, name in TYPES.items()}


def encode(event: Event) -> bytes:
    """The event, sealed. Raises schema.validate.Invalid for one that no reader would accept."""
    check(event)
    cls = type(event)
    payload = RECORDS[cls].message(event).SerializeToString()
    return seal(Envelope(type=TYPES[cls], version=VERSION, payload=payload))


def decode(data: bytes, *, upcasters: Upcasters = UPCASTERS) -> Event:
    """The event in `data`. Raises BadEvent and nothing else."""
    try:
        envelope = unseal(data)
        name, version, payload = envelope.type, envelope.version, envelope.payload
        while (step := upcasters.get((name, version))) is not None:
            name, version, payload = step.type, step.version, step.convert(payload)
        cls = _EVENTS.get(name)
        if cls is None or version != VERSION:
            raise LaterEvent(f"unknown event {name!r} version {version}: a later release wrote it, install that one")
        record = RECORDS[cls]
        event = cast("Event", record.value(parse(record.kind, payload)))
        check(event)
    except LaterEvent:
        raise
    except ValueError as error:
        raise BadEvent(str(error)) from None
    return event


def type_of(event: Event) -> str:
    """The event's name in the log."""
    return TYPES[type(event)]
