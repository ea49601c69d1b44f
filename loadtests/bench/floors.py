"""How a benchmark ends: which floors were missed, one line of JSON, and an exit code that says the same."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

Json = Mapping[str, object]
Floors = Mapping[str, tuple[Literal["<=", ">="], float]]
"""By field; a dot leads into a nested table."""


def missed(result: Json, floors: Floors) -> list[str]:
    """A line for each floor that was measured and missed. NaN, or a value that is no number, misses its floor."""
    short = []
    for field, (relation, bound) in floors.items():
        value = _value(result, field)
        if value is None:
            continue
        met = isinstance(value, int | float) and (value <= bound if relation == "<=" else value >= bound)
        if not met:
            short.append(f"{field} {relation} {bound:g} missed: {value}")
    return short


def ended(result: Json, short: Sequence[str]) -> int:
    """Prints the last lines. 1 when something in `short` was missed."""
    print("floors: " + ("all met" if not short else "; ".join(short)))
    print(json.dumps({**result, "missed": list(short)}))
    return 1 if short else 0


def _value(result: Json, field: str) -> object:
    value: object = result
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
