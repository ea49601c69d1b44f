"""The models file: which models are served, from where, with which defaults and bounds.

Read by the gateway (to validate and document requests) and by the worker (to load them). The gateway runs
without the weights, so `load` checks the text only; the worker also calls `require_a_source`, engine servers
`require_sources`.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from infra.lifecycle import ConfigError
from infra.settings import is_http_address, value_error_text

_ROOT = Path(__file__).resolve().parent.parent
_IN_WORDS = {
    "name": "1 to 64 letters, digits and . _ / -, with a letter or digit first",
    "device": "auto, cpu, cuda or cuda:N",
}
"""What the fields' patterns allow, in words for error texts."""


class ModelEntry(BaseModel):
    """One model. Sizes are in pixels. `width`, `height`, `num_inference_steps` and `guidance_scale` are defaults for
    requests; the fields prefixed with `min_` and `max_` bound what a request may ask for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$", description="What clients call it")
    engine: Literal["pipeline", "latent", "emulated", "uds", "http"] = "pipeline"
    source: str = Field(
        "", description="Folder of a diffusers pipeline, one .safetensors file, or hub id; http: the server's address"
    )
    config: str = Field("", description="Single file: a folder of its family's configuration, without the weights")
    revision: str = Field("", description="Pinned commit; required for a hub id")
    width: int = Field(512, ge=64, le=2048, multiple_of=8)
    height: int = Field(512, ge=64, le=2048, multiple_of=8)
    num_inference_steps: int = Field(30, ge=1, le=150)
    guidance_scale: float = Field(5.0, ge=0, le=30)
    min_width: int = Field(64, ge=64, le=2048, multiple_of=8)
    max_width: int = Field(1024, ge=64, le=2048, multiple_of=8)
    min_height: int = Field(64, ge=64, le=2048, multiple_of=8)
    max_height: int = Field(1024, ge=64, le=2048, multiple_of=8)
    min_num_inference_steps: int = Field(1, ge=1, le=150)
    max_num_inference_steps: int = Field(150, ge=1, le=150)
    min_guidance_scale: float = Field(0.0, ge=0, le=30)
    max_guidance_scale: float = Field(30.0, ge=0, le=30)
    max_batch: int = Field(8, ge=1, le=256, description="Images in one forward pass")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N")
    step_ms: float = Field(20.0, gt=0, description="emulated: one step of a batch of one")
    alpha: float = Field(0.3, ge=0, le=1, description="emulated: t(b) = t(1)·(1-α+αb); 1: batching gains nothing")

    serves: Literal["pipeline", "latent", "emulated"] = Field("pipeline", description="uds: what its process runs")
    api: Literal["openai", "raw"] = Field(
        "openai", description="http: the OpenAI Images API, or our own server's pixels"
    )
    api_key_env: str = Field("", description="http: the environment variable that holds the server's key")
    remote_name: str = Field("", description="http: what the server calls the model; empty: the same")
    request_timeout_s: float = Field(300.0, gt=0, le=3600, description="http: limit of one picture, waiting included")

    @property
    def in_process(self) -> str:
        """The kind of engine that computes in this entry's own process; empty for http."""
        return {"uds": self.serves, "http": ""}.get(self.engine, self.engine)

    @model_validator(mode="after")
    def _consistent(self) -> "ModelEntry":
        if self.in_process in {"pipeline", "latent"} and not self.source:
            raise ValueError(f"engine {self.in_process} needs a source")
        if self.engine == "http" and not is_http_address(self.source):
            raise ValueError("engine http needs a source such as http://host:port or https://host/path")
        for name in ("width", "height", "num_inference_steps", "guidance_scale"):
            low, default, high = (getattr(self, part + name) for part in ("min_", "", "max_"))
            if not low <= default <= high:
                raise ValueError(f"{name} = {default} is not between min_{name} = {low} and max_{name} = {high}")
        return self


