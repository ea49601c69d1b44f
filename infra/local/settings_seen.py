"""The settings that a stack was started with, and how the current ones differ from them."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from infra.settings import SHIPPED_MODELS_FILE

_RELEVANT = re.compile(r"(DARKROOM|OTEL|HF)_.+|CUDA_VISIBLE_DEVICES")
_NO_DIFFERENCE = frozenset({"DARKROOM_DATA_DIR", "DARKROOM_LOCAL_PYTHON"})
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|HEADERS|KEYS?$")


def settings_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that matter to the services, secrets as digests. Empty counts as not set."""
    return {
        name: _digest(value.encode("utf-8", "surrogateescape")) if _SECRET.search(name) else value
        for name, value in sorted(environ.items())
        if value and _RELEVANT.fullmatch(name) and name not in _NO_DIFFERENCE
    }


def files_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings files by their variables, with a digest of what they hold; unreadable ones are empty."""
    named = {
        "DARKROOM_MODELS_FILE": environ.get("DARKROOM_MODELS_FILE") or str(SHIPPED_MODELS_FILE),
        "DARKROOM_GATEWAY_RULES_FILE": environ.get("DARKROOM_GATEWAY_RULES_FILE") or "",
    }
    return {variable: _content(Path(path).expanduser()) for variable, path in named.items() if path}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One line for each setting that differs: its name, what it was and what it is."""
    return [
        f"{name}: {_shown(name, before)} → {_shown(name, now)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The variables of files whose content has changed since the start."""
    return [name for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]


def _shown(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        return "not set"
    return "(a secret)" if _SECRET.search(name) else repr(values[name])


def _content(path: Path) -> str:
    try:
        return _digest(path.read_bytes())
    except OSError:
        return ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
