"""A model's folder in diffusers' format, examined before a library opens it: which parts it has, which files of weights
they are loaded from, and what is wrong with it. Reads file names, JSON and the heads of weight files; imports no model
library, so that a broken folder costs milliseconds and its message names the file.
"""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from worker.engines.errors import LoadFailed
from worker.engines.weight_files import Weights, read_json, weights_in

INDEX: Final = "model_index.json"
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(?:\.(?P<variant>[A-Za-z0-9_]+))?"
    r"(?P<shard>-\d{5}-of-\d{5})?\.safetensors(?P<index>\.index(?:\.(?P<indexed>[A-Za-z0-9_]+))?\.json)?"
)
_TRY_FIRST: Final = ("", "fp16", "bf16")
"""The order of preference among variants; files without a variant's name are the model's default."""

_WITHOUT_WEIGHTS = (
    "Scheduler",
    "Tokenizer",
    "TokenizerFast",
    "Processor",
    "ProcessorFast",
    "ProcessorPil",
    "Extractor",
)
_VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "spiece.model", "sentencepiece.bpe.model"),
    *("tokenizer.model", "qwen.tiktoken", "vocab.tiktoken"),
)
LEFT_OUT: Final = frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"})
"""Parts that text-to-image does without, so that a folder may lack them; the safety checker is never loaded."""
_T5 = frozenset({"text_encoder_3", "tokenizer_3"})
"""Optional parts of Stable Diffusion 3: without them diffusers uses zeros for their embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a pipeline. `library` and `kind` name its class; `weights` are its weight files; `renames` maps the
    names that libraries look for to the files of the chosen variant.
    """

    name: str
    library: str
    kind: str
    weights: Sequence[Path] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    holds: Weights = field(default_factory=Weights)
    variant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A folder that can be loaded, as far as its files tell. `left_out`: optional parts that it lists and lacks."""

    path: Path
    kind: str
    index: Mapping[str, Any]
    parts: Mapping[str, Part]
    left_out: frozenset[str]

    @property
    def holds(self) -> Weights:
        """Parameters and bytes of all weights that are loaded."""
        return total([part.holds for part in self.parts.values()])


def examine(path: Path, *, weights: bool = True) -> ModelFolder:
    """The folder's parts. Raises LoadFailed, whose text is one line that names the file and says what to do.

    `weights`: whether the folder must hold weights; the configuration folder of a single weight file need not.
    """
    if not path.is_dir():
        raise LoadFailed(f"{path} is no folder")
    if not (path / INDEX).is_file():
        raise LoadFailed(f"{path} holds no {INDEX}{_instead(path)}")
    index = read_json(path / INDEX)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not kind.isidentifier():
        raise LoadFailed(f"{path / INDEX}: _class_name is {kind!r}, and must be the name of a pipeline's class")
    listed = {name: value for name, value in index.items() if not name.startswith("_") and _is_part(value)}
    droppable = LEFT_OUT | (_T5 if kind.startswith("StableDiffusion3") and set(listed) >= _T5 else frozenset())
    absent = {name for name in listed if not (path / name).is_dir()}
    for name in sorted(absent - droppable):
        raise LoadFailed(f"{path / name} is missing: {INDEX} lists {name} ({listed[name][1]}); download it again")
    parts = {
        name: _part(path / name, name, *value, weights=weights)
        for name, value in listed.items()
        if name not in absent and name != "safety_checker"
    }
    return ModelFolder(path=path, kind=kind, index=index, parts=parts, left_out=frozenset(absent))


@contextlib.contextmanager
def as_libraries_expect(folder: ModelFolder) -> Iterator[Path]:
    """A temporary folder of links to the files under the names that libraries look for, with an index of the parts that
    are present; it is removed at the end of the block.

    diffusers' own `variant` option applies to all parts at once and fails on a file without a dot (LICENSE) in a part's
    folder. A part that the index lists is loaded even if the caller passes None for it (image_encoder).
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-model-") as made:
        view = Path(made)
        lacking = {name: [None, None] for name in folder.left_out | ({"safety_checker"} & set(folder.index))}
        (view / INDEX).write_text(json.dumps({**folder.index, **lacking}))
        for part in folder.parts.values():
            _link(folder.path / part.name, view / part.name, part)
        yield view


