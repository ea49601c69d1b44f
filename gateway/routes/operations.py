"""One operation of the API: a decorator joins a handler and its description, for the router and for OpenAPI."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from gateway.access.keys import Caller
from gateway.routes.context import Context

Handler = Callable[[Context, web.Request, Caller], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A path, query or header parameter that no model describes."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is not a problem, with the headers to document. Without a model no JSON body is documented."""

    description: str
    model: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    content_types: tuple[str, ...] = ()
    """Content types of binary bodies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path. `problems` are the statuses it may fail with, besides those that all may."""

    id: str
    method: str
    path: str
    tag: str
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    description: str = ""
    problems: tuple[int, ...] = ()
    secured: bool = True
    signed: bool = False
    """Whether a signed URL is accepted in place of a key."""
    documented: bool = True
    request: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()


def operation(**described: Any) -> Callable[[Handler], Operation]:
    """Makes an Operation of the handler below it; takes the fields of Operation."""

    def decorate(handler: Handler) -> Operation:
        return Operation(handler=handler, **described)

    return decorate
