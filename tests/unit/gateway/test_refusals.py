"""What bad input gets: a problem that names the field, repeats nothing, and leaves nothing stored."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.bodies import parsing
from gateway.bodies.requests import GenerationRequest
from gateway.errors import BadSyntax, UserFault
from tests.unit.gateway.harness import PROMPT, Rig, rig

CANARY = "xq7canaryxq7"
TEXT = f"a tree {CANARY}"
JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, gateway_body_timeout_s=0.3, gateway_idle_timeout_s=1.0) as each:
        yield each
        assert not each.core.stored, "something was stored"


@pytest.mark.asyncio
async def test_a_bad_field_is_named(gateway: Rig) -> None:
    cases: list[tuple[str, object]] = [
        ("stpes", 4),
        ("width", 100),
        ("width", 56),
        ("width", 520),
        ("height", 264),
        ("height", 4096),
        ("height", 512.5),
        ("width", "64"),
        ("width", True),
        ("prompt", ""),
        ("prompt", " \n\t "),
        ("prompt", "\u2028"),
        ("prompt", "a" * 2001),
        ("prompt", f"bell \x07 {CANARY}"),
        ("prompt", "nul \x00"),
        ("prompt", "c1 \x85"),
        ("prompt", None),
        ("prompt", 7),
        ("negative_prompt", "a" * 2001),
        ("negative_prompt", "escape \x1b[0m"),
        ("model", "no-such-model"),
        ("model", "../../etc/passwd"),
        ("num_inference_steps", 0),
        ("num_inference_steps", 151),
        ("num_inference_steps", 10**30),
        ("guidance_scale", -0.1),
        ("guidance_scale", 31),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.5),
        ("n", 0),
        ("n", 11),
        ("output_format", "gif"),
        ("priority", 11),
        ("ttl_s", -1),
        ("ttl_s", 8 * 24 * 3600),
    ]
    for field, value in cases:
        answer = await gateway.call("POST", "/v1/generations", {"prompt": TEXT, field: value})
        problem = answer.problem(422)
        assert field in [error["field"] for error in problem["errors"]], (field, value, problem)
        assert problem["error"]["param"] == field
        assert CANARY not in answer.raw.decode()


@pytest.mark.asyncio
async def test_all_bad_fields_are_named_at_once(gateway: Rig) -> None:
    answer = await gateway.call("POST", "/v1/generations", {"width": 100, "n": 0, "colour\n": "red"})
    assert {error["field"] for error in answer.problem(422)["errors"]} == {"prompt", "width", "n", "colour\n"}


@pytest.mark.asyncio
async def test_bodies_that_are_no_json_object_with_one_meaning(gateway: Rig) -> None:
    for raw, place in [
        (b"", "line 1 column 1"),
        (b"{", "line 1 column 2"),
        (b'{"prompt": "a",\n "n": }', "line 2 column 7"),
        (b'{"prompt": "a"} trailing', "line 1 column 17"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"a prompt"', "object"),
        (b"\xff\xfe{}", "byte 0"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (b'{"prompt": "\xff"}', "byte 12"),
        (b'{"prompt": "a", "prompt": "b"}', '"prompt"'),
        (b'{"prompt": "a", "x": {"y": 1, "y": 2}}', '"y"'),
        (b'{"prompt": "a", "guidance_scale": NaN}', "NaN"),
        (b'{"prompt": "a", "guidance_scale": -Infinity}', "-Infinity"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "too long"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
    ]:
        problem = (await gateway.call("POST", "/v1/generations", raw, JSON)).problem(400)
        assert place in problem["detail"], (raw[:40], problem)


@pytest.mark.asyncio
async def test_numbers_and_text_that_json_can_say_and_we_cannot_mean(gateway: Rig) -> None:
    for raw, field in [
        (b'{"prompt": "a", "guidance_scale": 1e999}', "guidance_scale"),
        (b'{"prompt": "lone \\ud800 surrogate"}', "prompt"),
        (b'{"prompt": "a", "\\ud800": 1}', "body"),
    ]:
        problem = (await gateway.call("POST", "/v1/generations", raw, JSON)).problem(422)
        assert problem["errors"][0]["field"] == field


@pytest.mark.asyncio
async def test_a_body_over_64_kib_is_refused_whether_it_says_so_or_not(gateway: Rig) -> None:
    raw = json.dumps({"prompt": PROMPT, "padding": "x" * parsing.MAX_BODY_BYTES}).encode()
    (await gateway.call("POST", "/v1/generations", raw)).problem(413)

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 8192):
            yield raw[start : start + 8192]

    headers = JSON | {"Authorization": f"Bearer {gateway.key}"}
    async with gateway.session.post(f"{gateway.base}/v1/generations", data=in_pieces(), headers=headers) as answer:
        assert answer.status == 413


@pytest.mark.asyncio
async def test_bodies_of_another_kind_are_415(gateway: Rig) -> None:
    packed = gzip.compress(json.dumps({"prompt": PROMPT}).encode())
    for encoding in ("gzip", "deflate", "br", "identity, gzip", "x"):
        (await gateway.call("POST", "/v1/generations", packed, {"Content-Encoding": encoding})).problem(415)
    for kind in ("application/x-www-form-urlencoded", "text/plain", "", "application/json; charset=utf-16"):
        (await gateway.call("POST", "/v1/generations", b"{}", {"Content-Type": kind})).problem(415)
    for kind in ("Application/JSON", "application/json; charset=UTF-8", "application/json;charset=utf8"):
        answer = await gateway.call("POST", "/v1/generations", b"{}", {"Content-Type": kind})
        assert answer.status == 422, kind


@pytest.mark.asyncio
async def test_wrong_and_missing_keys_are_401_before_anything_is_read(gateway: Rig) -> None:
    forged = gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b")
    for authorization in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {forged}",
        f"Basic {gateway.key}",
        gateway.key,
        f"Bearer {gateway.key} {gateway.key}",
        f"Bearer dk_{'0' * 10}_{'0' * 27}",
        "Bearer \xff\xfe",
    ):
        answer = await gateway.call("POST", "/v1/generations", b"{", {"Authorization": authorization}, key="")
        assert answer.problem(401)["error"]["type"] == "authentication_error"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/v1/generations", "/v1/generations/gen_1", "/v1/generations/gen_1/images/0", "/v1/models"):
        (await gateway.call("GET", path, key="")).problem(401)


@pytest.mark.asyncio
async def test_the_scheme_is_read_in_any_case(gateway: Rig) -> None:
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {gateway.key}"}
        assert (await gateway.call("GET", "/v1/models", headers=headers, key="")).status == 200


@pytest.mark.asyncio
async def test_unknown_paths_and_methods_are_problems_too(gateway: Rig) -> None:
    for path in ("/v1/nothing", "/metrics", "/docs/../errors.py", "/docs/%2e%2e%2fapp.py", "/docs/ports.py"):
        (await gateway.call("GET", path)).problem(404)
    answer = await gateway.call("DELETE", "/v1/generations")
    answer.problem(405)
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.asyncio
async def test_every_answer_is_marked_against_sniffing_and_names_no_software(gateway: Rig) -> None:
    for path in ("/v1/models", "/v1/nothing", "/docs", "/healthz"):
        headers = (await gateway.call("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "darkroom"


async def raw_exchange(gateway: Rig, sent: bytes) -> bytes:
    """All that the gateway answers until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(8):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_what_is_no_http_is_a_problem_and_not_repeated(gateway: Rig) -> None:
    for sent in (
        f"GET /{CANARY} HTTP/9.9\r\n\r\n".encode(),
        f"NONSENSE {CANARY}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}\x07\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: x\r\nX-Long: {CANARY * 1000}\r\n\r\n".encode(),
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\n",
    ):
        answer = await raw_exchange(gateway, sent)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer[:80]
        assert b"Server: darkroom\r\n" in answer
        assert b"application/problem+json" in answer
        assert CANARY.encode() not in answer


