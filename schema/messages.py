"""The queue messages as bytes and back: envelope, codec, strict validation, in one place for both sides.

`encode` and `decode` are inverse on valid messages. `decode` raises `BadMessage` for anything
else and nothing but `BadMessage`, so a consumer can quarantine it and go on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import betterproto

from schema import pb, validate
from schema.envelope import BadEnvelope, Envelope, seal, unseal

M = TypeVar("M", bound=betterproto.Message)

QueueMessage = pb.ImageJob | pb.ImageStarted | pb.ImageRendered | pb.ImageAttemptFailed


class BadMessage(ValueError):
    """Not a message that this reader can take: corrupt, foreign, of a later version, or out of range."""


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    version: int
    cls: type[Any]
    check: Callable[[Any], None]


_KINDS: tuple[_Kind, ...] = (
    _Kind("job.image", 1, pb.ImageJob, validate.image_job),
    _Kind("reply.started", 1, pb.ImageStarted, validate.image_started),
    _Kind("reply.rendered", 1, pb.ImageRendered, validate.image_rendered),
    _Kind("reply.attempt_failed", 1, pb.ImageAttemptFailed, validate.image_attempt_failed),
)
_BY_CLASS = {kind.cls: kind for kind in _KINDS}
_BY_NAME = {(kind.name, kind.version): kind for kind in _KINDS}


def encode(message: QueueMessage) -> bytes:
    """The message sealed in its envelope. Raises schema.validate.Invalid for a message nobody would accept."""
    kind = _BY_CLASS[type(message)]
    kind.check(message)
    return seal(Envelope(type=kind.name, version=kind.version, payload=bytes(message)))


def decode(data: bytes) -> QueueMessage:
    """The message in `data`. Raises BadMessage, whose text holds no content of the message."""
    try:
        envelope = unseal(data)
    except BadEnvelope as error:
        raise BadMessage(str(error)) from None
    kind = _BY_NAME.get((envelope.type, envelope.version))
    if kind is None:
        raise BadMessage(f"unknown message {envelope.type!r} version {envelope.version}")
    message: QueueMessage = parse(kind.cls, envelope.payload)
    try:
        kind.check(message)
    except validate.Invalid as error:
        raise BadMessage(str(error)) from None
    return message


def parse(cls: type[M], payload: bytes) -> M:
    """`payload` as a message of class `cls`. The codec's many errors become BadMessage."""
    try:
        return cls().parse(payload)
    except Exception as error:  # noqa: BLE001  (RuntimeError from the Rust codec, EOFError and others from the Python one)
        raise BadMessage(f"payload cannot be decoded ({type(error).__name__})") from None
