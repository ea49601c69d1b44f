"""What a pipeline class of diffusers takes, read from its source: no torch, no weights, no import of diffusers.

The signature of `__call__` does not say at which guidance value the second pass ends or whether latents are packed;
the text of the class does, and it is the same text whether the model is loaded or not.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_PACKED: Final = re.compile(
    r"Image(?:To)?Processor\(\s*vae_scale_factor\s*=\s*self\.vae_scale_factor \* (2|self\.patch_size)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineClass:
    """What the source of a class says. `parameters`: those of `__call__`, with their defaults where those are literals
    (None otherwise). `required`: those without a default. `off`: the largest guidance value without a second pass; None
    if the class compares the value with nothing. `unguided`: the class never makes a second pass. `distillable`: it
    makes none if its config sets `is_distilled`. `packed`: it packs latents two by two. `own_sigmas`: it computes its
    scheduler's sigmas itself. `one_prompt`: it takes no list of prompts.
    """

    name: str
    parameters: Mapping[str, Any]
    required: tuple[str, ...]
    off: float | None
    unguided: bool
    distillable: bool
    packed: bool
    own_sigmas: bool
    one_prompt: bool


@lru_cache(maxsize=64)
def of_name(name: str) -> PipelineClass | None:
    """The class of that name in the installed diffusers; None without one, or if it cannot be called."""
    if not name.isidentifier():
        return None
    lineage = list(_lineage(name))
    call = next((found for each in lineage if (found := _method(each[0], "__call__"))), None)
    return _described(name, call, lineage) if call is not None else None


def _described(name: str, call: ast.FunctionDef, lineage: Sequence[tuple[ast.ClassDef, str]]) -> PipelineClass:
    arguments = [*call.args.posonlyargs, *call.args.args, *call.args.kwonlyargs]
    defaults = _defaults(call)
    names = [each.arg for each in arguments if each.arg != "self"]
    guided = next((found for each in lineage if (found := _method(each[0], "do_classifier_free_guidance"))), None)
    prompt = next((each.annotation for each in arguments if each.arg == "prompt"), None)
    return PipelineClass(
        name=name,
        parameters={each: _literal(defaults.get(each)) for each in names},
        required=tuple(each for each in names if each not in defaults),
        off=_off_point(guided) if guided is not None else _off_point(call),
        unguided=guided is not None and ast.unparse(guided.body[-1]) == "return False",
        distillable=guided is not None and "is_distilled" in ast.unparse(guided),
        packed=any(_PACKED.search(text) for _, text in lineage),
        own_sigmas=any(_assigns(each, "sigmas") for each in ast.walk(call)),
        one_prompt=prompt is not None and "list" not in ast.unparse(prompt).lower(),
    )


def _lineage(name: str) -> Iterator[tuple[ast.ClassDef, str]]:
    """The class and those of its bases that diffusers' pipelines define, nearest first, each with its text."""
    waiting, seen = [name], set()
    while waiting:
        current = waiting.pop(0)
        found = None if current in seen else _definition(current)
        seen.add(current)
        if found is not None:
            yield found
            waiting.extend(base.id for base in found[0].bases if isinstance(base, ast.Name))


@lru_cache(maxsize=256)
def _definition(name: str) -> tuple[ast.ClassDef, str] | None:
    for path in _files():
        text = path.read_text("utf-8")
        if f"class {name}(" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node, ast.get_source_segment(text, node) or ""
    return None


@lru_cache(maxsize=1)
def _files() -> Sequence[Path]:
    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        return ()
    return sorted((Path(spec.origin).parent / "pipelines").rglob("*.py"))


def _method(of: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((each for each in of.body if isinstance(each, ast.FunctionDef) and each.name == name), None)


def _defaults(call: ast.FunctionDef) -> dict[str, ast.expr]:
    positional = [*call.args.posonlyargs, *call.args.args]
    with_default = positional[len(positional) - len(call.args.defaults) :]
    found = {each.arg: value for each, value in zip(with_default, call.args.defaults, strict=True)}
    for each, default in zip(call.args.kwonlyargs, call.args.kw_defaults, strict=True):
        if default is not None:
            found[each.arg] = default
    return found


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def _off_point(function: ast.FunctionDef) -> float | None:
    """The smallest X among the comparisons `guidance_scale > X`; None if there are none."""
    found = [
        float(each.comparators[0].value)
        for each in ast.walk(function)
        if isinstance(each, ast.Compare)
        and isinstance(each.ops[0], ast.Gt)
        and ast.unparse(each.left).endswith("guidance_scale")
        and isinstance(each.comparators[0], ast.Constant)
        and isinstance(each.comparators[0].value, int | float)
    ]
    return min(found, default=None)


def _assigns(node: ast.AST, name: str) -> bool:
    if not isinstance(node, ast.Assign):
        return False
    return any(isinstance(each, ast.Name) and each.id == name for each in node.targets)
