"""Sound messages spoiled: as a bad disk, a stranger, an older or a later writer, or somebody with a grudge would.

`spoil` gives the bytes for a queue, and whether they were sealed anew with a digest that is right.
"""

import struct
from dataclasses import replace
from random import Random

from schema.envelope import unseal
from tests.fuzz.wire import BYTES, FIXED32, FIXED64, VARINT, Field, join, seal, split

_NAMES = (
    b"job.image",
    b"reply.started",
    b"reply.rendered",
    b"reply.attempt_failed",
    b"job.images",
    b"",
    b"\xff",
    b"a" * 255,
)
_EDGES = (0, 1, 2, 6, 7, 8, 9, 10, 11, 30, 31, 63, 64, 65, 72, 150, 151, 2047, 2048, 2056, 4096, 4097)
_HUGE = (
    2**26,
    2**26 + 1,
    2**31 - 1,
    2**31,
    2**31 + 1,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 11,
    2**64 - 1,
    2**64,
    2**70,
)
_NUMBERS = (
    0.0,
    -0.0,
    30.0,
    30.000001,
    -1e-9,
    1e9,
    1.0000001e9,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    5e-324,
)
_LENGTHS = (1, 31, 32, 33, 40, 41, 64, 65, 127, 128, 129, 200, 201, 512, 513, 2_000, 2_001, 4_000)
_PIECES = (
    b"a",
    b"\xc3\xa9",
    b"\xf0\x9f\x8e\xa8",
    b" ",
    b"\t",
    b"\n",
    b"\x00",
    b"\x1b",
    b"\x7f",
    b"\xc2\x85",
    b"/",
    b"..",
    b"-",
)
_NO_TEXT = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"a\x80b")


def spoil(dice: Random, sealed: bytes, number: int, *, resealed: bool) -> bytes:
    """The `number`-th mutant of a sealed message."""
    return _reseal(dice, sealed) if resealed else _damage(dice, sealed, number)


def _damage(dice: Random, sealed: bytes, number: int) -> bytes:
    """What happens to bytes on the way: nobody makes the digest right again."""
    data = bytearray(sealed)
    match dice.randrange(6):
        case 0:
            return sealed[: number % len(sealed)]  # at every byte, in turn
        case 1:
            return sealed + dice.randbytes(dice.randint(1, 40))
        case 2:
            start, size = dice.randrange(len(data)), dice.randint(1, 20)
            return bytes(
                data[:start] + data[start + size :]
                if dice.random() < 0.5
                else data[:start] + data[start : start + size] * 2 + data[start + size :]
            )
        case 3:
            head = 5 + data[4]
            data[head + 6 : head + 22] = dice.randbytes(16)
            return bytes(data)
        case 4:
            return dice.randbytes(dice.randrange(200))
        case _:
            for _ in range(dice.choice((1, 1, 2, 8))):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            return bytes(data)


def _reseal(dice: Random, sealed: bytes) -> bytes:
    envelope = unseal(sealed)
    name, payload = envelope.type.encode(), envelope.payload
    match dice.randrange(12):
        case 0:
            return seal(dice.choice(_NAMES), 1, payload)
        case 1:
            return seal(name, dice.choice((0, 2, 3, 256, 65_535)), payload)
        case 2:
            return seal(name, 1, payload, length=len(payload) + dice.choice((-1, 1, 2**20, 2**31)))
        case 3:
            return seal(name, 1, payload[: dice.randrange(len(payload))])
        case 4:
            data = bytearray(payload)
            for _ in range(dice.choice((1, 1, 2, 4))):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            return seal(name, 1, bytes(data))
        case 5:
            return seal(name, 1, payload + dice.randbytes(dice.randint(1, 12)))
        case _:
            for _ in range(dice.choice((1, 1, 1, 2, 3))):
                payload = _fields(dice, payload)
            return seal(name, 1, payload)


def _fields(dice: Random, payload: bytes) -> bytes:
    """One field of the message, or of one inside it, changed."""
    try:
        fields = split(payload)
    except (ValueError, IndexError):
        return payload
    if not fields:
        return join([_stranger(dice)])
    place = dice.randrange(len(fields))
    field = fields[place]
    inside = field.kind == BYTES and isinstance(field.value, bytes) and _holds_fields(field.value)
    if inside and dice.random() < 0.7:
        assert isinstance(field.value, bytes)
        fields[place] = replace(field, value=_fields(dice, field.value))
        return join(fields)
    match dice.randrange(8):
        case 0:
            del fields[place]
        case 1:
            fields.insert(dice.randrange(len(fields) + 1), field)
        case 2:
            fields[place] = _of_another_type(dice, field.number)
        case 3:
            fields.insert(place, _stranger(dice))
        case 4:
            fields.insert(dice.randrange(len(fields) + 1), _other_value(dice, field))  # the last one counts
        case _:
            fields[place] = _other_value(dice, field)
    return join(fields)


def _holds_fields(value: bytes) -> bool:
    try:
        return bool(value) and all(0 < field.number < 20 for field in split(value))
    except (ValueError, IndexError):
        return False


def _other_value(dice: Random, field: Field) -> Field:
    if field.kind == VARINT:
        return replace(field, value=dice.choice((*_EDGES, *_HUGE)))
    if field.kind == FIXED64:
        return replace(field, value=struct.pack("<d", dice.choice(_NUMBERS)))
    if dice.random() < 0.2:
        return replace(field, value=dice.choice(_NO_TEXT))
    return replace(field, value=_text(dice, field.value if isinstance(field.value, bytes) else b""))


def _text(dice: Random, before: bytes) -> bytes:
    piece, length = dice.choice(_PIECES), dice.choice(_LENGTHS)
    match dice.randrange(4):
        case 0:
            return piece * length
        case 1:
            return b"a" * length
        case 2:
            return before + piece
        case _:
            return b""


def _of_another_type(dice: Random, number: int) -> Field:
    kind = dice.choice((VARINT, FIXED64, BYTES, FIXED32, 3, 4, 6, 7))
    if kind == VARINT:
        return Field(number, kind, dice.choice(_HUGE))
    return Field(number, kind, dice.randbytes({FIXED64: 8, FIXED32: 4, BYTES: 9}.get(kind, 0)))


def _stranger(dice: Random) -> Field:
    """A field that nobody here knows."""
    number = dice.choice((0, 13, 50, 19_000, 2**29 - 1, 2**29))
    return replace(_of_another_type(dice, 1), number=number)
