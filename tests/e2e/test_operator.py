"""What an operator does: verify, rebuild, history, keys; and the one line that each misconfiguration leaves."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from gateway.access.keys import KeyFile
from infra.local import http
from tests.api import CANARY
from tests.e2e import invariants
from tests.eventually import until
from tests.process import Process, free_port, module
from tests.stack import Stack

PROJECTION = ("generations", "images")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("operator")) as stack:
        yield stack
        invariants.check(stack)


def projection(log_file: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite.connect(f"file:{log_file}?mode=ro", uri=True)
    try:
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall()) for name in PROJECTION}
    finally:
        connection.close()


def test_verify_is_clean_and_rebuild_gives_the_same_bytes(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        client = stack.client()
        client.succeeded([client.submit(n=n)["id"] for n in (1, 2, 3)])
        cancelled = client.submit(model="slow")
        assert client.cancel(cancelled["id"]).status == 200
        client.ended(client.submit(model="slow", ttl_s=1, num_inference_steps=150)["id"])
        for generation_id in client.ids():
            client.ended(generation_id)
        invariants.check(stack)
        stack.stop()

        stack.command("core", "verify")
        before = projection(stack.log_file)
        assert len(before["generations"]) == 5
        stack.command("core", "rebuild")
        assert projection(stack.log_file) == before

        writing = sqlite.connect(stack.log_file)
        writing.execute("UPDATE generations SET status = 2")
        writing.execute("DELETE FROM images")
        writing.commit()
        writing.close()
        told = stack.command("core", "verify", expect=1)
        assert told.strip()
        stack.command("core", "rebuild")
        assert projection(stack.log_file) == before
        stack.command("core", "verify")


def test_verify_sees_a_changed_byte(stack: Stack, tmp_path: Path) -> None:
    client = stack.client()
    client.ended(client.submit()["id"])
    copy = tmp_path / "data" / "core" / "log.sqlite3"
    copy.parent.mkdir(parents=True)
    reading = sqlite.connect(f"file:{stack.log_file}?mode=ro", uri=True)
    reading.execute("VACUUM INTO ?", (str(copy),))
    reading.close()
    stack.command("core", "verify", data=tmp_path / "data")
    writing = sqlite.connect(copy)
    writing.execute("DROP TRIGGER events_never_change")
    data = bytearray(writing.execute("SELECT data FROM events WHERE position = 2").fetchone()[0])
    data[-1] ^= 1
    writing.execute("UPDATE events SET data = ? WHERE position = 2", (bytes(data),))
    writing.commit()
    writing.close()
    told = stack.command("core", "verify", data=tmp_path / "data", expect=1)
    assert "2" in told


def test_history_tells_the_whole_story_without_the_prompt(stack: Stack) -> None:
    client = stack.client()
    body = client.ended(client.submit(n=2)["id"])
    story = stack.command("core", "history", body["id"])
    mine = [line for line in invariants.read_log(stack) if line.stream == body["id"]]
    at = -1
    for line in mine:
        at = story.find(line.type, at + 1)
        assert at >= 0, f"{line.type} is missing or out of order in\n{story}"
    assert "worker-0" in story
    assert body["images"][0]["sha256"][:12] in story
    assert CANARY not in story
    assert stack.command("core", "history", "gen_" + "0" * 26, expect=1).strip()


def lines(process: Process, **wanted: object) -> list[dict[str, object]]:
    """The lines of a process's log that hold all of that."""
    found = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in found if wanted.items() <= line.items()]


def test_each_request_and_each_change_of_an_image_is_one_line(stack: Stack) -> None:
    client = stack.client()
    body = client.ended(client.submit(n=2)["id"])
    own = body["id"]
    tenant = {"tenant": stack.tenants[0]}
    posted = lines(stack.gateways[0], event="request.answered", method="POST", route="/v1/generations", **tenant)
    assert posted
    assert {"status", "ms", "request_id"} <= posted[-1].keys()
    headers = {"Authorization": f"Bearer {client.key}", "X-Request-Id": "8f14e45f-operator"}
    answer = client.call("GET", f"/v1/generations/{own}?canary=query", headers=headers)
    assert answer.headers["x-request-id"] == "8f14e45f-operator"
    (line,) = lines(stack.gateways[0], request_id="8f14e45f-operator")
    assert (line["route"], line["status"]) == ("/v1/generations/{generation_id}", 200)
    client.call("GET", f"/v1/generations/{own}", headers=headers | {"X-Request-Id": "dk_canary_secret"})
    assert "canary_secret" not in stack.gateways[0].output()
    assert "canary=query" not in stack.gateways[0].output()
    for event in ("image.dispatched", "image.started", "image.rendered", "image.published"):
        told = lines(stack.core, event=event, generation=own)
        assert sorted(str(line["index"]) for line in told) == ["0", "1"], event
        assert all(isinstance(line["ms_since_request"], int) for line in told)
    (requested,) = lines(stack.core, event="generation.requested", generation=own)
    assert (requested["tenant"], requested["images"]) == (stack.tenants[0], 2)
    assert len(lines(stack.core, event="generation.succeeded", generation=own)) == 1
    (started,) = lines(stack.core, event="image.started", generation=own, index=0)
    (rendered,) = lines(stack.workers[0], event="image.rendered", generation=own, index=0)
    assert started["attempt"] == rendered["attempt"]
    assert {"gpu_ms", "upload_ms", "batch", "model"} <= rendered.keys()