@pytest.mark.asyncio
async def test_a_body_that_does_not_come_is_408(gateway: Rig) -> None:
    head = f"POST /v1/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
    sent = f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode()
    answer = await raw_exchange(gateway, sent)
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:80]


@pytest.mark.asyncio
async def test_headers_that_trickle_in_are_cut_off(gateway: Rig) -> None:
    """A byte now and then does not keep a connection: faults.md 4."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(8), asyncio.TaskGroup() as group:
            ended = group.create_task(reader.read())
            while not ended.done():
                writer.write(b"X")
                await asyncio.wait({ended}, timeout=0.1)
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert 0.8 < loop.time() - began < 4


@pytest.mark.asyncio
async def test_a_hundred_half_requests_do_not_slow_a_whole_one(gateway: Rig) -> None:
    writers = []
    for _ in range(100):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"POST /v1/generations HTTP/1.1\r\nHost: x\r\n")
        writers.append(writer)
    async with asyncio.timeout(2):
        assert (await gateway.call("GET", "/v1/models")).status == 200
    for writer in writers:
        writer.close()


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)

json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@relaxed
@given(value=json_values)
def test_any_json_is_a_request_or_a_fault_of_the_user(value: object) -> None:
    with contextlib.suppress(UserFault):
        parsing.validated(GenerationRequest, parsing.parse(json.dumps(value).encode()))


@relaxed
@given(raw=st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_json_or_a_fault_of_the_user(raw: bytes) -> None:
    with contextlib.suppress(BadSyntax):
        parsing.parse(raw)


@relaxed
@given(value=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_the_canonical_form_does_not_depend_on_order_or_space(value: dict[str, object]) -> None:
    turned = json.dumps(dict(reversed(value.items())), indent=3).encode()
    assert parsing.canonical(parsing.parse(turned)) == parsing.canonical(value)
