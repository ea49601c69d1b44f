"""Pictures as the gateway sends them: headers, conditions, ranges, signed URLs, and what the store may do meanwhile."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.pictures.streams import CALLS_AT_ONCE, PIECE_BYTES, PIECES_IN_MEMORY
from schema import pb
from tests.eventually import eventually
from tests.unit.gateway.fake_core import NOW_MS
from tests.unit.gateway.harness import PICTURE, UNKNOWN, Rig, rig
from tests.unit.gateway.test_connections import dial
from tests.unit.gateway.test_metrics import metrics

BIG = random.Random(1).randbytes(3 * PIECE_BYTES + 17)
pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, tenants=("alice", "bob")) as gateway:
        yield gateway


async def signed(gateway: Rig, path: str, **headers: str) -> str:
    """Path and query of the signed URL of image 0."""
    url = (await gateway.call("GET", path, headers=headers)).body["images"][0]["signed_url"]
    assert isinstance(url, str)
    assert url.startswith("http://")
    return url[url.index("/v1/") :]


@pytest.mark.parametrize(("asked", "kind"), [("png", "image/png"), ("webp", "image/webp"), ("jpeg", "image/jpeg")])
async def test_a_picture_comes_with_all_that_its_reader_needs(gateway: Rig, asked: str, kind: str) -> None:
    path = await gateway.published(BIG, output_format=asked)
    answer = await gateway.call("GET", f"{path}/images/0")
    assert (answer.status, answer.raw) == (200, BIG)
    headers = answer.headers
    assert headers["Content-Type"] == kind
    assert headers["Content-Length"] == str(len(BIG))
    assert headers["ETag"] == f'"{sha256(BIG).hexdigest()}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    identifier = path.rpartition("/")[2]
    assert headers["Content-Disposition"] == f'inline; filename="darkroom-{identifier}-0.{asked}"'
    assert headers["Server"] == "darkroom"
    ranged = [(first, last) for first, last, _ in gateway.store.reads]
    assert ranged[0] == (0, PIECE_BYTES - 1)
    assert ranged[-1][1] == len(BIG) - 1
    assert all(last - first < PIECE_BYTES for first, last in ranged)
    assert [tag for _, _, tag in gateway.store.reads] == ["", '"t"', '"t"', '"t"'], "pieces of one object"


async def test_head_says_the_same_and_asks_the_store_for_nothing(gateway: Rig) -> None:
    path = await gateway.published(BIG)
    got = await gateway.call("GET", f"{path}/images/0")
    gateway.store.reads.clear()
    for where, key in ((f"{path}/images/0", gateway.key), (await signed(gateway, path), "")):
        head = await gateway.call("HEAD", where, key=key, headers={"Range": "bytes=0-1"})
        assert (head.status, head.raw) == (200, b"")
        for name in ("Content-Length", "Content-Type", "ETag", "Accept-Ranges", "Content-Disposition"):
            assert head.headers[name] == got.headers[name]
    assert not gateway.store.reads


async def test_conditions_and_ranges(gateway: Rig) -> None:
    path = await gateway.published(BIG)
    where = f"{path}/images/0"
    tag = f'"{sha256(BIG).hexdigest()}"'
    answer = await gateway.call("GET", where, headers={"Range": f"bytes={PIECE_BYTES - 5}-{PIECE_BYTES + 4}"})
    assert (answer.status, answer.raw) == (206, BIG[PIECE_BYTES - 5 : PIECE_BYTES + 5])
    assert answer.headers["Content-Range"] == f"bytes {PIECE_BYTES - 5}-{PIECE_BYTES + 4}/{len(BIG)}"
    assert answer.headers["Content-Length"] == "10"
    assert gateway.store.reads == [(PIECE_BYTES - 5, PIECE_BYTES + 4, "")]
    assert (await gateway.call("GET", where, headers={"Range": "bytes=-3"})).raw == BIG[-3:]
    whole = await gateway.call("GET", where, headers={"Range": "bytes=0-1,4-5"})
    assert (whole.status, whole.raw) == (200, BIG)
    whole = await gateway.call("GET", where, headers={"Range": "bytes=0-1", "If-Range": '"old"'})
    assert (whole.status, whole.raw) == (200, BIG)
    refused = await gateway.call("GET", where, headers={"Range": f"bytes={len(BIG)}-"})
    refused.problem(416)
    assert refused.headers["Content-Range"] == f"bytes */{len(BIG)}"
    gateway.store.reads.clear()
    for method in ("GET", "HEAD"):
        same = await gateway.call(method, where, headers={"If-None-Match": f'W/"x", {tag}', "Range": "bytes=0-1"})
        assert (same.status, same.raw, same.headers["ETag"]) == (304, b"", tag)
    (await gateway.call("GET", where, headers={"If-Match": '"x"'})).problem(412)
    assert not gateway.store.reads


async def test_a_signed_url_needs_no_header_and_looks_at_none(gateway: Rig) -> None:
    path = await gateway.published()
    url = await signed(gateway, path)
    for key in ("", gateway.keys["bob"], "dk_0000000000_wrongwrongwrongwrongwrong", "rubbish"):
        answer = await gateway.call("GET", url, key=key)
        assert (answer.status, answer.raw) == (200, PICTURE), key
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["Cache-Control"].startswith("private, max-age=3")
    for header in ("Basic dTpw", "Bearer", ""):
        assert (await gateway.call("GET", url, key="", headers={"Authorization": header})).status == 200
    assert (await gateway.call("GET", url, key="", headers={"Host": "other.example:99"})).status == 200
    assert (await gateway.call("GET", url, key="", headers={"Range": "bytes=1-3"})).raw == PICTURE[1:4]
    assert "alice" not in url


async def test_a_signature_that_is_altered_or_of_something_else_is_403(gateway: Rig) -> None:
    path, other = await gateway.published(n=2), await gateway.published(n=2)
    url = await signed(gateway, path)
    place, _, query = url.partition("?")
    first = "a" if query[-1] != "a" else "b"
    wrong = {
        "signature": url[:-1] + first,
        "expiry": url.replace("expires=1", "expires=2"),
        "index": f"{path}/images/1?{query}",
        "generation": f"{other}/images/0?{query}",
        "unknown generation": f"/v1/generations/{UNKNOWN}/images/0?{query}",
        "no expiry": f"{place}?{query.partition('&')[2]}",
        "twice": f"{url}&{query}",
        "empty": f"{place}?signature=",
    }
    for name, each in wrong.items():
        problem = (await gateway.call("GET", each, key=gateway.key)).problem(403)
        assert problem["type"].endswith(":signed-url-invalid"), name
    (await gateway.call("GET", f"{path}?{query}", key="")).problem(401)
    (await gateway.call("POST", f"{path}/cancel?{query}", key="")).problem(401)


async def test_an_expired_url_is_403_and_an_erased_image_410(tmp_path: Path) -> None:
    now = [NOW_MS]
    async with rig(tmp_path, now_ms=lambda: now[0], gateway_signed_url_s=60) as gateway:
        path = await gateway.published()
        url = await signed(gateway, path)
        now[0] += 61_000
        problem = (await gateway.call("GET", url, key="")).problem(403)
        assert problem["type"].endswith(":signed-url-expired")
        fresh = await signed(gateway, path)
        assert (await gateway.call("GET", fresh, key="")).status == 200
        gateway.core.stored[path.rpartition("/")[2]].view.erased = True
        (await gateway.call("GET", fresh, key="")).problem(410)
        shown = (await gateway.call("GET", path)).body["images"][0]
        assert shown["signed_url"] is shown["signed_url_expires_at"] is shown["url"] is None
        del gateway.core.stored[path.rpartition("/")[2]]
        (await gateway.call("GET", fresh, key="")).problem(404)


async def test_bodies_of_one_tag_are_the_same_bytes_whatever_the_time(tmp_path: Path) -> None:
    now = [NOW_MS]
    async with rig(tmp_path, now_ms=lambda: now[0]) as gateway:
        path = await gateway.published()
        bodies: dict[str, bytes] = {}
        for _ in range(40):
            answer = await gateway.call("GET", path)
            assert bodies.setdefault(answer.headers["ETag"], answer.raw) == answer.raw
            same = await gateway.call("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
            assert same.status == 304
            now[0] += 7_000
        assert 4 <= len(bodies) <= 6, "the tag moves with the signed URLs, once a minute"
        listed = (await gateway.call("GET", "/v1/generations")).body["data"][0]["images"][0]
        assert listed["signed_url_expires_at"] > answer.body["created_at"]


@pytest.mark.parametrize(
    ("host", "origin"),
    [("pictures.example", "http://pictures.example"), ("[::1]:8080", "http://[::1]:8080"), ("A.B:1", "http://a.b:1")],
)
async def test_a_signed_url_begins_as_the_client_reached_us(gateway: Rig, host: str, origin: str) -> None:
    path = await gateway.published()
    headers = {"Host": host, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil"}
    image = (await gateway.call("GET", path, headers=headers)).body["images"][0]
    assert image["signed_url"].startswith(f"{origin}/v1/generations/")
    assert image["url"].startswith("/v1/generations/")


async def test_the_public_url_comes_before_everything(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_public_url="https://api.example.org/x") as gateway:
        path = await gateway.published()
        image = (await gateway.call("GET", path)).body["images"][0]
        for name in ("url", "signed_url"):
            assert image[name].startswith(f"https://api.example.org/x{path}/images/0")
        assert (await gateway.call("GET", image["signed_url"].partition("/x")[2], key="")).raw == PICTURE


async def test_another_tenants_image_is_404(gateway: Rig) -> None:
    path = await gateway.published()
    for method in ("GET", "HEAD"):
        assert (await gateway.call(method, f"{path}/images/0", key=gateway.keys["bob"])).status == 404
        assert (await gateway.call(method, f"{path}/images/0", key="")).status == 401


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        ({"down": True}, 503),
        ({"missing": True}, 503),
        ({"refuses": True}, 502),
        ({"picture": BIG[:-1]}, 502),
        ({"picture": BIG + b"x"}, 502),
        ({"stored_sha256": b"\x02" * 32}, 502),
    ],
)
async def test_a_store_that_fails_before_the_first_byte_is_a_problem(
    gateway: Rig, faults: dict[str, Any], status: int
) -> None:
    path = await gateway.published(BIG)
    for name, value in faults.items():
        setattr(gateway.store, name, value)
    answer = await gateway.call("GET", f"{path}/images/0")
    answer.problem(status)
    assert ("Retry-After" in answer.headers) is (status == 503)
    assert "ETag" not in answer.headers
    assert "immutable" not in answer.headers["Cache-Control"]


async def test_a_small_picture_that_was_overwritten_is_never_sent(gateway: Rig) -> None:
    path = await gateway.published(PICTURE)
    gateway.store.picture = PICTURE[:-1] + b"\x00"
    (await gateway.call("GET", f"{path}/images/0")).problem(502)


async def test_an_image_erased_while_it_is_missing_is_410(gateway: Rig) -> None:
    path = await gateway.published()
    gateway.store.hold, gateway.store.missing = asyncio.Event(), True
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(gateway.call("GET", f"{path}/images/0"))
        await eventually(lambda: gateway.store.reads)
        gateway.core.stored[path.rpartition("/")[2]].view.erased = True
        gateway.store.hold.set()
    asking.result().problem(410)


def cut_short(raw: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split()[1])
    return head.startswith(b"HTTP/1.1 200") and len(body) < length


async def read_all(gateway: Rig, path: str) -> bytes:
    """Everything up to the end of the connection."""
    sent = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    received = b""
    try:
        writer.write(sent.encode())
        async with asyncio.timeout(20):
            while piece := await reader.read(65_536):
                received += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received


async def test_a_store_that_fails_midway_cuts_the_connection(gateway: Rig) -> None:
    path = await gateway.published(BIG)
    gateway.store.fail_from = PIECE_BYTES
    assert cut_short(await read_all(gateway, f"{path}/images/0"))
    assert 'darkroom_gateway_pictures_total{outcome="cut"} 1.0' in await metrics(gateway)


async def test_a_large_picture_that_was_overwritten_never_becomes_whole(gateway: Rig) -> None:
    path = await gateway.published(BIG)
    gateway.store.picture = BIG[:100] + b"\x00" + BIG[101:]
    assert cut_short(await read_all(gateway, f"{path}/images/0"))


async def test_a_client_that_hangs_up_ends_the_call_to_the_store(gateway: Rig) -> None:
    path = await gateway.published(BIG)
    gateway.store.hold = asyncio.Event()
    sent = f"GET {path}/images/0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {gateway.key}\r\n\r\n".encode()
    client = await dial(gateway, sent)
    await eventually(lambda: gateway.store.at_once == 1)
    client.close()
    await eventually(lambda: gateway.store.at_once == 0, what="the call is cancelled")
    assert 'darkroom_gateway_pictures_total{outcome="hung_up"} 1.0' in await metrics(gateway)
    assert "darkroom_gateway_picture_streams 0.0" in await metrics(gateway)


async def slow_reader(gateway: Rig, path: str, *, read_buffer: int = 4096) -> socket.socket:
    sent = f"GET {path}/images/0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {gateway.key}\r\n\r\n".encode()
    return await dial(gateway, sent, read_buffer=read_buffer)


async def test_readers_that_stop_hold_no_piece_and_keep_nobody_else_waiting(tmp_path: Path) -> None:
    picture = BIG * 8
    count = PIECES_IN_MEMORY + 20
    async with rig(tmp_path) as gateway:
        path = await gateway.published(picture)
        slow = [await slow_reader(gateway, path) for _ in range(count)]
        try:
            await eventually(lambda: len(gateway.store.reads) >= count, 20, what="each has had its first piece")
            answer = await gateway.call("GET", f"{path}/images/0")
            assert answer.raw == picture
            assert gateway.store.most_at_once <= CALLS_AT_ONCE

            async def all_are_still_served() -> bool:
                return f"darkroom_gateway_picture_streams {count}.0" in (await metrics(gateway)).splitlines()

            condition: Any = all_are_still_served
            await eventually(condition)
        finally:
            for each in slow:
                each.close()


async def test_a_reader_that_takes_nothing_is_cut(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_image_stall_s=0.5) as gateway:
        path = await gateway.published(BIG * 8)
        client = await slow_reader(gateway, path)
        try:
            await eventually(lambda: gateway.store.reads)

            async def cut() -> bool:
                return 'darkroom_gateway_connections_cut_total{reason="unread"} 1.0' in await metrics(gateway)

            condition: Any = cut
            await eventually(condition, 20)
        finally:
            client.close()


async def test_a_reader_that_is_slow_gets_its_whole_picture(tmp_path: Path) -> None:
    """It takes longer than the longest stall that is suffered, and each wait for it is shorter."""
    picture = BIG[: PIECE_BYTES + 65_536]
    async with rig(tmp_path, gateway_image_stall_s=1.5) as gateway:
        path = await gateway.published(picture)
        client = await slow_reader(gateway, path, read_buffer=32_768)
        loop, received, begun = asyncio.get_running_loop(), b"", asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(30):
                while len(received.partition(b"\r\n\r\n")[2]) < len(picture):
                    piece = await loop.sock_recv(client, 8192)
                    assert piece, "cut"
                    received += piece
                    await asyncio.sleep(0.12)  # the pace of the reader, not a wait for something
        finally:
            client.close()
        assert loop.time() - begun > 1.5
        assert received.partition(b"\r\n\r\n")[2] == picture
        sizes = [last - first + 1 for first, last, _ in gateway.store.reads]
        assert min(sizes) < PIECE_BYTES, "what a slow reader has not taken is dropped, and asked for in small pieces"


async def test_beyond_the_streams_there_is_503(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_image_streams=2) as gateway:
        path = await gateway.published(BIG)
        gateway.store.hold = asyncio.Event()
        held = [await slow_reader(gateway, path) for _ in range(2)]
        try:
            await eventually(lambda: gateway.store.at_once == 2)
            answer = await gateway.call("GET", f"{path}/images/0")
            answer.problem(503)
            assert answer.headers["Retry-After"]
            assert (await gateway.call("HEAD", f"{path}/images/0")).status == 200
            assert (await gateway.call("GET", path)).status == 200
        finally:
            gateway.store.hold.set()
            for each in held:
                each.close()


async def test_redirects_are_what_they_were_where_they_are_asked_for(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_images="redirect") as gateway:
        path = await gateway.published()
        for where, key in ((f"{path}/images/0", gateway.key), (await signed(gateway, path), "")):
            answer = await gateway.call("GET", where, key=key)
            assert answer.status == 302
            assert answer.headers["Cache-Control"] == "private, no-store"
            assert answer.headers["Location"].startswith("http://127.0.0.1:1/bucket/token/0.png?")
            head = await gateway.call("HEAD", where, key=key)
            assert (head.status, head.headers["Content-Length"]) == (200, str(len(PICTURE)))
        assert gateway.store.made[0] == ("token/0.png", gateway.settings.gateway_link_s)
        assert not gateway.store.reads
        gateway.store.down = True
        answer = await gateway.call("GET", f"{path}/images/0")
        answer.problem(503)
        assert "Retry-After" in answer.headers


async def test_a_generation_without_pictures_has_no_urls(gateway: Rig) -> None:
    body = (await gateway.submit(n=2)).body
    assert {image["signed_url"] for image in body["images"]} == {None}
    cancelled = await gateway.core.move(body["id"], pb.GenerationStatus.CANCELLED, pb.ImageStatus.PUBLISHED)
    assert cancelled
    shown = (await gateway.call("GET", f"/v1/generations/{body['id']}")).body
    assert {image["signed_url"] for image in shown["images"]} == {None}
