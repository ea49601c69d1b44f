"""`python -m worker engine-server --http`: what it answers to anybody who speaks HTTP."""

import base64
import http.client
import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.engine_processes import faulty_http_server, http_engine_server
from worker.engines.emulated import draw, read_emulated

MODELS = """
[[models]]
name = "quick"
engine = "emulated"
step_ms = 1.0
width = 64
height = 72
num_inference_steps = 4
max_width = 512
max_height = 512
max_batch = 4

[[models]]
name = "slow"
engine = "emulated"
step_ms = 100.0
width = 64
height = 64
max_batch = 1
"""
Answer = tuple[int, Mapping[str, str], bytes]
RENDER: dict[str, Any] = {
    "id": "gen_1/3",
    "model": "quick",
    "width": 128,
    "height": 64,
    "num_inference_steps": 2,
    "guidance_scale": 3.5,
    "seed": 7,
    "prompt": "a circle",
    "format": "rgb",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine-server") / "models.toml"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def quick(folder: Path) -> Iterator[str]:
    with http_engine_server("quick", folder) as address:
        yield address


def ask(base: str, method: str, path: str, body: object = None, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=60)
    try:
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def files(answer: Answer) -> list[bytes]:
    assert answer[0] == 200, answer
    return [base64.b64decode(each["b64_json"]) for each in json.loads(answer[2])["data"]]


def error(answer: Answer) -> tuple[int, str]:
    told = json.loads(answer[2])["error"]
    assert set(told) == {"message", "type", "code"}
    return answer[0], told["code"]


def test_a_plain_request_of_the_images_api(quick: str) -> None:
    (file,) = files(ask(quick, "POST", "/v1/images/generations", {"prompt": "a circle"}))
    with Image.open(BytesIO(file)) as image:
        assert (image.format, image.size) == ("PNG", (64, 72))


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_every_field_of_the_images_api_that_means_something(quick: str, form: str) -> None:
    body = {
        "model": "quick",
        "prompt": "a circle",
        "n": 3,
        "size": "128x64",
        "response_format": "b64_json",
        "output_format": form,
        "seed": 2**32 - 2,
        "num_inference_steps": 2,
        "guidance_scale": 0,
        "negative_prompt": "a square",
        "user": "u",
        "quality": "high",
        "style": "vivid",
        "background": "auto",
    }
    answer = ask(quick, "POST", "/v1/images/generations", body)
    seeds = []
    for file in files(answer):
        with Image.open(BytesIO(file)) as image:
            assert (image.format, image.size) == (form.upper(), (128, 64))
        seeds.append(read_emulated(file)[2])
    assert seeds == [2**32 - 2, 2**32 - 1, 0]
    told = json.loads(answer[2])
    assert told["output_format"] == form
    assert told["created"] > 1_700_000_000


@pytest.mark.parametrize("written", ["128.0", "1.28e2"])
def test_a_number_without_a_fraction_is_an_integer(quick: str, written: str) -> None:
    asked = json.dumps(RENDER | {"width": 0, "seed": 7.0, "num_inference_steps": 2.0}).replace(
        '"width": 0', f'"width": {written}'
    )
    status, _, body = ask(quick, "POST", "/v1/render", asked.encode())
    assert (status, body) == (200, draw("gen_1", 3, 7, 128, 64))
    batch = {"prompt": "x", "n": 2.0, "seed": 7.0, "num_inference_steps": 1e0, "size": "64x64"}
    assert [read_emulated(file)[2] for file in files(ask(quick, "POST", "/v1/images/generations", batch))] == [7, 8]


@pytest.mark.parametrize("value", [1.5, True, "1", "1.0"])
def test_nothing_else_is_one(quick: str, value: object) -> None:
    for field in ("n", "seed", "num_inference_steps"):
        answer = ask(quick, "POST", "/v1/images/generations", {"prompt": "x", field: value})
        assert error(answer) == (400, "invalid_request"), field
        assert field.encode() in answer[2]
    for field in ("width", "height", "seed", "num_inference_steps"):
        assert error(ask(quick, "POST", "/v1/render", RENDER | {field: value})) == (400, "invalid_request"), field


def test_pixels_come_as_they_are(quick: str) -> None:
    status, headers, body = ask(quick, "POST", "/v1/render", RENDER)
    assert status == 200
    assert headers["Content-Type"] == "application/octet-stream"
    assert (headers["X-Darkroom-Width"], headers["X-Darkroom-Height"]) == ("128", "64")
    assert body == draw("gen_1", 3, 7, 128, 64)


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_or_as_a_file(quick: str, form: str) -> None:
    status, headers, body = ask(quick, "POST", "/v1/render", RENDER | {"format": form})
    assert (status, headers["Content-Type"]) == (200, f"image/{form}")
    assert read_emulated(body) == ("gen_1", 3, 7)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/images/generations", {}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": ""}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x" * 2001}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "response_format": "url"}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "size": "100x"}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "size": "65x64"}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "size": "4096x64"}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "n": 11}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "seed": -1}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "guidance_scale": 31}, (400, "invalid_request")),
        ("/v1/images/generations", b'{"prompt": "x", "guidance_scale": NaN}', (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "model": "another"}, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x", "size": "1024x1024"}, (400, "unsupported")),
        ("/v1/images/generations", b"no json", (400, "invalid_request")),
        ("/v1/images/generations", b"[1]", (400, "invalid_request")),
        ("/v1/images/generations", b"\xff\xfe", (400, "invalid_request")),
        ("/v1/images/generations", b"[" * 60_000, (400, "invalid_request")),
        ("/v1/render", b'{"a":' * 10_000, (400, "invalid_request")),
        ("/v1/images/generations", {"prompt": "x" * 100_000}, (413, "invalid_request")),
        ("/v1/render", RENDER | {"surprise": 1}, (400, "invalid_request")),
        ("/v1/render", {"prompt": "x"}, (400, "invalid_request")),
        ("/v1/render", RENDER | {"format": "gif"}, (400, "invalid_request")),
        ("/v1/render", RENDER | {"width": 1024}, (400, "unsupported")),
        ("/v1/nothing", {}, (404, "invalid_request")),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, (dict, bytes)) else "",
)
def test_what_is_wrong_is_said(quick: str, path: str, body: object, expected: tuple[int, str]) -> None:
    answer = ask(quick, "POST", path, body)
    assert error(answer) == expected
    assert b"xxx" not in answer[2]


