"""Protobuf's wire format taken apart and put together again, field by field, with no codec of ours or anybody's.

Sealing too: the envelope's layout is written down here once more, so that what it should not hold can be sealed.
"""

import struct
from dataclasses import dataclass
from hashlib import blake2b

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Field:
    """`value`: a number for VARINT, bytes for the others, without their length."""

    number: int
    kind: int
    value: int | bytes


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def join(fields: list[Field]) -> bytes:
    """The message of these fields, whether or not anybody could read it."""
    out = b""
    for field in fields:
        out += varint(field.number << 3 | field.kind)
        if isinstance(field.value, int):
            out += varint(field.value)
        elif field.kind == BYTES:
            out += varint(len(field.value)) + field.value
        else:
            out += field.value
    return out


def split(data: bytes) -> list[Field]:
    """The fields of a sound message. Raises ValueError or IndexError for others."""
    fields, place = [], 0
    while place < len(data):
        tag, place = _number(data, place)
        kind = tag & 7
        if kind == VARINT:
            value, place = _number(data, place)
            fields.append(Field(tag >> 3, kind, value))
            continue
        if kind not in {FIXED64, BYTES, FIXED32}:
            raise ValueError(kind)
        size = 8 if kind == FIXED64 else 4
        if kind == BYTES:
            size, place = _number(data, place)
        if place + size > len(data):
            raise ValueError("cut short")
        fields.append(Field(tag >> 3, kind, data[place : place + size]))
        place += size
    return fields


def _number(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def seal(name: bytes, version: int, payload: bytes, *, length: int | None = None, digest: bytes | None = None) -> bytes:
    """An envelope with a digest that is right, or with the one given; `length` may lie."""
    said = len(payload) if length is None else length
    head = b"DKE1" + bytes((len(name),)) + name + struct.pack(">HI", version & 0xFFFF, said & 0xFFFFFFFF)
    return head + (digest or blake2b(head + payload, digest_size=16).digest()) + payload


def sound(body: bytes) -> "tuple[str, int, bytes] | None":
    """Type, version and payload of a body whose envelope is right in every byte; None for any other."""
    if body[:4] != b"DKE1" or len(body) < 5:
        return None
    end = 5 + body[4]
    if len(body) < end + 22:
        return None
    version, length = struct.unpack(">HI", body[end : end + 6])
    digest, payload = body[end + 6 : end + 22], body[end + 22 :]
    if length != len(payload) or blake2b(body[: end + 6] + payload, digest_size=16).digest() != digest:
        return None
    return body[5:end].decode("latin-1"), version, payload
