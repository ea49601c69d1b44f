"""Where a local stack listens, and what its processes are told."""

from pathlib import Path

import pytest

from infra.lifecycle import ConfigError
from infra.local.layout import Stack, emulator_environment, service_environment


def test_the_defaults_are_the_services_defaults() -> None:
    stack = Stack.from_env({})
    assert stack.url == "http://127.0.0.1:8080"
    assert stack.data_dir == Path("var").absolute()
    assert [program.name for program in stack.programs()] == ["emulator", "core", "worker", "gateway"]
    assert stack.programs()[1].ready_url == "http://127.0.0.1:9102/readyz"


def test_each_port_and_the_folder_move_by_their_variables(tmp_path: Path) -> None:
    stack = Stack.from_env(
        {"DARKROOM_DATA_DIR": str(tmp_path), "DARKROOM_GATEWAY_PORT": "1111", "DARKROOM_EMULATOR_PORT": "2222"}
    )
    assert (stack.data_dir, stack.ports.gateway, stack.ports.emulator) == (tmp_path, 1111, 2222)
    environment = service_environment(stack, emulator_secret="s", internal_token="t", inherited={"PATH": "/bin"})
    assert environment["DARKROOM_GATEWAY_PORT"] == "1111"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:2222"
    assert environment["DARKROOM_INTERNAL_TOKEN"] == "t"
    assert environment["PATH"] == "/bin"


@pytest.mark.parametrize("text", ["zero", "0", "65536", "-1", "80.5"])
def test_a_wrong_port_names_its_variable(text: str) -> None:
    with pytest.raises(ConfigError, match="DARKROOM_CORE_PORT"):
        Stack.from_env({"DARKROOM_CORE_PORT": text})


def test_no_real_account_reaches_the_services() -> None:
    inherited = {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "x", "AWS_ENDPOINT_URL_S3": "https://elsewhere"}
    environment = service_environment(Stack.from_env({}), emulator_secret="s", inherited=inherited)
    assert not inherited.keys() & environment.keys()
    assert environment["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")


def test_copies_get_ports_of_their_own() -> None:
    stack = Stack.from_env({"DARKROOM_LOCAL_WORKERS": "3", "DARKROOM_LOCAL_GATEWAYS": "2"})
    programs = {program.name: program for program in stack.programs()}
    assert {"worker", "worker-2", "worker-3", "gateway", "gateway-2"} <= programs.keys()
    assert programs["worker"].own == {}
    assert programs["worker-3"].own == {"DARKROOM_WORKER_ADMIN_PORT": "9123"}
    assert programs["gateway-2"].own == {"DARKROOM_GATEWAY_PORT": "8081", "DARKROOM_GATEWAY_ADMIN_PORT": "9111"}
    ports = [port for port, _ in stack.used_ports()]
    assert len(ports) == len(set(ports)) == 6 + 2 + 2


def test_the_emulator_stays_on_loopback_and_keeps_its_data(tmp_path: Path) -> None:
    environment = emulator_environment(tmp_path, 4566)
    assert environment["BIND_HOST"] == "127.0.0.1"
    assert environment["PERSIST_STATE"] == environment["S3_PERSIST"] == "1"
    for name in ("STATE_DIR", "S3_DATA_DIR", "TMPDIR"):
        assert Path(environment[name]).is_relative_to(tmp_path)
