"""Events as the log's bytes and back: protobuf inside the envelope of `schema.envelope`.

`encode` and `decode` are inverse on valid events, and both refuse an invalid one, so that nothing
enters the log that could not be read again. The log's adapters and the offline commands call this.
What an event means is not known here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, cast

import betterproto

from core.domain import events as e
from core.domain.events import TYPES, Event
from core.log.event_validation import check
from core.log.protobuf_writer import Writer, writer
from schema import pb
from schema.envelope import Envelope, seal, unseal
from schema.messages import parse

VERSION: Final = 1
"""Of every payload that is written today. A later one comes with an upcaster from the one before."""


class BadEvent(ValueError):
    """Not an event that this core can read: damaged, foreign, of a later version, or out of range."""


class LaterEvent(BadEvent):
    """Whole, by its digest, but of a type or version that this core does not know: a later release wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcaster:
    """Turns the payload of one old (type, version) into that of its successor; applied until none fits."""

    type: str
    version: int
    convert: Callable[[bytes], bytes]  # may raise ValueError


Upcasters = Mapping[tuple[str, int], Upcaster]

UPCASTERS: Final[Upcasters] = {}
"""Of the payloads that older releases wrote. There is no older release."""

_MESSAGES: Final[dict[type, type[betterproto.Message]]] = {
    e.GenerationRequested: pb.GenerationRequested,
    e.ImageDispatched: pb.ImageDispatched,
    e.ImageStarted: pb.ImageStartedEvent,
    e.ImageRendered: pb.ImageRenderedEvent,
    e.ImagePublished: pb.ImagePublished,
    e.ImageAttemptFailed: pb.ImageAttemptFailedEvent,
    e.ImageFailed: pb.ImageFailed,
    e.GenerationSucceeded: pb.GenerationSucceeded,
    e.GenerationFailed: pb.GenerationFailed,
    e.GenerationCancelled: pb.GenerationCancelled,
    e.GenerationExpired: pb.GenerationExpired,
    e.GenerationErased: pb.GenerationErased,
    e.Spec: pb.GenerationSpec,
    e.Trace: pb.TraceContext,
    e.Timings: pb.AttemptTimings,
    e.RenderFacts: pb.RenderFacts,
}

_EVENTS: Final[dict[str, type]] = {name: cls for cls, name in TYPES.items()}
_NESTED: Final[dict[str, type]] = {"spec": e.Spec, "trace": e.Trace, "timings": e.Timings, "facts": e.RenderFacts}


@dataclass(frozen=True, slots=True)
class _Member:
    generation_id: str
    index: int


_member: Final = writer(pb.ImageRef, {})
_facts: Final = writer(pb.RenderFacts, {"batch_members": lambda member: _member(_Member(*member))})
_PARTS: Final[dict[str, Writer]] = {
    "spec": writer(pb.GenerationSpec, {}),
    "trace": writer(pb.TraceContext, {}),
    "timings": writer(pb.AttemptTimings, {}),
    "facts": _facts,
}
_WRITERS: Final = {cls: writer(_MESSAGES[cls], _PARTS) for cls in TYPES}
_NAMES: Final = {cls: tuple(field.name for field in fields(cls)) for cls in _MESSAGES}


def encode(event: Event) -> bytes:
    """The event, sealed. Raises schema.validate.Invalid for one that no reader would accept."""
    check(event)
    return seal(Envelope(type=TYPES[type(event)], version=VERSION, payload=_WRITERS[type(event)](event)))


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
        event = cast("Event", _value(cls, parse(_MESSAGES[cls], payload)))
        check(event)
    except LaterEvent:
        raise
    except ValueError as error:
        raise BadEvent(str(error)) from None
    return event


def type_of(event: Event) -> str:
    """The event's name in the log."""
    return TYPES[type(event)]


_members = attrgetter("generation_id", "index")


def _value(cls: type, message: betterproto.Message) -> Any:
    values = {}
    for name in _NAMES[cls]:
        value = getattr(message, name)
        if name in _NESTED:
            value = _value(_NESTED[name], value)
        elif name == "batch_members":
            value = tuple(_members(member) for member in value)
        elif name == "failure":
            value = _failure(value)
        elif name == "cause":
            value = _cause(value)
        elif name in {"output_format", "format"}:
            value = int(value)
        values[name] = value
    return cls(**values)


def _failure(number: int) -> e.Failure:
    """An enum value that betterproto does not know stays a plain int; hence by number. New ones come with releases."""
    try:
        return e.Failure(int(number))
    except ValueError:
        raise LaterEvent(f"unknown failure {int(number)}: a later release wrote it, install that one") from None


def _cause(number: int) -> e.Cause:
    """As `_failure`. What erased it explains, and decides nothing: a number of a later release reads as unknown."""
    known = int(number) in e.Cause.__members__.values()
    return e.Cause(int(number)) if known else e.Cause.UNKNOWN