def total(all_of: Sequence[Weights]) -> Weights:
    """The sum of several."""
    return Weights(
        parameters=sum(each.parameters for each in all_of), size_bytes=sum(each.size_bytes for each in all_of)
    )


def _link(source: Path, target: Path, part: Part) -> None:
    target.mkdir()
    taken = {file.name for file in part.weights} - set(part.renames.values())
    for file in source.iterdir():
        if not _WEIGHTS.fullmatch(file.name) or file.name in taken:
            (target / file.name).symlink_to(file.absolute())
    for name, of in part.renames.items():
        (target / name).symlink_to((source / of).absolute())


def _part(folder: Path, name: str, library: str, kind: str, *, weights: bool) -> Part:
    for config in ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / config).exists():
            read_json(folder / config)
    if kind.endswith("Scheduler"):
        _require(folder / "scheduler_config.json")
    elif "Tokenizer" in kind:
        if not any((folder / each).is_file() for each in _VOCABULARIES):
            raise LoadFailed(f"{folder} holds no vocabulary ({', '.join(_VOCABULARIES[:3])} or spiece.model)")
    elif not kind.endswith(_WITHOUT_WEIGHTS):
        _require(folder / "config.json")
        if weights:
            return _weighted(folder, name, library, kind)
    return Part(name=name, library=library, kind=kind)


def _weighted(folder: Path, name: str, library: str, kind: str) -> Part:
    found: dict[str, list[re.Match[str]]] = {}
    for file in sorted(folder.iterdir()):
        match = _WEIGHTS.fullmatch(file.name)
        if match:
            found.setdefault(match["indexed"] or match["variant"] or "", []).append(match)
    if not found:
        raise LoadFailed(f"{folder} {_without_weights(folder)}")
    variant = next((each for each in _TRY_FIRST if each in found), "") if set(found) & {*_TRY_FIRST} else min(found)
    whole = next((match.string for match in found[variant] if not match["shard"] and not match["index"]), None)
    index = next((match.string for match in found[variant] if match["index"]), None)
    if whole is not None:
        names, chief = [whole], whole
    elif index is not None:
        names, chief = _shards(folder / index), index
    else:
        raise LoadFailed(f"{folder}: {found[variant][0].string} is one of several, and their index is missing")
    return Part(
        name=name,
        library=library,
        kind=kind,
        weights=[folder / each for each in names],
        renames={_plain(chief): chief},
        holds=total([weights_in(folder / each) for each in names]),
        variant=variant,
    )


def _shards(index: Path) -> list[str]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(_is_name(each) for each in names.values()):
        raise LoadFailed(f"{index} lists no files: download it again")
    shards = sorted(set(names.values()))
    for shard in shards:
        _require(index.with_name(shard))
    return shards


def _is_name(value: object) -> bool:
    return isinstance(value, str) and Path(value).name == value


def _plain(name: str) -> str:
    match = _WEIGHTS.fullmatch(name)
    assert match is not None  # noqa: S101  (it was found by that)
    return f"{match['stem']}.safetensors" + (".index.json" if match["index"] else "")


def _is_part(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _require(path: Path) -> None:
    if not path.is_file():
        raise LoadFailed(f"{path} is missing: download it again")


def _without_weights(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    for name in files:
        if name.endswith((".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5")):
            return f"has weights in {name} only; darkroom loads safetensors: convert them with save_pretrained"
        if name.endswith((".incomplete", ".part", ".crdownload", ".tmp")):
            return f"holds an unfinished download ({name}): download it again"
        if name.endswith(".safetensors"):
            return f"has weights in {name}, which no library looks for: rename it as in the model's repository"
    return "holds no weights (*.safetensors): download them"


def _instead(path: Path) -> str:
    """The end of the error text: what the folder seems to be instead, and what to do."""
    found = sorted(path.glob(f"*/{INDEX}")) + sorted(path.glob(f"snapshots/*/{INDEX}"))
    if found:
        return f"; {found[0].parent} does: set source to it"
    if (path / "config.json").is_file():
        return ": it is one part of a pipeline; set source to the folder above, or download the whole pipeline"
    files = sorted(path.glob("*.safetensors"))
    if files:
        return f'; for a single file set source = "{files[0]}" and config to a folder of its family\'s configuration'
    return ": it is not in diffusers' format; download the whole repository, or convert it"
