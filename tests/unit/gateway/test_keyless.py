"""A gateway without keys answers this machine's programs and its own pages, and no page of the web (B2)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.edge.origins import is_this_machine
from tests.unit.gateway.harness import PICTURE, Answer, Rig, rig

EVIL = "http://evil.example"


@pytest_asyncio.fixture
async def keyless(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, tenants=(), gateway_public_url="https://pictures.example.org") as gateway:
        yield gateway


async def asked(gateway: Rig, method: str, path: str, **headers: str) -> Answer:
    return await gateway.call(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})


@pytest.mark.asyncio
async def test_dns_rebinding_reads_nothing(keyless: Rig) -> None:
    path = (await keyless.submit()).headers["Location"].removeprefix("https://pictures.example.org")
    for host in (
        *("evil.example", f"evil.example:{keyless.port}", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("127.0.0.1.nip.io", "0.0.0.0", "192.168.1.7", "[::2]", "[::]", "localhost-evil", "notlocalhost"),
        *("pictures.example.org.evil", "pictures.example.org:444", "1.127.0.0.1", "10.0.0.1", "127.0.0.1x"),
    ):
        for method, where in (
            *(("GET", path), ("HEAD", path), ("GET", "/v1/generations"), ("POST", f"{path}/cancel"), ("GET", "/docs")),
            *(("GET", "/"), ("GET", "/healthz"), ("GET", "/openapi.json"), ("OPTIONS", "/v1/generations")),
            *(("GET", "/nowhere"), ("DELETE", path)),
        ):
            answer = await asked(keyless, method, where, Host=host, X_Forwarded_Host="127.0.0.1")
            assert answer.status == 403, (host, method, where)
    assert answer.problem(403)["type"].endswith(":foreign-host")
    assert (await keyless.call("GET", path)).body["status"] == "queued"


@pytest.mark.asyncio
async def test_every_name_of_this_machine_is_answered(keyless: Rig) -> None:
    port = keyless.port
    for host in (
        *(
            f"127.0.0.1:{port}",
            f"localhost:{port}",
            f"LOCALHOST:{port}",
            f"localhost.:{port}",
            f"[::1]:{port}",
            "127.0.0.1",
        ),
        *(
            f"127.0.0.2:{port}",
            f"[0:0:0:0:0:0:0:1]:{port}",
            f"[::ffff:127.0.0.1]:{port}",
            "my.localhost",
            "localhost:9",
        ),
        *("pictures.example.org", "Pictures.Example.ORG", "localhost:9", "127.0.0.1"),
    ):
        assert (await asked(keyless, "GET", "/v1/generations", Host=host)).status == 200, host


@pytest.mark.asyncio
async def test_no_page_of_another_origin_is_answered(keyless: Rig) -> None:
    path = (await keyless.submit()).headers["Location"].removeprefix("https://pictures.example.org")
    port = keyless.port
    for headers in (
        *({"Origin": EVIL}, {"Origin": "null"}, {"Origin": "http://localhost:3000"}, {"Origin": "http://127.0.0.1"}),
        *({"Origin": f"https://127.0.0.1:{port}"}, {"Origin": f"http://127.0.0.1:{port}.evil"}, {"Origin": ""}),
        *({"Origin": f"http://127.0.0.1:{port}/"}, {"Origin": f"file://127.0.0.1:{port}"}, {"Origin": "://"}),
        *({"Origin": f"http://localhost:{port}"}, {"Origin": "http://pictures.example.org"}),
        *({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "Cross-Site"}),
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ):
        for method, where in (
            *(("GET", path), ("POST", f"{path}/cancel"), ("POST", "/v1/generations"), ("OPTIONS", "/v1/generations")),
            *(("GET", "/v1/models"), ("HEAD", "/v1/generations")),
        ):
            answer = await keyless.call(method, where, headers=headers)
            assert answer.status == 403, (headers, method, where)
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert (await keyless.call("GET", path)).body["status"] == "queued", "nothing was cancelled"
    assert len(keyless.core.stored) == 1


@pytest.mark.asyncio
async def test_its_own_pages_and_links_to_its_documents_are_answered(keyless: Rig) -> None:
    own = f"http://127.0.0.1:{keyless.port}"
    for headers in (
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": f"http://localhost.:{keyless.port}", "Host": f"LOCALHOST:{keyless.port}"},
        {"Origin": "http://[::1]:80", "Host": "[::1]"},
        {"Origin": "https://pictures.example.org", "Host": "pictures.example.org"},
    ):
        assert (await keyless.submit(headers=headers)).status == 202, headers
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/", "/docs", "/openapi.json"):
        assert (await keyless.call("GET", path, headers=followed)).status == 200
    framed = {**followed, "Sec-Fetch-Dest": "iframe"}
    (await keyless.call("GET", "/docs", headers=framed)).problem(403)


@pytest.mark.asyncio
async def test_a_signature_is_enough_for_any_page(keyless: Rig) -> None:
    keyless.store.picture = PICTURE
    path = (await keyless.published()).removeprefix("https://pictures.example.org")
    url = (await keyless.call("GET", path)).body["images"][0]["signed_url"].removeprefix("https://pictures.example.org")
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    answer = await keyless.call("GET", url, headers=headers)
    assert (answer.status, answer.headers["Cross-Origin-Resource-Policy"]) == (200, "cross-origin")
    (await keyless.call("GET", url[:-1], headers=headers)).problem(403)
    (await keyless.call("GET", f"{path}/images/0", headers=headers)).problem(403)


async def raw(gateway: Rig, sent: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(sent.encode())
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_absolute_targets_and_requests_without_a_host(keyless: Rig) -> None:
    port, close = keyless.port, "Connection: close\r\n\r\n"
    for target, host, status in (
        (f"http://127.0.0.1:{port}/v1/models", f"127.0.0.1:{port}", b"200"),
        ("http://evil.example/v1/models", f"127.0.0.1:{port}", b"403"),
        (f"http://127.0.0.1:{port}@evil.example/v1/models", f"127.0.0.1:{port}", b"400"),
        (f"http://127.0.0.1:{port}/v1/models", "evil.example", b"200"),
        ("http:///v1/models", f"127.0.0.1:{port}", b"400"),
    ):
        answer = await raw(keyless, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{close}")
        assert answer[9:12] == status, (target, host, answer[:200])
    assert (await raw(keyless, f"GET /v1/models HTTP/1.0\r\n{close}"))[9:12] == b"403"
    assert (await raw(keyless, f"GET /v1/models HTTP/1.0\r\nHost: localhost\r\n{close}"))[9:12] == b"200"


@pytest.mark.asyncio
async def test_a_gateway_with_keys_answers_under_any_name(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        headers = {"Host": "pictures.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
        answer = await gateway.call("GET", "/v1/models", headers=headers)
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "::1", "[::1]", "localhost.", "a.localhost", "127.255.0.1", "::ffff:127.0.0.9"]
)
def test_loopback(name: str) -> None:
    assert is_this_machine(name)


@pytest.mark.parametrize(
    "name", ["", ".", "evil", "xlocalhost", "0.0.0.0", "::", "128.0.0.1", "::ffff:10.0.0.1", "127.1"]
)
def test_not_loopback(name: str) -> None:
    assert not is_this_machine(name)
