"""The import arrows of ARCHITECTURE.md, and a few rules of the house that a reader of imports can check."""

import ast
from collections.abc import Iterator
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
    "aiosqlite": ("core/sqlite_log.py",),
    "aiobotocore": ("infra/",),
    "botocore": ("infra/",),
    "grpclib": ("infra/rpc.py", "core/grpc_api.py", "core/app.py", "gateway/core_client.py", "worker/core_client.py"),
    "h2": ("infra/rpc.py",),
    "aiohttp": (
        "gateway/",
        "infra/admin.py",
        "infra/aws.py",
        "infra/local",
        "worker/engines/",
        "worker/engine_server/",
    ),
    "sqlite3": ("core/sqlite_base.py",),
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
        ("core/decide.py", "gateway.app", False),
        ("core/decide.py", "infra.sqs", False),
        ("core/errors.py", "infra.retry.Retryable", True),
        ("worker/gpu.py", "infra.loops.Loops", True),
        ("core/app.py", "infra.sqs", True),
        ("infra/sqs.py", "schema.limits", False),
        ("schema/messages.py", "core.events", False),
        ("worker/gpu.py", "schema.pb", True),
        ("worker/engines/app_like.py", "infra.s3", False),
    ],
)
def test_the_arrow_rule_itself(path: str, name: str, verdict: bool) -> None:
    assert allowed(Path(path), name) is verdict


@pytest.mark.parametrize(
    ("path", "library", "verdict"),
    [
        ("core/decide.py", "aiosqlite", False),
        ("worker/gpu.py", "torch", False),
        ("worker/engines/pipeline.py", "torch", True),
        ("gateway/app.py", "grpclib", False),
        ("gateway/routes/images.py", "aiohttp", True),
        ("core/publisher.py", "botocore", False),
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


def test_pure_modules_import_nothing_that_acts() -> None:
    acting = {"asyncio", "structlog", "opentelemetry", "random", "time", "os", "secrets", "threading"}
    pure = [Path("core") / f"{name}.py" for name in ("events", "commands", "state", "decide", "views", "schedule")]
    wrong = [
        f"{path}:{line} imports {name}"
        for path in [*pure, Path("worker/batcher.py")]
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
