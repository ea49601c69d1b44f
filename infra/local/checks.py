"""What is wrong with the settings, found before anything is started or stopped."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from infra import models
from infra.lifecycle import ConfigError
from infra.local import devices, folder
from infra.local.layout import VARIABLES, Stack
from infra.models import ModelEntry
from infra.settings import SHIPPED_MODELS_FILE, Settings, load, unknown_variables, variable

_ROOT = Path(__file__).resolve().parents[2]
_SERVICES = ("gateway/config.py", "core/config.py", "worker/config.py", "worker/engine_server/config.py")


def settings(environ: Mapping[str, str]) -> tuple[ModelEntry, ...]:
    """Checks the settings and returns the models of the models file.

    Raises ConfigError for an unknown variable, a wrong value of a shared setting, a wrong models file, and if no model
    has a source.
    """
    known = [*VARIABLES, *map(variable, Settings.model_fields), *_variables_of_services()]
    unknown = unknown_variables(environ, known, ["LOAD"])
    if unknown:
        raise ConfigError("; ".join(unknown))
    load(Settings)
    entries = _models(environ)
    models.require_a_source(entries)
    return entries


def left_out(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each model whose source is missing: the others are served."""
    for entry in _models(environ):
        if problem := models.problem_of_source(entry):
            yield f"model {entry.name!r} is left out: {problem}"


def placed(stack: Stack, environ: Mapping[str, str]) -> Stack:
    """The stack with a device for each worker, its settings checked. Raises ConfigError as `settings` does."""
    entries = settings(environ)
    return replace(stack, worker_environments=tuple(devices.of_workers(environ, stack.workers, entries)))


def _models(environ: Mapping[str, str]) -> tuple[ModelEntry, ...]:
    return models.load(folder.expanded(environ.get("DARKROOM_MODELS_FILE") or str(SHIPPED_MODELS_FILE)))


def _variables_of_services() -> Iterator[str]:
    """Read from the services' files, not imported: infra knows no service."""
    for name in _SERVICES:
        for node in ast.walk(ast.parse((_ROOT / name).read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = (each for each in node.body if isinstance(each, ast.AnnAssign))
                yield from (variable(each.target.id) for each in fields if isinstance(each.target, ast.Name))
