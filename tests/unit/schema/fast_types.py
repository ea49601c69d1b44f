"""The types of `schema.fast`, derived from the generated classes as the classes themselves are.

Run as a program it prints the stub. After a change of the protos:

    python -m tests.unit.schema.fast_types > schema/fast.pyi
"""

import typing
from collections.abc import Iterator
from dataclasses import fields

import betterproto

from schema.gen.darkroom import v1 as gen
from tests.unit.schema.message_values import names

_HEAD = """# Made by `python -m tests.unit.schema.fast_types`; a test compares. Enums are ints.

from collections.abc import Iterable

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer
from google.protobuf.message import Message
"""
_SCALARS = {
    "bool": "bool",
    "enum": "int",
    "int32": "int",
    "uint32": "int",
    "uint64": "int",
    "double": "float",
    "string": "str",
    "bytes": "bytes",
}


def stub() -> str:
    """The text of schema/fast.pyi."""
    return "\n".join([_HEAD, *("\n".join(_class(name)) for name in names())])


def _class(name: str) -> Iterator[str]:
    cls = getattr(gen, name)
    hints = typing.get_type_hints(cls, vars(gen) | {"betterproto": betterproto})
    if not fields(cls):
        yield f"class {name}(Message): ...\n"
        return
    yield f"class {name}(Message):"
    arguments: list[str] = []
    read_only: list[str] = []
    for field in fields(cls):
        proto_type = betterproto.FieldMetadata.get(field).proto_type
        repeated = typing.get_origin(hints[field.name]) is list
        is_message = proto_type == betterproto.TYPE_MESSAGE
        held = typing.get_args(hints[field.name])[0] if repeated else hints[field.name]
        kind = held.__name__ if is_message else _SCALARS[proto_type]
        if not repeated and not is_message:
            yield f"    {field.name}: {kind}"
            arguments.append(f"{field.name}: {kind} = ...")
            continue
        container = "Composite" if is_message else "Scalar"
        shown = f"Repeated{container}FieldContainer[{kind}]" if repeated else kind
        read_only += ["    @property", f"    def {field.name}(self) -> {shown}: ..."]
        arguments.append(f"{field.name}: {f'Iterable[{kind}]' if repeated else kind} | None = ...")
    yield from read_only
    yield "    def __init__("
    yield "        self,"
    yield "        *,"
    yield from (f"        {each}," for each in arguments)
    yield "    ) -> None: ..."
    yield ""


if __name__ == "__main__":
    print(stub(), end="")
