"""What bad input gets: a clear problem that names the field, and nothing stored. No worker runs here."""

import gzip
import json
from collections.abc import Iterator

import pytest

from tests.api import CANARY, Body
from tests.stack import Stack

PROMPT = f"a tree {CANARY}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("refusals"), workers=0) as stack:
        yield stack
        for tenant in stack.tenants:
            assert stack.client(tenant).ids() == [], "something was stored"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stpes", 4),
        ("width", 100),
        ("width", 56),
        ("width", 520),
        ("height", 4096),
        ("height", 512.5),
        ("width", "64"),
        ("width", True),
        ("prompt", ""),
        ("prompt", " \n\t "),
        ("prompt", "a" * 2001),
        ("prompt", "bell \x07"),
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
    ],
)
def test_a_bad_field_is_named(stack: Stack, field: str, value: object) -> None:
    answer = stack.client().call("POST", "/v1/generations", {"prompt": PROMPT, field: value})
    problem = answer.problem(422, field)
    assert field in [error["field"] for error in problem["errors"]], problem
    assert CANARY not in answer.body.decode()


def test_all_bad_fields_are_named_at_once(stack: Stack) -> None:
    body: Body = {"width": 100, "n": 0, "colour": "red"}
    problem = stack.client().call("POST", "/v1/generations", body).problem(422)
    assert {error["field"] for error in problem["errors"]} >= {"prompt", "width", "n", "colour"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(stack: Stack, number: str) -> None:
    body = f'{{"prompt": "{PROMPT}", "guidance_scale": {number}}}'.encode()
    answer = stack.client().call("POST", "/v1/generations", body)
    assert answer.status in {400, 422}
    answer.problem(answer.status)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"a prompt"',
        b"\xff\xfe{}",
        b'{"prompt": "\xff"}',
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "lone \\ud800 surrogate"}',
        b"[" * 5000,
    ],
)
def test_bodies_that_are_no_request(stack: Stack, body: bytes) -> None:
    answer = stack.client().call("POST", "/v1/generations", body)
    assert answer.status in {400, 422}
    answer.problem(answer.status)


def test_a_body_over_64_kib(stack: Stack) -> None:
    body = json.dumps({"prompt": PROMPT, "padding": "x" * (64 * 1024)}).encode()
    stack.client().call("POST", "/v1/generations", body).problem(413)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_an_encoded_body(stack: Stack, encoding: str) -> None:
    body = gzip.compress(json.dumps({"prompt": PROMPT}).encode())
    stack.client().call("POST", "/v1/generations", body, {"Content-Encoding": encoding}).problem(415)


def test_a_body_that_is_not_json(stack: Stack) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    stack.client().call("POST", "/v1/generations", b"prompt=a", headers).problem(415)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer dk_0000000000_000000000000000000000000000",
        "Bearer nonsense",
        "Basic YTpi",
        "Bearer \xff\xfe",
    ],
)
def test_a_wrong_or_missing_key(stack: Stack, authorization: str) -> None:
    client = stack.client()
    for method, path in [("POST", "/v1/generations"), ("GET", "/v1/generations"), ("GET", "/v1/generations/gen_1")]:
        body = {"prompt": PROMPT} if method == "POST" else None
        answer = client.call(method, path, body, {"Authorization": authorization})
        answer.problem(401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_right_key_id_with_another_secret(stack: Stack) -> None:
    client = stack.client()
    forged = client.key[:-1] + ("a" if client.key[-1] != "a" else "b")
    client.call("POST", "/v1/generations", {"prompt": PROMPT}, {"Authorization": f"Bearer {forged}"}).problem(401)


@pytest.mark.parametrize("generation_id", ["gen_1", "x", "gen_" + "0" * 26, "..%2f..", "%00", "a" * 300])
def test_an_unknown_id(stack: Stack, generation_id: str) -> None:
    client = stack.client()
    first = client.call("GET", f"/v1/generations/{generation_id}").problem(404)
    assert first == client.call("GET", "/v1/generations/gen_" + "1" * 26).problem(404)
    client.call("POST", f"/v1/generations/{generation_id}/cancel").problem(404)
    client.call("GET", f"/v1/generations/{generation_id}/images/0").problem(404)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=done", "cursor=%00", "cursor=zzz", "page=2"]
)
def test_a_bad_query(stack: Stack, query: str) -> None:
    stack.client().call("GET", f"/v1/generations?{query}").problem(422, query.partition("=")[0])


@pytest.mark.parametrize("key", ["k" * 256, "bell\x07", " "])
def test_a_bad_idempotency_key(stack: Stack, key: str) -> None:
    answer = stack.client().call("POST", "/v1/generations", {"prompt": PROMPT}, {"Idempotency-Key": key})
    assert answer.status in {400, 422}, answer.body
    answer.problem(answer.status)


@pytest.mark.parametrize("wait", ["-1", "x", "1e9", "nan", "99999999999999999999"])
def test_a_wait_that_is_none_is_not_obeyed(stack: Stack, wait: str) -> None:
    """RFC 7240: a preference that cannot be honoured is ignored."""
    answer = stack.client().call("GET", "/v1/generations/gen_1", headers={"Prefer": f"wait={wait}"}, timeout_s=5)
    answer.problem(404)


def test_unknown_paths_and_methods(stack: Stack) -> None:
    client = stack.client()
    client.call("GET", "/v1/nothing").problem(404)
    assert "POST" in client.call("DELETE", "/v1/generations").headers["allow"]
    client.call("DELETE", "/v1/generations").problem(405)