def test_compressed_bodies_are_not_read(quick: str) -> None:
    answer = ask(quick, "POST", "/v1/render", b"\x1f\x8b", Content_Encoding="gzip")
    assert error(answer) == (415, "invalid_request")


def test_health_says_what_is_served(quick: str) -> None:
    status, _, body = ask(quick, "GET", "/health")
    told = json.loads(body)
    assert (status, told["status"], told["engine"], told["model"]) == (200, "ok", "emulated", "quick")
    assert json.loads(ask(quick, "GET", "/v1/models")[2])["data"] == [{"id": "quick", "object": "model"}]


def test_a_token_is_wanted_where_one_is_set(folder: Path) -> None:
    with http_engine_server("quick", folder, DARKROOM_ENGINE_TOKEN="a-token-that-must-not-show") as base:
        assert ask(base, "GET", "/health")[0] == 200
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer \xff"}):
            assert error(ask(base, "GET", "/v1/models", **wrong)) == (401, "unauthorized")
            assert error(ask(base, "POST", "/v1/render", RENDER, **wrong)) == (401, "unauthorized")
        right = {"Authorization": "Bearer a-token-that-must-not-show"}
        assert ask(base, "POST", "/v1/render", RENDER, **right)[0] == 200
    assert "a-token-that-must-not-show" not in (folder.parent / "engine-server.log").read_text()


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_without_a_token_web_pages_are_refused(quick: str, headers: dict[str, str]) -> None:
    assert error(ask(quick, "GET", "/v1/models", **headers)) == (403, "forbidden")
    assert error(ask(quick, "POST", "/v1/render", RENDER, **headers)) == (403, "forbidden")


def test_a_full_line_and_a_long_wait_are_told_apart(folder: Path) -> None:
    limits = {"DARKROOM_ENGINE_WAITING": "1", "DARKROOM_ENGINE_RENDER_S": "0.5"}
    with http_engine_server("slow", folder, **limits) as base:
        body = {"prompt": "x", "num_inference_steps": 100}
        assert error(ask(base, "POST", "/v1/images/generations", body)) == (504, "timeout")
        answer = ask(base, "POST", "/v1/images/generations", body | {"n": 10})
        assert error(answer) == (503, "busy")
        assert answer[1]["Retry-After"] == "1"


def test_a_hung_engine_ends_the_server_so_that_it_is_started_again(tmp_path: Path) -> None:
    with faulty_http_server(tmp_path, "--hang-s", "0.5") as (base, server):
        body = {"prompt": "a circle", "num_inference_steps": 30, "size": "64x64"}
        assert len(files(ask(base, "POST", "/v1/images/generations", body))) == 1
        answer = ask(base, "POST", "/v1/images/generations", body | {"prompt": "hang"})
        assert error(answer) == (503, "engine_lost")
        assert server.exit_code(30) == 1
        assert "no step within the deadline" in server.output()


@pytest.mark.parametrize("when", ["loading", "rendering"])
def test_a_server_that_is_told_to_stop_does_not_wait_for_its_engine(tmp_path: Path, when: str) -> None:
    with faulty_http_server(tmp_path, "--broken", "hang" if when == "loading" else "") as (base, server):
        if when == "rendering":
            connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=1)
            connection.request("POST", "/v1/images/generations", json.dumps({"prompt": "hang"}))
            with pytest.raises(TimeoutError):
                connection.getresponse()
            connection.close()
        assert ask(base, "GET", "/health")[0] == (503 if when == "loading" else 200)
        server.stop()
        assert "engine_server.thread_left_behind" in server.output()


def test_no_prompt_is_logged(quick: str, folder: Path) -> None:
    for body in ({"prompt": "CANARY-prompt"}, {"prompt": "CANARY-prompt", "n": 99}, {"prompt": ["CANARY-prompt"]}):
        answer = ask(quick, "POST", "/v1/images/generations", body)
        assert b"CANARY" not in answer[2]
    assert "CANARY" not in (folder.parent / "engine-server.log").read_text()
