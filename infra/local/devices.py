"""Which GPU each local worker gets, and how many CPU threads: one process owns one device."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from infra.lifecycle import ConfigError
from infra.models import ModelEntry

VARIABLE = "DARKROOM_LOCAL_DEVICES"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREADS = "DARKROOM_WORKER_TORCH_THREADS"
_LIST_S = 10.0
_DEVICE = re.compile(r"[0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+")


def of_workers(environ: Mapping[str, str], workers: int, models: Sequence[ModelEntry]) -> list[dict[str, str]]:
    """The variables to add to each worker's environment. Raises ConfigError for malformed `DARKROOM_LOCAL_DEVICES`.

    The devices of `DARKROOM_LOCAL_DEVICES` (such as `0,1`), else of `CUDA_VISIBLE_DEVICES`, else all that nvidia-smi
    lists, are assigned in turn. If `DARKROOM_LOCAL_DEVICES` is not set, nothing is assigned to a single worker, nor to
    any worker if the models file puts a model on a numbered GPU such as `cuda:1`.
    """
    named = _named(environ)
    if workers == 1 and not named:
        return [{}]
    if not named and any(":" in entry.device for entry in models):
        return [{} for _ in range(workers)]
    devices = named or (_visible(environ) if _VISIBLE in environ else _listed())
    share = [{_VISIBLE: devices[number % len(devices)]} if devices else {} for number in range(workers)]
    if workers == 1 or devices or environ.get(_THREADS):
        return share
    threads = max(1, (os.cpu_count() or 2) // 2 // workers)  # all of them together use half of the cores, as one does
    return [{_THREADS: str(threads)} for _ in range(workers)]


def _named(environ: Mapping[str, str]) -> Sequence[str]:
    text = environ.get(VARIABLE, "").strip()
    devices = [each.strip() for each in text.split(",")] if text else []
    for each in devices:
        if not _DEVICE.fullmatch(each):
            raise ConfigError(
                f"{VARIABLE} must be devices as CUDA numbers or names them, such as 0,1: {each!r} is none"
            )
    return devices


def _visible(environ: Mapping[str, str]) -> Sequence[str]:
    return [each.strip() for each in environ.get(_VISIBLE, "").split(",") if each.strip() not in {"", "-1"}]


def _listed() -> Sequence[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_LIST_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdecimal()]
