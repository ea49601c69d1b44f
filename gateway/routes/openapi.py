"""The OpenAPI 3.1 description, generated from the operations and the pydantic models that validate. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import problems
from gateway.bodies.responses import Problem
from gateway.routes.operations import Answer, Operation, Parameter

_REF = "#/components/schemas/{model}"
_COMMON_PROBLEMS = (500,)
_TAGS = {
    "generations": "Ask for images, follow them, fetch them.",
    "models": "What is served.",
    "health": "For load balancers and supervisors. No key is needed.",
    "documentation": "No key is needed.",
}
_ABOUT = (
    "Post a prompt, get an id at once, poll or wait until the images are there. What was accepted (202) reaches an "
    "end, whatever fails in between. Errors are problem documents (RFC 9457), with an `error` member for OpenAI's "
    "clients."
)


def document(operations: Sequence[Operation], *, version: str, models: Iterable[str]) -> dict[str, Any]:
    """The whole description. `models` are the names that the field `model` takes, as examples."""
    shown = [each for each in operations if each.documented]
    schemas = _schemas(shown)
    schemas["GenerationRequest"]["properties"]["model"]["examples"] = list(models)
    paths: dict[str, dict[str, Any]] = {}
    for each in shown:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "darkroom",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, `dk_<id>_<secret>`."}
            },
        },
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    received: set[type[BaseModel]] = {each.request for each in operations if each.request}
    sent: set[type[BaseModel]] = {
        answer.model for each in operations for answer in each.answers.values() if answer.model
    }
    wanted: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    wanted.extend((model, "validation") for model in received)
    wanted.extend((model, "serialization") for model in sent | {Problem})
    _, definitions = models_json_schema(sorted(wanted, key=lambda each: each[0].__name__), ref_template=_REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _operation(each: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": each.id, "tags": [each.tag], "summary": each.summary}
    if each.description:
        described["description"] = each.description
    parameters = [_parameter(parameter) for parameter in each.parameters] + _query(each.query)
    if parameters:
        described["parameters"] = parameters
    if each.request:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(each.request)}},
        }
    answers = {str(status): _answer(answer) for status, answer in each.answers.items()}
    failures = {*each.problems, *((*_COMMON_PROBLEMS, 401) if each.secured else ())}
    described["responses"] = answers | {str(status): _problem(status) for status in sorted(failures)}
    described["security"] = ([{"key": []}, {}] if each.signed else [{"key": []}]) if each.secured else []
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _query(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    properties: Mapping[str, Any] = model.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": _without_null(
                {key: value for key, value in schema.items() if key not in ("description", "title")}
            ),
        }
        for name, schema in properties.items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without the choice of null: a query parameter is left out, never null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return dict(choices[0]) if len(choices) == 1 else schema


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {
            name: {"description": about, "schema": {"type": "string"}} for name, about in answer.headers.items()
        }
    if answer.content_types:
        described["content"] = {
            each: {"schema": {"type": "string", "format": "binary"}} for each in answer.content_types
        }
    if answer.model:
        described["content"] = {answer.content_type: {"schema": _reference(answer.model)}}
    return described


def _problem(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": re.sub(r"\s+", " ", HTTPStatus(status).phrase),
        "content": {problems.CONTENT_TYPE: {"schema": _reference(Problem)}},
    }
    if status in (409, 429, 503):
        described["headers"] = {
            "Retry-After": {"description": "Seconds, where waiting helps.", "schema": {"type": "string"}}
        }
    return described


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
