"""Opens a diffusers pipeline for the engines that run in this process: safetensors only, no remote code, no prompts in
any library's log. Imports torch and diffusers when called, so that an engine that is only built stays light.
"""

import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from worker.engines.devices import Device
from worker.engines.errors import LoadFailed
from worker.engines.model_folder import INDEX, ModelFolder, as_libraries_expect, examine
from worker.engines.quiet import one_line, quiet_libraries
from worker.engines.weight_files import weights_in

STEP_LEVEL_CLASSES: Final = ("StableDiffusionPipeline",)
"""Pipelines that the engine `latent` takes apart."""

_CONFIG_FOLDER = (
    "a folder of its family in diffusers' format, the weights left out (model_index.json, configurations, tokenizers), "
    "or convert the file with diffusers' from_single_file and save_pretrained"
)
_WRONG_FILE = "half a file, or one of another model; download it again"


def open_pipeline(
    source: str, revision: str, wish: Device, *, config: str = "", classes: Collection[str] = ()
) -> tuple[Any, str]:
    """The pipeline on its device, and that device. Raises LoadFailed, whose text is one line that says what to do.

    `source` is a folder in diffusers' format, one safetensors file with `config` (a folder of its family's
    configuration and tokenizers), or a hub id. `classes` bounds which pipelines are opened; empty is any.
    """
    try:
        device = wish.open()
        with quiet_libraries() as missing:
            pipeline = _open(source, revision, config, wish.torch_dtype(), classes)
        _require_whole(pipeline, missing)
        pipeline.to(device)
    except LoadFailed:
        raise
    except Exception as error:  # the libraries raise anything: AttributeError for an unknown class, SafetensorError, …
        raise LoadFailed(f"{_what(source)} {source}: {one_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, device


def revision_of(source: str, revision: str) -> str:
    """Identifies the weights: the pinned revision, or else a digest of the local folder."""
    return revision or _folder_revision(Path(source))


def _open(source: str, revision: str, config: str, dtype: Any, classes: Collection[str]) -> Any:
    import diffusers  # noqa: PLC0415  (heavy)

    path = Path(source)
    if path.is_file():
        return _open_file(path, config, dtype, classes)
    if not path.is_dir():
        index = diffusers.DiffusionPipeline.load_config(source, revision=revision)
        _require_class(index.get("_class_name"), index, classes)
        without: dict[str, Any] = {"safety_checker": None} if "safety_checker" in index else {}
        return diffusers.DiffusionPipeline.from_pretrained(
            source, revision=revision, **_loading(dtype), **without, **_unchecked(index)
        )
    folder = examine(path)
    require_classes(folder, classes)
    with as_libraries_expect(folder) as view:
        return diffusers.DiffusionPipeline.from_pretrained(
            str(view), local_files_only=True, **_loading(dtype), **_unchecked(folder.index)
        )


def _open_file(path: Path, config: str, dtype: Any, classes: Collection[str]) -> Any:
    import diffusers  # noqa: PLC0415  (heavy)

    if not config:
        raise LoadFailed(f"{path} is a single file: set config to {_CONFIG_FOLDER}")
    weights_in(path)
    family = examine(Path(config), weights=False)
    kind = require_classes(family, classes)
    if not hasattr(kind, "from_single_file"):
        raise LoadFailed(f"{path}: a {family.kind} cannot be loaded from a single file; use its folder")
    try:
        with as_libraries_expect(family) as view:
            return kind.from_single_file(str(path), config=str(view), local_files_only=True, torch_dtype=dtype)
    except diffusers.loaders.single_file_utils.SingleFileComponentError as error:
        raise LoadFailed(f"{path} lacks a part that a {family.kind} needs: {one_line(error)}") from error


def _loading(dtype: Any) -> dict[str, Any]:
    return {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}


def _unchecked(index: Mapping[str, Any]) -> dict[str, Any]:
    return {"requires_safety_checker": False} if "requires_safety_checker" in index else {}


def _require_class(kind: Any, index: Mapping[str, Any], classes: Collection[str]) -> Any:
    """The pipeline's class. Raises LoadFailed for one that the library does not have, or the engine does not run."""
    import diffusers  # noqa: PLC0415  (heavy)

    if classes and kind not in classes:
        raise LoadFailed(f'the model is a {kind}; this engine runs {", ".join(classes)}: use engine = "pipeline"')
    found = getattr(diffusers, kind, None) if isinstance(kind, str) else None
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        saved = index.get("_diffusers_version", "an unknown version")
        raise LoadFailed(
            f"{INDEX} names the class {kind!r}, which diffusers {diffusers.__version__} does not have "
            f"(the model was saved by {saved}): install a version that has it, or use another model"
        )
    return found


def require_classes(folder: ModelFolder, classes: Collection[str] = ()) -> Any:
    """The pipeline's class. Raises LoadFailed if the installed libraries lack its class or the class of one of its
    parts, or if it is none of `classes`. Runs no code that comes with the model.
    """
    import diffusers  # noqa: PLC0415  (heavy)
    import transformers  # noqa: PLC0415  (heavy)

    found = _require_class(folder.kind, folder.index, classes)
    libraries = {"diffusers": diffusers, "transformers": transformers}
    for part in folder.parts.values():
        library = libraries.get(part.library) or getattr(diffusers.pipelines, part.library, None)
        if library is None:
            raise LoadFailed(
                f"{INDEX}: {part.name} is a {part.kind} of {part.library}, neither of diffusers nor of transformers; "
                "code that comes with a model is not run"
            )
        if not hasattr(library, part.kind):
            version = getattr(library, "__version__", diffusers.__version__)
            raise LoadFailed(
                f"{INDEX}: {part.name} is a {part.kind}, which {part.library} {version} does not have: "
                "install a version that has it, or use another model"
            )
    return found


def _require_whole(pipeline: Any, missing: Mapping[str, Sequence[str]]) -> None:
    """Raises LoadFailed for a part whose file lacked weights: diffusers leaves those without data (on `meta`),
    transformers draws them at random and says so only in its log.
    """
    for kind, names in missing.items():
        raise LoadFailed(f"the weights of {kind} lack {len(names)} tensors ({names[0]}, …): {_WRONG_FILE}")
    for name, part in pipeline.components.items():
        for tensor, value in part.named_parameters() if hasattr(part, "named_parameters") else ():
            if value.is_meta:
                raise LoadFailed(f"the weights of {name} lack the tensor {tensor}: {_WRONG_FILE}")


def _what(source: str) -> str:
    if Path(source).is_dir():
        return "folder"
    return "file" if Path(source).is_file() else "hub id (not in the cache, and the hub unreachable?)"


def _folder_revision(folder: Path) -> str:
    """A digest of all names and sizes and of the content of files under 1 MB; `folder` may be a single file."""
    digest = blake2b(digest_size=8)
    for file in [folder] if folder.is_file() else sorted(each for each in folder.rglob("*") if each.is_file()):
        size = file.stat().st_size
        digest.update(json.dumps([str(file.relative_to(folder)), size]).encode())
        if size < 1_000_000:
            digest.update(file.read_bytes())
    return f"folder:{digest.hexdigest()}"
