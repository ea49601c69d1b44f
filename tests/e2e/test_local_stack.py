"""`python -m infra.local` as a person uses it: up, status, demo, down, and what it says when it cannot."""

import contextlib
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import processes
from infra.local.layout import Stack
from tests.eventually import until
from tests.local_stack import Local

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("local-stack")]
PORTS = ("GATEWAY_PORT", "GATEWAY_ADMIN_PORT", "CORE_PORT", "CORE_ADMIN_PORT", "WORKER_ADMIN_PORT", "EMULATOR_PORT")
MODELS = '[[models]]\nname = "emulated"\nengine = "emulated"\nstep_ms = 5.0\nnum_inference_steps = 4\n'


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    stack = Local(tmp_path)
    yield stack
    stack.run("down")
    assert stack.ports_in_use() == []


def test_a_stack_comes_up_restarts_what_dies_and_goes_down(local: Local) -> None:
    code, output, errors = local.run("up")
    assert (code, errors) == (0, "")
    assert local.url in output
    key_file = local.data_dir / "api-key"
    assert str(key_file) in output
    emulator_secret = local.data_dir / "emulator-secret"
    for secret in (key_file, local.data_dir / "internal-token", emulator_secret):
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.read_text().strip() not in output
        written = [*(local.data_dir / "logs").iterdir(), *(local.data_dir / "local").iterdir()]
        assert [each for each in written if secret.read_text().strip() in each.read_text("utf-8", "replace")] == []
        assert not in_a_command_line(secret.read_text().strip())

    assert local.run("up")[:2] == (0, f"already up: {local.url}\n")
    code, output, _ = local.run("status")
    assert code == 0
    assert output.count("ready") == 4

    stack = processes.running(local.data_dir)
    assert stack is not None
    victim = _pid_of(stack, "gateway")
    os.kill(victim, signal.SIGKILL)
    until(lambda: _answers(local.url), 60, what="the gateway is started again")

    assert local.run("down")[:2] == (0, "stopped\n")
    emulator = local.data_dir / "emulator"
    private = [*(local.data_dir / "core").iterdir(), *emulator.iterdir(), emulator, local.data_dir]
    assert [each for each in private if each.stat().st_mode & 0o077] == [], "prompts and pictures are the owner's alone"
    assert local.ports_in_use() == []
    assert local.run("down")[:2] == (0, "nothing was running\n")
    assert local.run("status")[:2] == (1, "down\n")


@pytest.mark.parametrize("host", ["::1", "127.0.0.2", "0.0.0.0"])
def test_a_stack_comes_up_on_any_address_of_the_machine(local: Local, host: str) -> None:
    local.environment |= {"DARKROOM_GATEWAY_HOST": host, "DARKROOM_GATEWAY_ADMIN_HOST": host}
    code, output, errors = local.run("up")
    assert (code, errors) == (0, "")
    url = {"::1": "http://[::1]", "127.0.0.2": "http://127.0.0.2", "0.0.0.0": "http://127.0.0.1"}[host]
    assert f"{url}:{local.environment['DARKROOM_GATEWAY_PORT']}" in output
    code, output, _ = local.run("status")
    assert code == 0
    assert output.count("ready") == 4
    assert _answers(f"{url}:{local.environment['DARKROOM_GATEWAY_PORT']}")


def test_an_address_of_another_machine_is_named_with_its_variable(local: Local) -> None:
    local.environment["DARKROOM_GATEWAY_HOST"] = "192.0.2.1"
    code, _, errors = local.run("up")
    assert code == 2
    assert "DARKROOM_GATEWAY_HOST" in errors
    assert errors.count("\n") == 1


def in_a_command_line(text: str) -> bool:
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text in each.read_bytes().decode("utf-8", "replace"):
                return True
    return False


def test_the_demo_saves_a_picture_and_leaves_nothing_running(local: Local) -> None:
    code, output, errors = local.run("demo", "a large red circle on a white background")
    assert code == 0, errors
    (picture,) = local.folder.glob("darkroom-gen_*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    identifier = picture.stem.removeprefix("darkroom-")
    assert identifier in output
    assert str(picture) in output
    assert "/v1/generations/" not in output, "a link whose server has just been stopped is a dead one"
    assert "succeeded" in errors  # the bar
    assert not (local.data_dir / "core").exists(), "the log of a stack that `up` starts is not the demo's"
    assert processes.look(local.data_dir / "demo").nothing
    assert local.ports_in_use() == []


def test_ctrl_c_stops_everything_the_demo_started(local: Local) -> None:
    demo = local.start("demo", "a ring")
    own = local.data_dir / "demo"
    try:
        until(lambda: processes.running(own) is not None, 60, what="the demo has started its stack")
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=120)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert processes.look(own).nothing
    assert local.ports_in_use() == []


def test_a_service_that_cannot_start_is_told_in_its_own_words(local: Local) -> None:
    local.environment["DARKROOM_MODELS_FILE"] = str(local.folder / "none.toml")
    code, _, errors = local.run("up")
    assert code == 2
    assert "none.toml" in errors
    assert errors.count("\n") == 1
    assert local.ports_in_use() == []


def test_a_model_that_cannot_be_loaded_ends_the_demo(local: Local) -> None:
    (local.folder / "empty").mkdir()
    (local.folder / "models.toml").write_text('[[models]]\nname = "none"\nsource = "empty"\n')
    code, _, errors = local.run("demo", "a ring")
    assert code == 1
    assert "model none is broken" in errors
    assert local.ports_in_use() == []


@pytest.mark.parametrize("name", ["GATEWAY_PORT", "EMULATOR_PORT"])
def test_a_port_in_use_is_named_with_its_variable(local: Local, name: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = local.environment[f"DARKROOM_{name}"]
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        code, _, errors = local.run("up")
    assert code == 2
    assert errors.count("\n") == 1
    assert port in errors
    assert f"DARKROOM_{name}" in errors


def _answers(url: str) -> bool:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/healthz", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _pid_of(stack: Stack, name: str) -> int:
    return next(each.pid for each in processes.look(stack.data_dir).programs if each.name == name)
