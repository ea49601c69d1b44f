"""Finds what is wrong with a weight or configuration file from its first bytes and its length: a git-lfs pointer, half
a download, a web page, a pickle. Only reads; called before any library opens the file.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from worker.engines.errors import LoadFailed

_LFS: Final = b"version https://git-lfs.github.com/spec/"
_MAX_HEADER_BYTES: Final = 100_000_000
"""What safetensors itself accepts."""

_PULL = "run `git lfs pull` in the folder, or download the file itself"
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The number of parameters and the bytes of tensor data in one weight file, or in several."""

    parameters: int = 0
    size_bytes: int = 0


def read_json(path: Path) -> dict[str, Any]:
    """The object in a configuration file. Raises LoadFailed that names the file and what is wrong with it."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LoadFailed(f"{path}: {error.strerror or type(error).__name__}") from None
    if raw.startswith(_LFS):
        raise LoadFailed(f"{path} is a git-lfs pointer, not the file: {_PULL}")
    if not raw.strip():
        raise LoadFailed(f"{path} is empty: download it again")
    try:
        found = json.loads(raw)
    except ValueError:
        kind = "is a web page, not the file" if _is_page(raw) else "is not valid JSON"
        raise LoadFailed(f"{path} {kind}: download it again") from None
    if not isinstance(found, dict):
        raise LoadFailed(f"{path} holds no JSON object: download it again")
    return found


def weights_in(path: Path) -> Weights:
    """What a complete safetensors file holds. Raises LoadFailed, which names the file and what is wrong with it.

    https://huggingface.co/docs/safetensors: 8 bytes of length, then JSON with type, shape and offsets of each tensor.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            raw = file.read(length) if 2 <= length <= min(size - 8, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise LoadFailed(f"{path}: {error.strerror or type(error).__name__}") from None
    problem = _problem(start, size, length)
    if problem:
        raise LoadFailed(f"{path} {problem}")
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        held = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        parameters = sum(prod(entry["shape"]) for entry in tensors.values())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise LoadFailed(f"{path} is no safetensors file: download or convert it again") from None
    if size != 8 + length + held:
        state = "is cut off" if size < 8 + length + held else "is longer than its header says"
        raise LoadFailed(f"{path} {state} ({size:,} of {8 + length + held:,} bytes): download it again")
    return Weights(parameters=parameters, size_bytes=held)


def _problem(start: bytes, size: int, length: int) -> str:
    if start.startswith(_LFS):
        return f"is a git-lfs pointer, not the weights: {_PULL}"
    if size == 0:
        return "is empty: download it again"
    if _is_page(start):
        return "is a web page, not the weights (a download that needs a login?): download it again"
    if start.startswith(b"GGUF"):
        return "is a GGUF file; darkroom loads safetensors only"
    if start.startswith(_PICKLES):
        return "is a pickle, not safetensors: convert it with diffusers' convert scripts or save_pretrained"
    if start[8:9] == b"{" and 2 <= length <= _MAX_HEADER_BYTES and length > size - 8:
        return f"is cut off ({size:,} bytes, its header alone has {length:,}): download it again"
    if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
        return "is no safetensors file: download or convert it again"
    return ""


def _is_page(start: bytes) -> bool:
    return start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml"))