def load(path: Path) -> tuple[ModelEntry, ...]:
    """The models in the file, the default first, relative folders made absolute. Raises ConfigError that names the
    file, the model and the key.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"models file {path}: {error.strerror}; set DARKROOM_MODELS_FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"models file {path}: {error}") from None
    tables = document.pop("models", [])
    if document:
        raise ConfigError(f"models file {path}: {_unknown(next(iter(document)), ['models'])}; models are [[models]]")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"models file {path}: holds no [[models]] table")
    entries = tuple(_entry(path, number, table) for number, table in enumerate(tables, 1))
    twice = [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]
    if twice:
        raise ConfigError(f"models file {path}: duplicate model name {twice[0]!r}, given twice")
    return entries


def require_sources(entries: Sequence[ModelEntry]) -> None:
    """Raises ConfigError for a model whose source is no existing folder or file, and no hub id with a revision."""
    for entry in entries:
        if problem := problem_of_source(entry):
            raise ConfigError(f"model {entry.name!r}: {problem}")


def require_a_source(entries: Sequence[ModelEntry]) -> None:
    """Raises ConfigError if no model has a usable source. While one has, the others may be added later."""
    problems = {entry.name: problem_of_source(entry) for entry in entries}
    if problems and all(problems.values()):
        raise ConfigError("; ".join(f"model {name!r}: {problem}" for name, problem in problems.items()))


def problem_of_source(entry: ModelEntry) -> str:
    """What is wrong with the model's source or single-file configuration; empty if nothing is."""
    if entry.in_process not in {"pipeline", "latent"}:
        return ""
    source, config = Path(entry.source), Path(entry.config)
    if source.is_file():
        if source.suffix != ".safetensors":
            return f"{source} is not a .safetensors file; darkroom loads no pickles (.ckpt, .bin, .pt) and no GGUF"
        if not entry.config or not config.is_dir():
            return f"{source} is a single file: config must be a folder of its family's configuration and tokenizers"
    elif not source.is_dir() and not _is_hub_id(entry.source):
        return f"{source} is no folder; give a folder, a .safetensors file, or a hub id with its revision"
    elif not source.is_dir() and not entry.revision:
        return f"{entry.source} is no folder here; a hub id (organisation/name) needs revision, its pinned commit"
    return ""


def _is_hub_id(source: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None


def _entry(path: Path, number: int, table: object) -> ModelEntry:
    try:
        entry = ModelEntry.model_validate(table)
    except ValidationError as error:
        name = table.get("name") if isinstance(table, dict) else None
        which = f"model {name!r}" if isinstance(name, str) and name else f"model {number}"
        problems = "; ".join(_problem(each) for each in error.errors())
        raise ConfigError(f"models file {path}, {which}: {problems}") from None
    return entry.model_copy(update={"source": _resolve(path, entry.source), "config": _resolve(path, entry.config)})


def _problem(error: ErrorDetails) -> str:
    """What is wrong with which key, what it is, and what it may be."""
    key = ".".join(str(part) for part in error["loc"])
    if not key:
        return value_error_text(error["msg"])
    if error["type"] == "extra_forbidden":
        return _unknown(key, ModelEntry.model_fields)
    if error["type"] == "missing":
        return f"needs a {key}"
    allowed = _IN_WORDS.get(key) if error["type"] == "string_pattern_mismatch" else None
    expected = f"must be {allowed}" if allowed else value_error_text(error["msg"])
    return f"{key} = {error['input']!r}: {expected}"


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")


def _resolve(path: Path, source: str) -> str:
    """`source` as an absolute path if it exists below the current folder, the code's root or the models file's folder,
    tried in this order; else unchanged but for `~` and `~user`, which are home folders.
    """
    try:
        given = str(Path(source).expanduser()) if source.startswith("~") else source
    except RuntimeError:  # no such user
        return source
    for base in (Path.cwd(), _ROOT, path.resolve().parent):
        if given and (base / given).exists():
            return str((base / given).resolve())
    return given
