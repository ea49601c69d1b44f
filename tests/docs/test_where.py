"""docs/where.md: each behaviour's module and function exist. The paths to behaviours in decision 70 can be walked."""

import ast
import re
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest

from tests.docs.blocks import ROOT

_ROW = re.compile(r"^\| ([^|]+) \| `([^`|]+\.py)` \| `([^`|]+)` \|$", re.MULTILINE)
WHERE = (ROOT / "docs/where.md").read_text("utf-8")
ROWS: list[tuple[str, str, str]] = _ROW.findall(WHERE)
_PATH = re.compile(r"^\| ([^|]+) \| (`[^|]+` → `[^|]+`) \|$", re.MULTILINE)
PATHS: list[tuple[str, list[str]]] = [
    (behaviour, re.findall(r"`([^`]+)`", steps))
    for behaviour, steps in _PATH.findall((ROOT / "docs/decisions/house.md").read_text("utf-8"))
]


@cache
def defined(module: str) -> frozenset[str]:
    """The functions and classes of a module, and the methods and properties of its classes as `Class.method`."""
    found = set()
    for node in ast.parse((ROOT / module).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
    return frozenset(found)


@pytest.mark.parametrize(("module", "function"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_module_and_function_exist(module: str, function: str) -> None:
    assert (ROOT / module).is_file(), f"{module} has moved"
    assert function in defined(module), f"{module} defines no {function}"


def test_each_row_is_read_and_each_behaviour_has_one() -> None:
    assert len(ROWS) >= 30
    assert len(ROWS) == sum("`" in line for line in WHERE.splitlines() if line.startswith("| "))
    assert not [behaviour for behaviour, count in Counter(row[0] for row in ROWS).items() if count > 1]


@pytest.mark.parametrize(
    ("function", "there"),
    [("test_module_and_function_exist", True), ("test_nothing", False), ("Nobody.defined", False)],
)
def test_a_function_that_is_gone_is_noticed(function: str, there: bool) -> None:
    assert (function in defined("tests/docs/test_where.py")) is there


@pytest.mark.parametrize(("behaviour", "steps"), PATHS, ids=[path[0] for path in PATHS])
def test_a_path_can_be_walked(behaviour: str, steps: list[str]) -> None:
    """Each text names the next, by its path or as a link; from the README it takes two steps at most."""
    assert steps[0] == "README.md"
    assert 1 < len(steps) <= 3
    for here, there in pairwise(steps):
        assert there in (ROOT / here).read_text("utf-8"), f"{here} does not name {there}"
        assert (ROOT / there).is_file()


def test_ten_behaviours_have_a_path() -> None:
    assert len({behaviour for behaviour, _ in PATHS}) >= 10
