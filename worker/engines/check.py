"""Reports what a model of the models file is and whether it can be loaded: from its files alone, which takes a moment,
or by loading it. `python -m worker models check` prints the report.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.engines.contract import Engine
from worker.engines.errors import EngineError, LoadFailed
from worker.engines.factory import ModelEntry
from worker.engines.loading import STEP_LEVEL_CLASSES, require_classes
from worker.engines.model_folder import examine
from worker.engines.pipeline.capabilities import ModelFacts, inspect
from worker.engines.quiet import one_line, quiet_libraries
from worker.engines.weight_files import Weights, weights_in

_BYTES_EACH: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The report on one model. `problem`: one line on why it cannot be served, empty if none was found. `lines`: pairs
    of a name and a value.
    """

    problem: str = ""
    lines: tuple[tuple[str, str], ...] = ()


def check(entry: ModelEntry, *, engine: Callable[[], Engine] | None = None) -> Checked:
    """Examine the entry's files; with `engine`, which builds the engine, also load the model.

    A bad model raises nothing: it is reported in `problem`.
    """
    found = Checked()
    if entry.in_process in {"pipeline", "latent"}:
        found = _of_files(entry)
    elif engine is None:
        word = "not known without --load" if entry.engine == "http" else "needs no files"
        found = Checked(lines=(("loadable", word),))
    if found.problem or engine is None:
        return found
    try:
        return Checked(lines=(*(each for each in found.lines if each[0] != "loadable"), _loaded(engine())))
    except EngineError as error:
        return Checked(problem=str(error) or type(error).__name__, lines=found.lines)
    except Exception as error:  # noqa: BLE001  (whatever a model's files make its library raise)
        return Checked(problem=one_line(error), lines=found.lines)


def _of_files(entry: ModelEntry) -> Checked:
    facts = inspect(entry.source, entry.config)
    try:
        kind, holds, files = _examined(entry)
        lines = (("class", kind), ("files", files), ("memory", _memory(holds, entry.dtype)), *_abilities(facts))
        problem = facts.problem if facts is not None else ""
    except LoadFailed as error:
        return Checked(problem=str(error))
    if problem:
        return Checked(problem=problem, lines=lines)
    return Checked(lines=(*lines, ("loadable", "nothing speaks against it (--load tries it)")))


def _examined(entry: ModelEntry) -> tuple[str, Weights, str]:
    """Class, weights and files. Raises LoadFailed."""
    source = Path(entry.source)
    if source.is_file():
        holds = weights_in(source)
        folder = examine(Path(entry.config), weights=False)
        files = f"{source}, configuration in {entry.config}"
    elif source.is_dir():
        folder = examine(source)
        holds = folder.holds
        variants = sorted({part.variant for part in folder.parts.values() if part.variant})
        files = f"{source}: {', '.join(folder.parts)}"
        files += f"; {' and '.join(variants)} weights" if variants else ""
        files += f"; without {', '.join(sorted(folder.left_out))}" if folder.left_out else ""
    else:
        return "not known before it is loaded", Weights(), f"hub id {entry.source} at {entry.revision}"
    with quiet_libraries():
        require_classes(folder, STEP_LEVEL_CLASSES if entry.in_process == "latent" else ())
    return folder.kind, holds, files


def _memory(holds: Weights, dtype: str) -> str:
    if not holds.parameters:
        return "not known"
    need = holds.parameters * _BYTES_EACH[dtype]
    return f"{_amount(need)} of weights as {dtype} ({holds.parameters:,} parameters), and what pictures take"


def _abilities(facts: ModelFacts | None) -> Iterator[tuple[str, str]]:
    if facts is None:
        return
    factor = facts.size_factor
    yield "sizes", f"multiples of {factor} pixels are rendered as asked, others cut" if factor else "not known"
    guided = {"cfg": "a second pass", "true": "a second pass", "embedded": "a number that the model takes in"}
    above = f" above {facts.guidance_off:g}" if facts.guidance in {"cfg", "true"} and facts.guidance_off >= 0 else ""
    yield "guidance", f"{facts.guidance}: {guided[facts.guidance]}{above}" if facts.guidance in guided else "none"
    yield "negative prompt", "yes" if facts.negative_prompt else "no"
    yield "schedulers", ", ".join(facts.schedulers) or "its own only"
    if facts.max_steps:
        yield "steps", f"at most {facts.max_steps}"


def _loaded(engine: Engine) -> tuple[str, str]:
    began = time.perf_counter()
    engine.load()
    took = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
    device = engine.facts.device
    engine.unload()
    return "loadable", f"loaded in {took:.1f} s on {device or 'its server'} (this process at most {_amount(memory)})"


def _amount(size: float) -> str:
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
