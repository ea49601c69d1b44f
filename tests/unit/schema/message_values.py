"""Values for every message of the contract, the same in each run, and the golden bytes that they must give.

The values follow from the generated classes, so a new message or field gets some without a line here. Run as a
program it prints the golden file for the codec of this tree:

    python -m tests.unit.schema.message_values > tests/unit/schema/golden/messages_v1.json

The file is never changed for a message that it holds: what a release wrote, a later one reads.
"""

import json
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import betterproto

from schema.gen.darkroom import v1 as gen

GOLDEN: Final = Path(__file__).parent / "golden" / "messages_v1.json"
VARIANTS: Final = ("empty", "hollow", "small", "bounds", "unicode")
"""No field set; message fields set and nothing in them; one of each; the largest of each; text beyond ASCII."""

_SMALL: Final[Mapping[str, Any]] = {
    "bool": True,
    "int32": 1,
    "uint32": 1,
    "uint64": 1,
    "double": 0.5,
    "string": "a",
    "bytes": b"a",
}
_BOUNDS: Final[Mapping[str, Any]] = {
    "bool": True,
    "int32": -(2**31),
    "uint32": 2**32 - 1,
    "uint64": 2**64 - 1,
    "double": sys.float_info.max,
    "string": "x" * 128,  # a length of two bytes
    "bytes": bytes(range(128)),
}
_UNICODE: Final[Mapping[str, Any]] = {
    "bool": True,
    "int32": -1,
    "uint32": 128,
    "uint64": 2**53,
    "double": -0.1,
    "string": "Gemälde 漢字 🎨\n\x00",
    "bytes": "🎨".encode(),
}
_SCALARS: Final = {"small": _SMALL, "bounds": _BOUNDS, "unicode": _UNICODE}
_REPEATS: Final = {"small": 1, "bounds": 2, "unicode": 2}


def names() -> list[str]:
    """Every message of the contract."""
    made = (each for each in vars(gen).values() if isinstance(each, type) and issubclass(each, betterproto.Message))
    return sorted(each.__name__ for each in made)


def build(home: Any, name: str, variant: str) -> Any:
    """The message `name` out of the module `home`, with the values of a variant."""
    reference = getattr(gen, name)
    if variant == "empty":
        return getattr(home, name)()
    hints = typing.get_type_hints(reference, vars(gen) | {"betterproto": betterproto})
    values: dict[str, Any] = {}
    for field in fields(reference):
        proto_type = betterproto.FieldMetadata.get(field).proto_type
        repeated = typing.get_origin(hints[field.name]) is list
        held = typing.get_args(hints[field.name])[0] if repeated else hints[field.name]
        if variant == "hollow":
            if proto_type == betterproto.TYPE_MESSAGE and not repeated:
                values[field.name] = getattr(home, held.__name__)()
            continue
        if proto_type == betterproto.TYPE_MESSAGE:
            value: Any = build(home, held.__name__, variant)
        elif proto_type == betterproto.TYPE_ENUM:
            value = held(min(held) if variant == "small" else max(held))
        else:
            value = _SCALARS[variant][proto_type]
        values[field.name] = [value] * _REPEATS[variant] if repeated else value
    return getattr(home, name)(**values)


def golden() -> dict[str, dict[str, bytes]]:
    """By message and variant."""
    stored = json.loads(GOLDEN.read_text())
    return {name: {each: bytes.fromhex(text) for each, text in made.items()} for name, made in stored.items()}


if __name__ == "__main__":
    from schema import fast

    written = {
        name: {variant: build(fast, name, variant).SerializeToString().hex() for variant in VARIANTS}
        for name in names()
    }
    print(json.dumps(written, indent=1))
