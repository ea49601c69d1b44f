"""Opens a diffusers pipeline for the engines that run in this process: safetensors only, no remote code, no prompts in
any library's log. Imports torch and diffusers when called, so that an engine that is only built stays light.
"""

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from worker.engines.devices import Device
from worker.errors import LoadFailed

SCHEDULERS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}
"""Names a request may give, and what they stand for in diffusers; empty is the model's own."""


def open_pipeline(source: str, revision: str, wish: Device, *, classes: Collection[str] = ()) -> tuple[Any, str]:
    """The pipeline on its device, and that device. Raises LoadFailed, whose text says what to do.

    `classes` bounds which pipelines are opened; empty is any.
    """
    try:
        device = wish.open()
        pipeline = _open(source, revision, wish.torch_dtype(), classes)
        pipeline.to(device)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        where = "folder" if Path(source).is_dir() else "hub id (not in the cache, and the hub unreachable?)"
        raise LoadFailed(f"{where} {source}: {type(error).__name__}: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, device


def fresh_scheduler(own: Any, name: str) -> Any:
    """A scheduler without state, of a request's wish, configured as the model's `own`."""
    if not name:
        return type(own).from_config(own.config)
    import diffusers  # noqa: PLC0415  (heavy)

    kind, options = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(own.config, **options)


def revision_of(source: str, revision: str) -> str:
    """What names the state of the weights: the pinned revision, else a digest of the local folder."""
    return revision or _folder_revision(Path(source))


def _open(source: str, revision: str, dtype: Any, classes: Collection[str]) -> Any:
    import transformers  # noqa: PLC0415  (heavy)

    # Below error level both log parts of prompts ("the following part of your input was truncated …").
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    import diffusers  # noqa: PLC0415  (heavy; and noisy if imported before that)

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    where: dict[str, Any] = {"local_files_only": True} if Path(source).is_dir() else {"revision": revision}
    index = diffusers.DiffusionPipeline.load_config(source, **where)
    kind = index.get("_class_name", "no pipeline")
    if classes and kind not in classes:
        raise LoadFailed(f'{source} is a {kind}; this engine runs {", ".join(classes)}: use engine = "pipeline"')
    without: dict[str, Any] = {"safety_checker": None} if "safety_checker" in index else {}
    if "requires_safety_checker" in index:
        without["requires_safety_checker"] = False
    return diffusers.DiffusionPipeline.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        **where,
        **without,
    )


def _folder_revision(folder: Path) -> str:
    """A digest of its small files and of the sizes of its large ones."""
    digest = blake2b(digest_size=8)
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        size = file.stat().st_size
        digest.update(json.dumps([str(file.relative_to(folder)), size]).encode())
        if size < 1_000_000:
            digest.update(file.read_bytes())
    return f"folder:{digest.hexdigest()}"
