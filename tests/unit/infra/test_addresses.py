"""Where a service is reached that listens on this or that address, and which addresses it can have."""

import socket

import pytest

from infra.lifecycle import ConfigError
from infra.local import addresses
from infra.local.layout import Stack, service_environment
from tests.process import free_port


@pytest.mark.parametrize(
    ("host", "netloc"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.2", "127.0.0.2:80"),
        ("localhost", "localhost:80"),
        ("::1", "[::1]:80"),
        ("[::1]", "[::1]:80"),
        ("0.0.0.0", "127.0.0.1:80"),
        ("", "127.0.0.1:80"),
        ("::", "[::1]:80"),
    ],
)
def test_an_address_to_listen_on_is_one_to_connect_to(host: str, netloc: str) -> None:
    assert addresses.netloc(host, 80) == netloc


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "localhost"])
def test_a_port_is_looked_for_on_the_address_it_is_wanted_on(host: str) -> None:
    port = free_port()
    assert addresses.is_free(host, port, "X")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, port))
        taken.listen()
        assert not addresses.is_free(host, port, "X")


def test_a_port_taken_on_another_address_is_free() -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert addresses.is_free("127.0.0.2", port, "X")
        assert addresses.is_free("::1", port, "X")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "2001:db8::1"])
def test_what_is_no_address_of_this_machine_names_its_variable(host: str) -> None:
    with pytest.raises(ConfigError, match="DARKROOM_GATEWAY_HOST"):
        addresses.is_free(host, 80, "DARKROOM_GATEWAY_HOST")


def test_every_service_of_a_stack_is_asked_where_it_listens() -> None:
    stack = Stack.from_env(
        {
            "DARKROOM_GATEWAY_HOST": "::1",
            "DARKROOM_GATEWAY_ADMIN_HOST": "0.0.0.0",
            "DARKROOM_CORE_HOST": "127.0.0.2",
            "DARKROOM_CORE_ADMIN_HOST": "127.0.0.3",
            "DARKROOM_WORKER_ADMIN_HOST": "::",
        }
    )
    assert stack.url == "http://[::1]:8080"
    urls = {program.name: program.ready_url for program in stack.programs()}
    assert urls["gateway"] == "http://127.0.0.1:9101/readyz"
    assert urls["core"] == "http://127.0.0.3:9102/readyz"
    assert urls["worker"] == "http://[::1]:9103/readyz"
    environment = service_environment(stack, emulator_secret="s", inherited={})
    assert environment["DARKROOM_CORE_TARGET"] == "127.0.0.2:50051"
    assert environment["DARKROOM_GATEWAY_HOST"] == "::1"
    assert environment["DARKROOM_WORKER_ADMIN_HOST"] == "::"
