"""The code base stays within the bounds that it has reached; and the measures find what they should find."""

from functools import cache

import pytest

from tests import house
from tests.house import Figures, Module


@cache
def figures() -> Figures:
    return house.measure(house.read(house.ROOT))


def test_functions_stay_small() -> None:
    assert figures().function_median <= 6
    assert figures().functions_over_40 <= 0.4


def test_constructors_take_few_arguments() -> None:
    assert not figures().constructors_over_7, figures().constructors_over_7
    assert figures().constructor_arguments_max <= house.MAX_ARGUMENTS


def test_a_class_name_has_one_meaning_in_a_service() -> None:
    assert not figures().duplicate_classes, figures().duplicate_classes


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not figures().import_circles


def test_private_attributes_of_libraries_are_in_their_adapters() -> None:
    assert not figures().private_attributes, figures().private_attributes


def test_modules_fit_in_one_reading() -> None:
    assert len(figures().modules_over_300) <= 2, figures().modules_over_300
    assert max(each.lines for each in house.read(house.ROOT)) <= 350


def test_folders_are_rooms() -> None:
    assert max(figures().files_per_folder.values()) <= 24


def module(text: str, path: str = "core/a.py") -> Module:
    return Module(path, text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("class A:\n def __init__(self): ...", 0),
        ("class A:\n def __init__(self, a, /, b, *, c=1): ...", 3),
        ("@dataclass\nclass A:\n a: int\n b: int", None),
        ("class A:\n def start(self, a, b): ...", None),
    ],
)
def test_arguments_are_counted_without_self(text: str, count: int | None) -> None:
    assert [found for _, found in house.constructors(module(text))] == ([] if count is None else [count])


def test_the_length_of_a_function_counts_no_decorator() -> None:
    found = house.functions(module("@cache\n@other\ndef f():\n    a = 1\n    return a\nasync def g(): ..."))
    assert sorted(map(house.length, found)) == [1, 3]


def test_a_class_name_counts_twice_within_a_service_alone() -> None:
    text = "class Bucket: ...\nclass _Own: ..."
    places = ["core/a.py", "core/b.py", "worker/a.py", "infra/a.py", "infra/b.py"]
    assert house.duplicate_classes(module(text, path) for path in places) == ["Bucket: core/a.py, core/b.py"]


def test_comments_are_for_readers() -> None:
    text = 'a = 1  # a cause\n# another\nb = "# no comment"  # noqa: S101\nc = 1  # type: ignore[misc]\n'
    assert house.comment_lines(module(text)) == 2


def test_a_circle_of_imports_is_found() -> None:
    modules = [
        module("from core.b import B", "core/a.py"),
        module("import core.c", "core/b.py"),
        module("def f():\n    from core import a", "core/c.py"),
        module("from core.a import A\nfrom core.rooms import x", "core/rooms/__init__.py"),
        module("from core.a import A", "core/rooms/x.py"),
    ]
    assert house.import_circles(modules) == ["core.a <> core.b <> core.c"]
    assert not house.import_circles(modules[1:])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x._socket.close()", ["_socket"]),
        ("x._socket = None", ["_socket"]),
        ("getattr(x, '_socket', None)", ["_socket"]),
        ("from lib._parts import Thing", ["lib._parts.Thing"]),
        ("from lib import _thing", ["lib._thing"]),
        ("class A(Lib):\n def f(self): return self._inherited", ["_inherited"]),
        ("class A:\n def f(self): self._own = 1\n def g(self, other): return other._own", []),
        ("class A(B):\n def f(self): return self._of_another_module", []),
        ("x._of_another_module", ["_of_another_module"]),
        ("_local = 1\nfrom core.b import _ours\nx.__class__\nrow._asdict()\nos._exit(1)", []),
    ],
)
def test_private_parts_of_libraries_are_found(text: str, names: list[str]) -> None:
    other = module("class B:\n def __init__(self): self._of_another_module = 1", "core/b.py")
    assert [place.name for place in house.private_attributes([module(text), other])] == names


def test_each_adapter_of_private_parts_has_a_test() -> None:
    adapters = [each.path for each in house.read(house.ROOT) if each.path.endswith(house.ADAPTERS)]
    assert adapters
    tested = {path.name for path in (house.ROOT / "tests").rglob("test_*_private.py")}
    assert not [path for path in adapters if f"test_{path.rpartition('/')[2]}" not in tested]


def test_what_is_over_a_bound_is_named() -> None:
    long = "class A:\n def __init__(self, a, b, c, d, e, f, g, h):\n" + "  a\n" * 300
    found = house.measure([module(long)])
    assert found.constructors_over_7 == ["core/a.py:2 A 8"]
    assert found.modules_over_300 == ["core/a.py 302"]
    assert found.functions_over_40 == 100
    assert list(house.report(found))[-1] == "    core/a.py 302"
