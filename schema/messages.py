"""The queue messages as bytes and back: envelope, codec, strict validation, in one place for both sides.

`encode` and `decode` are inverse on valid messages. For anything else `decode` raises `BadMessage`, and no other error,
so a consumer can quarantine the message and go on. The messages are those of `schema.fast`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from schema import fast, validate
from schema.envelope import BadEnvelope, Envelope, seal, unseal

M = TypeVar("M", bound=Message)

QueueMessage = fast.ImageJob | fast.ImageStarted | fast.ImageRendered | fast.ImageAttemptFailed


class BadMessage(ValueError):
    """Not a message that this reader can take: corrupt, foreign, of a later version, or out of range."""


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    version: int
    cls: type[Message]
    check: Callable[[Any], None]


_KINDS: tuple[_Kind, ...] = (
    _Kind("job.image", 1, fast.ImageJob, validate.image_job),
    _Kind("reply.started", 1, fast.ImageStarted, validate.image_started),
    _Kind("reply.rendered", 1, fast.ImageRendered, validate.image_rendered),
    _Kind("reply.attempt_failed", 1, fast.ImageAttemptFailed, validate.image_attempt_failed),
)
_BY_CLASS: dict[type[Any], _Kind] = {kind.cls: kind for kind in _KINDS}
_BY_NAME = {(kind.name, kind.version): kind for kind in _KINDS}


def encode(message: QueueMessage) -> bytes:
    """The message sealed in its envelope. Raises schema.validate.Invalid for a message that no reader accepts."""
    kind = _BY_CLASS[type(message)]
    kind.check(message)
    return seal(Envelope(type=kind.name, version=kind.version, payload=message.SerializeToString()))


def decode(data: bytes) -> QueueMessage:
    """The message in `data`. Raises BadMessage, whose text holds no content of the message."""
    try:
        envelope = unseal(data)
    except BadEnvelope as error:
        raise BadMessage(str(error)) from None
    kind = _BY_NAME.get((envelope.type, envelope.version))
    if kind is None:
        raise BadMessage(f"unknown message {envelope.type!r} version {envelope.version}")
    message = cast("QueueMessage", parse(kind.cls, envelope.payload))
    try:
        kind.check(message)
    except validate.Invalid as error:
        raise BadMessage(str(error)) from None
    return message


def parse(cls: type[M], payload: bytes) -> M:
    """`payload` decoded as a message of class `cls`; its values are not validated. Raises BadMessage."""
    try:
        return cls.FromString(payload)
    except Exception as error:  # noqa: BLE001  (DecodeError; whatever else it is, the message is at fault)
        raise BadMessage(f"payload cannot be decoded ({type(error).__name__})") from None