def test_a_path_or_method_that_no_route_has_is_not_logged(stack: Stack) -> None:
    client = stack.client()
    assert client.call("GET", "/canary-path").status == 404
    assert "canary-path" not in stack.gateways[0].output()
    assert lines(stack.gateways[0], event="request.answered", method="unmatched", status=404)


def test_a_key_is_made_used_and_revoked(stack: Stack) -> None:
    words = stack.command("gateway", "keys", "create", "carol").split()
    key = next(word for word in words if word.startswith("dk_"))
    client = stack.client()
    client.key = key
    until(lambda: client.call("GET", "/v1/generations").status == 200, what="the new key works")
    assert "carol" in stack.command("gateway", "keys", "list")
    assert key.rsplit("_", 1)[1] not in stack.command("gateway", "keys", "list")
    stack.command("gateway", "keys", "revoke", key.rsplit("_", 1)[0])
    until(lambda: client.call("GET", "/v1/generations").status == 401, what="the revoked key is refused")


def test_a_gateway_may_wait_for_its_first_key_and_lets_nobody_in_before(stack: Stack, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    env = stack.gateways[0].env | {
        "DARKROOM_DATA_DIR": str(tmp_path),
        "DARKROOM_GATEWAY_HOST": "0.0.0.0",
        "DARKROOM_GATEWAY_PORT": str(port),
        "DARKROOM_GATEWAY_ADMIN_PORT": str(admin),
        "DARKROOM_GATEWAY_AWAIT_KEYS": "true",
    }
    gateway = Process("gateway-waiting", module("gateway"), env, tmp_path)
    gateway.start()
    try:
        until(lambda: "no valid API key yet" in http.unready_reasons(f"http://127.0.0.1:{admin}/readyz"), 30)
        assert http.call("GET", f"http://127.0.0.1:{port}/v1/generations").status == 401
        key = KeyFile(tmp_path / "gateway" / "keys.json").create("first", now_ms=1)
        until(lambda: http.is_ready(f"http://127.0.0.1:{admin}/readyz"), 30, what="the key makes it ready")
        assert http.key_is_accepted(f"http://127.0.0.1:{port}", key)
    finally:
        gateway.kill()


def refusal(service: str, env: Mapping[str, str], folder: Path) -> str:
    """The one line that a process leaves which will not start: exit code 2, and no traceback."""
    process = Process(f"{service}-refused", module(service), env, folder)
    process.start()
    try:
        assert process.exit_code() == 2, process.tail()
    finally:
        process.kill()
    output = process.output()
    assert "Traceback" not in output, output
    lines = [line for line in output.splitlines() if line.startswith("darkroom:")]
    assert len(lines) == 1, output
    return lines[0]


def test_a_second_core_on_the_same_log_refuses(stack: Stack, tmp_path: Path) -> None:
    ports = {"DARKROOM_CORE_PORT": str(free_port()), "DARKROOM_CORE_ADMIN_PORT": str(free_port())}
    assert "core" in refusal("core", stack.core.env | ports, tmp_path)
    client = stack.client()
    assert client.ended(client.submit()["id"])["status"] == "succeeded"


@pytest.mark.parametrize(
    ("service", "env", "word"),
    [
        ("core", {"DARKROOM_CORE_PORT": "x"}, "DARKROOM_CORE_PORT"),
        ("core", {"DARKROOM_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
        ("core", {"AWS_DEFAULT_REGION": None}, "AWS_DEFAULT_REGION"),
        ("core", {"DARKROOM_FAILPOINTS": "nonsense"}, "DARKROOM_FAILPOINTS"),
        ("gateway", {"DARKROOM_GATEWAY_HOST": "0.0.0.0"}, "keys create"),
        ("gateway", {"DARKROOM_MODELS_FILE": "/nowhere.toml"}, "/nowhere.toml"),
        ("worker", {"DARKROOM_MODELS_FILE": "MISSING_FOLDER"}, "/no/such/folder"),
        ("worker", {"DARKROOM_VISIBILITY_S": "0"}, "DARKROOM_VISIBILITY_S"),
        ("worker", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_misconfiguration_is_one_line_that_names_it(
    stack: Stack, tmp_path: Path, service: str, env: dict[str, str | None], word: str
) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[[models]]\nname = "gone"\nsource = "/no/such/folder"\n')
    whole = stack.core.env | alone(service, tmp_path) | {"AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in env.items():
        if value is None:
            whole.pop(name)
        else:
            whole[name] = str(models) if value == "MISSING_FOLDER" else value
    assert word in refusal(service, whole, tmp_path)


@pytest.mark.parametrize("service", ["core", "gateway"])
def test_a_port_in_use_is_named(stack: Stack, tmp_path: Path, service: str) -> None:
    taken = str(stack.core_port if service == "core" else stack.gateway_ports[0])
    own = alone(service, tmp_path) | {f"DARKROOM_{service.upper()}_PORT": taken, "DARKROOM_JOBS_QUEUE": "anothers"}
    assert taken in refusal(service, stack.core.env | own, tmp_path)


def alone(service: str, folder: Path) -> dict[str, str]:
    """Ports and a data folder of its own."""
    prefix = f"DARKROOM_{service.upper()}"
    return {"DARKROOM_DATA_DIR": str(folder / "data"), f"{prefix}_PORT": "0", f"{prefix}_ADMIN_PORT": "0"}
