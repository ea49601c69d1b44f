"""The import arrows of ARCHITECTURE.md, and a few rules of the house that a reader of imports can check."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("gateway", "core", "worker", "schema", "infra")
SERVICES = ("gateway", "core", "worker")
COMPOSITION = {"app.py", "__main__.py", "config.py"}

# library -> the only places that may import it; a trailing slash means the whole folder
HOMES: dict[str, tuple[str, ...]] = {
    "torch": ("worker/engines/", "worker/demo_model/"),
    "diffusers": ("worker/engines/", "worker/demo_model/"),
    "transformers": ("worker/engines/", "worker/demo_model/"),
    "aiosqlite": ("core/log/aiosqlite_private.py",),
    "aiobotocore": ("infra/",),
    "botocore": ("infra/",),
    "grpclib": (
        "infra/rpc.py",
        "infra/grpclib_private.py",
        "core/api/grpc_api.py",
        "core/api/operator_client.py",
        "core/app.py",
        "gateway/core_client/client.py",
        "worker/core_client.py",
    ),
    "h2": ("infra/rpc.py", "infra/grpclib_private.py"),
    "aiohttp": (
        "gateway/",
        "infra/admin.py",
        "infra/aws.py",
        "infra/local",
        "worker/engines/",
        "worker/engine_server/",
    ),
    "sqlite3": ("core/log/connection.py",),
    "pysqlite3": ("core/",),
}


def modules(*tops: str) -> Iterator[Path]:
    for top in tops:
        for path in sorted((ROOT / top).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if "gen" not in relative.parts and "__pycache__" not in relative.parts:
                yield relative


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def allowed(path: Path, name: str) -> bool:
    """Whether a module may import another of our packages."""
    here, target = path.parts[0], name.split(".", maxsplit=1)[0]
    if target == here or target not in OURS:
        return True
    if here in SERVICES and target == "schema":
        return True
    if here in SERVICES and target == "infra":
        return path.name in COMPOSITION or name.startswith(("infra.retry", "infra.loops", "infra.fairness"))
    return False


def at_home(path: Path, library: str) -> bool:
    homes = HOMES.get(library, ())
    return not homes or any(str(path).startswith(home) for home in homes)


def test_arrows_between_our_packages() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules(*OURS)
        for name, line in imports(path)
        if not allowed(path, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_each_library_stays_in_its_place() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules(*OURS)
        for name, line in imports(path)
        if not at_home(path, name.split(".")[0])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "name", "verdict"),
    [
        ("core/domain/decide.py", "gateway.app", False),
        ("core/domain/decide.py", "infra.sqs", False),
        ("core/errors.py", "infra.retry.Retryable", True),
        ("worker/gpu/loop.py", "infra.loops.Loops", True),
        ("core/app.py", "infra.sqs", True),
        ("infra/sqs.py", "schema.limits", False),
        ("schema/messages.py", "core.domain.events", False),
        ("worker/gpu/loop.py", "schema.pb", True),
        ("worker/engines/app_like.py", "infra.s3", False),
    ],
)
def test_the_arrow_rule_itself(path: str, name: str, verdict: bool) -> None:
    assert allowed(Path(path), name) is verdict


@pytest.mark.parametrize(
    ("path", "library", "verdict"),
    [
        ("core/domain/decide.py", "aiosqlite", False),
        ("worker/gpu/loop.py", "torch", False),
        ("worker/engines/pipeline/engine.py", "torch", True),
        ("gateway/app.py", "grpclib", False),
        ("gateway/routes/images.py", "aiohttp", True),
        ("core/results/publisher.py", "botocore", False),
    ],
)
def test_the_home_rule_itself(path: str, library: str, verdict: bool) -> None:
    assert at_home(Path(path), library) is verdict


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_bare_tasks_and_no_unbounded_queues() -> None:
    wrong = []
    for path in modules(*OURS):
        for name, call in calls(path):
            if name in {"asyncio.create_task", "asyncio.ensure_future", "loop.create_task"}:
                wrong.append(f"{path}:{call.lineno} starts a task outside a task group")
            if name in {"asyncio.Queue", "asyncio.PriorityQueue", "queue.Queue", "queue.SimpleQueue"} and not (
                call.args or any(keyword.arg == "maxsize" for keyword in call.keywords)
            ):
                wrong.append(f"{path}:{call.lineno} makes a queue without a bound")
            if name.endswith(".create_task") and not any(keyword.arg == "name" for keyword in call.keywords):
                wrong.append(f"{path}:{call.lineno} starts a task without a name")
    assert not wrong, "\n".join(wrong)


WALL_CLOCKS = {
    "time.time",
    "time.monotonic",
    "time.time_ns",
    "datetime.now",
    "datetime.datetime.now",
    "datetime.utcnow",
}


def test_services_take_time_from_the_loop_or_the_injected_clock() -> None:
    """Threads of engines measure with time.perf_counter; everything else must run under virtual time."""
    wrong = [
        f"{path}:{call.lineno} calls {name}"
        for path in modules(*SERVICES)
        if not str(path).startswith("worker/demo_model/")
        for name, call in calls(path)
        if name in WALL_CLOCKS
    ]
    assert not wrong, "\n".join(wrong)


ROOMS = {
    "gateway": ("edge", "access", "server", "pictures", "core_client", "bodies", "served_models", "routes"),
    "core": ("domain", "log", "runtime", "dispatch", "results", "erasure", "api"),
    "worker": ("engines", "batching", "holding", "output", "gpu", "intake"),
}
"""The packages of a service in order: each may import those before it."""
LATER = {"app", "assembly", "__main__"}
"""Modules beside the rooms that join them; no room may import one."""


def room(name: str) -> str:
    """The second part of a dotted name, `core.log` of `core.log.codec`."""
    return name.split(".")[1] if "." in name else ""


def enters(path: Path, name: str) -> bool:
    """Whether an import goes from a room to one before it, or to a module that any room may use."""
    rooms = ROOMS.get(path.parts[0], ())
    here, there = room(".".join(path.with_suffix("").parts)), room(name)
    if name.split(".", maxsplit=1)[0] != path.parts[0] or here not in rooms:
        return True
    return there not in LATER and (there not in rooms or rooms.index(there) <= rooms.index(here))


def test_rooms_import_only_the_rooms_before_them() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules(*ROOMS)
        for name, line in imports(path)
        if not enters(path, name)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "name", "verdict"),
    [
        ("core/domain/state.py", "core.log.codec", False),
        ("core/log/codec.py", "core.domain.state.Image", True),
        ("core/results/publisher.py", "core.assembly.Core", False),
        ("core/results/publisher.py", "core.ports.Ports", True),
        ("core/assembly.py", "core.api.service", True),
        ("worker/gpu/sessions/session.py", "worker.intake.receiver", False),
        ("gateway/server/connections.py", "gateway.routes.middleware", False),
        ("gateway/routes/images.py", "gateway.pictures.signing", True),
        ("worker/engines/latent/engine.py", "worker.engines.errors", True),
    ],
)
def test_the_room_rule_itself(path: str, name: str, verdict: bool) -> None:
    assert enters(Path(path), name) is verdict


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in modules(*OURS)}

    def target(name: str) -> str:
        return name if name in names else name.rpartition(".")[0]

    arrows = {name: {target(each) for each, _ in imports(path)} & names.keys() for name, path in names.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_each_package_says_what_lives_in_it() -> None:
    silent = [
        path
        for path in modules(*OURS)
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse((ROOT / path).read_text()))
    ]
    assert not silent


def test_pure_rooms_import_nothing_that_acts() -> None:
    acting = {"asyncio", "structlog", "opentelemetry", "random", "time", "os", "secrets", "threading"}
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules("core/domain", "worker/batching")
        for name, line in imports(path)
        if name.split(".")[0] in acting
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", [*OURS, "loadtests", "tests"])
def test_our_top_level_names_resolve_to_this_project(package: str) -> None:
    """`schema` and `worker` are also distributions on the package index."""
    module = __import__(package)
    assert module.__file__ is not None
    assert Path(module.__file__).parent.resolve() == (ROOT / package).resolve()


def test_the_lock_holds_no_namesake_and_pins_everything() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] not in " #"]
    names = [line.split("==")[0].split("[")[0].lower() for line in lines]
    assert all("==" in line for line in lines)
    assert "torch==2.13.0" in lines
    assert not {"schema", "worker", "core", "gateway", "infra"} & set(names)
