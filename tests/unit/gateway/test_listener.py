"""The public port on every kind of address that it can be given."""

import socket
from pathlib import Path

import aiohttp
import pytest

from tests.unit.gateway.harness import rig


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.2", ["127.0.0.2"]),
        ("::1", ["[::1]"]),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.3"]),
        ("::", ["127.0.0.1", "127.0.0.3", "[::1]"]),
        ("", ["127.0.0.1", "[::1]"]),
    ],
)
async def test_the_gateway_answers_on_every_address_of_its_host(tmp_path: Path, host: str, reached: list[str]) -> None:
    async with rig(tmp_path, gateway_host=host, address=reached[0]) as gateway:
        for address in reached:
            url = f"http://{address}:{gateway.port}/v1/models"
            headers = {"Authorization": f"Bearer {gateway.key}"}
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
                assert answer.status == 200, url


@pytest.mark.asyncio
async def test_a_name_is_answered_on_all_its_addresses_on_one_port(tmp_path: Path) -> None:
    found = {each[4][0] for each in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    async with rig(tmp_path, gateway_host="localhost", address="localhost") as gateway:
        for address in found:
            with socket.create_connection((str(address), gateway.port), timeout=5):
                pass
