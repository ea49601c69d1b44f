"""The envelope around every queued and stored message.

protobuf accepts truncated input silently, so no payload is decoded before its
envelope has proved that it is whole, unaltered, and of a type and version that
the reader knows. Layout, big-endian::

    "DKE1" | type length u8 | type (ASCII) | version u16 | payload length u32 | digest 16 bytes | payload

The digest is BLAKE2b-128 over everything else. It guards against corruption and
foreign messages, not against a forger: queues are private.
"""

import struct
from dataclasses import dataclass
from hashlib import blake2b

MAGIC = b"DKE1"
DIGEST_BYTES = 16
MAX_PAYLOAD_BYTES = 256 * 1024
_TAIL = struct.Struct(">HI")


class BadEnvelope(ValueError):
    """These bytes are not a whole, unaltered envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message's name ("generation.requested"), the version of its schema, and its encoded bytes."""

    type: str
    version: int
    payload: bytes


def seal(envelope: Envelope) -> bytes:
    """The envelope as bytes. Raises ValueError for a name, version or payload that the layout cannot hold."""
    name = envelope.type.encode("ascii")
    if not 0 < len(name) < 256 or not 0 < envelope.version < 65536:
        raise ValueError(f"an envelope cannot carry type {envelope.type!r} version {envelope.version}")
    if len(envelope.payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload may have at most {MAX_PAYLOAD_BYTES} bytes, not {len(envelope.payload)}")
    head = MAGIC + bytes((len(name),)) + name + _TAIL.pack(envelope.version, len(envelope.payload))
    return head + _digest(head, envelope.payload) + envelope.payload


def unseal(data: bytes) -> Envelope:
    """The envelope in `data`, which must hold exactly one. Raises BadEnvelope otherwise."""
    if len(data) < 5 or data[:4] != MAGIC:
        raise BadEnvelope("does not begin like an envelope")
    name_end = 5 + data[4]
    head_end = name_end + _TAIL.size
    start = head_end + DIGEST_BYTES
    if len(data) < start:
        raise BadEnvelope("ends inside its header")
    version, length = _TAIL.unpack_from(data, name_end)
    if length > MAX_PAYLOAD_BYTES or len(data) != start + length:
        raise BadEnvelope(f"says {length} payload bytes, holds {len(data) - start}")
    payload = data[start:]
    if _digest(data[:head_end], payload) != data[head_end:start]:
        raise BadEnvelope("digest does not match")
    name = data[5:name_end]
    if not name.isascii() or not name or version == 0:
        raise BadEnvelope("has no usable type or version")
    return Envelope(type=name.decode("ascii"), version=version, payload=payload)


def _digest(head: bytes, payload: bytes) -> bytes:
    digest = blake2b(head, digest_size=DIGEST_BYTES)
    digest.update(payload)
    return digest.digest()
