"""Converts frozen dataclasses to messages with the same fields, and back: the encoding of the event log's payloads.

The fields are matched once, at import, and a difference raises there. docs/decisions/schema.md has the measurement of
this against bytes written field by field in Python, and against betterproto.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Generic, Protocol, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class Part(Protocol):
    """How to convert one field that is not a plain number, text or bytes: to a `message`, and back to a `value`."""

    @property
    def message(self) -> Callable[[Any], Any]: ...
    @property
    def value(self) -> Callable[[Any], Any]: ...


class Record(Generic[T, M]):
    """The conversion between `cls`, a dataclass, and `kind`, the message with the same fields. `parts`: the fields that
    need a conversion of their own.

    `message` converts a dataclass to its message, `value` a message to its dataclass. Raises TypeError when the fields
    of the two differ, or when a field that is itself a message has no part.
    """

    message: Callable[[T], M]
    value: Callable[[M], T]

    def __init__(self, cls: type[T], kind: type[M], parts: Mapping[str, Part] | None = None) -> None:
        parts = parts or {}
        described = kind.DESCRIPTOR.fields_by_name
        names = [field.name for field in fields(cast("Any", cls))]
        messages = {name for name, field in described.items() if field.type == FieldDescriptor.TYPE_MESSAGE}
        if set(names) != set(described) or not messages <= set(parts) <= set(described):
            raise TypeError(f"{cls.__name__} and {kind.__name__} have other fields or parts")
        doubles = {name for name, field in described.items() if field.type == FieldDescriptor.TYPE_DOUBLE}
        self.kind = kind
        self.message = _copier(kind, names, {name: part.message for name, part in parts.items()}, doubles)
        self.value = _copier(cls, names, {name: part.value for name, part in parts.items()})


def _copier(
    make: type[Any],
    names: Iterable[str],
    convert: Mapping[str, Callable[[Any], Any]],
    doubles: Iterable[str] = (),
) -> Callable[[Any], Any]:
    """`lambda given: make(width=given.width, ...)`. Compiled, as dataclasses compile their constructors: a loop over
    the names takes twice the time.

    -0.0 becomes 0.0 in `doubles`: proto3 omits zero, but upb would write a negative zero, and the log must hold none.
    """
    read = {name: f"given.{name}" for name in names}
    read |= {name: f"convert[{name!r}]({read[name]})" for name in convert}
    read |= {name: f"{read[name]} + 0.0" for name in doubles}
    arguments = ", ".join(f"{name}={expression}" for name, expression in read.items())
    source = f"lambda given: make({arguments})"  # built from field names only, so `eval` is safe
    return cast("Callable[[Any], Any]", eval(source, {"make": make, "convert": convert}))  # noqa: S307
