"""Measures of the code base: sizes of folders, modules, functions and constructors, import circles, private uses.

`python -m tests.house [--json] [--root FOLDER]` prints them for the services and what they share, without generated
code; `tests/test_house.py` has their bounds. Everything is read from the syntax trees and nothing is imported, so that
a checkout of any commit can be measured.
"""

import argparse
import ast
import io
import json
import statistics
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOPS = ("gateway", "core", "worker", "schema", "infra")
SERVICES = ("gateway", "core", "worker")
MAX_ARGUMENTS = 7
MAX_FUNCTION = 40
MAX_MODULE = 300
DOCUMENTED = frozenset({"_asdict", "_replace", "_make", "_fields", "_exit", "_getframe"})
"""Names with an underscore that the standard library documents for use."""
ADAPTERS = "_private.py"
"""Suffix of modules that may use a library's private names; each has a test that fails when the library changes."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a module, as `core/log/append.py:12 name`."""

    module: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.name}"


@dataclass(frozen=True)
class Module:
    """One file of the tree, read once."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The measures of one tree. Lists name what is over a bound, so that it can be found."""

    modules: int
    lines: int
    files_per_folder: dict[str, int]
    functions: int
    function_median: float
    functions_over_40: float
    """Share of functions over 40 lines, in percent."""
    constructors: int
    constructor_arguments_max: int
    constructors_over_7: list[str]
    duplicate_classes: list[str]
    comment_share: float
    """Share of lines that are or end in a comment, in percent."""
    import_circles: list[str]
    private_attributes: list[str]
    modules_over_300: list[str]


def read(root: Path, tops: Iterable[str] = TOPS) -> list[Module]:
    paths = [path.relative_to(root) for top in tops for path in sorted((root / top).rglob("*.py"))]
    return [Module(str(path), (root / path).read_text("utf-8")) for path in paths if "gen" not in path.parts]


def functions(module: Module) -> Iterator[Function]:
    return (node for node in ast.walk(module.tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from `def` to the end, decorators not counted."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def constructors(module: Module) -> Iterator[tuple[Place, int]]:
    """Each written `__init__` with the number of its arguments, self not counted. Dataclasses write none."""
    for owner in ast.walk(module.tree):
        if isinstance(owner, ast.ClassDef):
            for each in owner.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    taken = each.args
                    count = len(taken.posonlyargs) + len(taken.args) + len(taken.kwonlyargs) - 1
                    yield Place(module.path, each.lineno, owner.name), count


def duplicate_classes(modules: Iterable[Module]) -> list[str]:
    """Public class names that two modules of one service define."""
    homes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module in modules:
        top = module.path.partition("/")[0]
        for node in module.tree.body:
            if top in SERVICES and isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[top, node.name].append(module.path)
    return [f"{name}: {', '.join(paths)}" for (_, name), paths in sorted(homes.items()) if len(paths) > 1]


def comment_lines(module: Module) -> int:
    """Lines with a comment for a reader; directives to linters (noqa, type: ignore) do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    comments = (token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)
    return sum(not comment.startswith(("noqa", "type:", "pragma", "!")) for comment in comments)


def imported(module: Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def import_circles(modules: Iterable[Module]) -> list[str]:
    """Groups of modules that import each other in a circle."""
    ours = {module.name: module for module in modules}

    def target(name: str) -> str:
        return name if name in ours else name.rpartition(".")[0]

    arrows = {name: {target(each) for each, _ in imported(module)} & ours.keys() for name, module in ours.items()}
    reached = {name: _reached(arrows, name) for name in arrows}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in arrows}
    return [" <> ".join(group) for group in sorted(groups) if group]


def _reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows[waiting.pop()] - seen
        seen |= new
        waiting.extend(new)
    return seen


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != "" and name not in DOCUMENTED


def _private_uses(module: Module) -> Iterator[tuple[ast.expr, ast.expr, str]]:
    """Each private attribute with its owner, written as `x._name` or as getattr(x, "_name")."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=owner, attr=name) if _is_private(name):
                yield node, owner, name
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[owner, ast.Constant(value=str(name)), *_],
            ) if _is_private(name):
                yield node, owner, name
            case _:
                pass


def _defined(module: Module) -> Iterator[str]:
    """Every name that a module defines: functions, classes, variables, attributes of self."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.attr


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_attributes(modules: Iterable[Module]) -> list[Place]:
    """Uses of a library's private names, and imports of them.

    A private name on `self`, which may be inherited, is a library's if no module of ours defines it. A private name on
    another object is a library's if the module that uses it does not define it.
    """
    modules = list(modules)
    defined = {module.path: frozenset(_defined(module)) for module in modules}
    ours = frozenset[str]().union(*defined.values())
    found = []
    for module in modules:
        for node, owner, name in _private_uses(module):
            if name not in (ours if _is_self(owner) else defined[module.path]):
                found.append(Place(module.path, node.lineno, name))
        for path, line in imported(module):
            top, *rest = path.split(".")
            if top not in (*TOPS, "__future__") and any(map(_is_private, rest)):
                found.append(Place(module.path, line, path))
    return sorted(found, key=lambda place: (place.module, place.line))


def measure(modules: list[Module]) -> Figures:
    lengths = [length(each) for module in modules for each in functions(module)]
    built = [each for module in modules for each in constructors(module)]
    lines = sum(module.lines for module in modules)
    return Figures(
        modules=len(modules),
        lines=lines,
        files_per_folder=dict(sorted(Counter(module.folder for module in modules).items())),
        functions=len(lengths),
        function_median=statistics.median(lengths),
        functions_over_40=round(100 * sum(each > MAX_FUNCTION for each in lengths) / len(lengths), 2),
        constructors=len(built),
        constructor_arguments_max=max(count for _, count in built),
        constructors_over_7=[f"{place} {count}" for place, count in built if count > MAX_ARGUMENTS],
        duplicate_classes=duplicate_classes(modules),
        comment_share=round(100 * sum(map(comment_lines, modules)) / lines, 2),
        import_circles=import_circles(modules),
        private_attributes=[str(each) for each in private_attributes(modules) if not each.module.endswith(ADAPTERS)],
        modules_over_300=[f"{module.path} {module.lines}" for module in modules if module.lines > MAX_MODULE],
    )


def report(figures: Figures) -> Iterator[str]:
    for name, value in asdict(figures).items():
        if isinstance(value, list):
            yield f"{name}: {len(value)}"
            yield from (f"    {each}" for each in value)
        elif isinstance(value, dict):
            largest = sorted(value.items(), key=lambda item: -item[1])[:5]
            yield f"{name}: {len(value)} folders; " + ", ".join(f"{folder} {count}" for folder, count in largest)
        else:
            yield f"{name}: {value}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.house", description="Figures of the house.")
    parser.add_argument("--json", action="store_true", help="print JSON, with every folder")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to measure")
    arguments = parser.parse_args()
    figures = measure(read(arguments.root))
    print(json.dumps(asdict(figures), indent=2) if arguments.json else "\n".join(report(figures)))


if __name__ == "__main__":
    main()
