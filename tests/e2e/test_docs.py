"""The documentation that the gateway serves of itself, and the rule that keeps one key from taking everything."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api import CANARY
from tests.eventually import until
from tests.stack import Stack

RULES = """
[[rules]]
name = "submissions-per-key"
by = "key"
operations = ["createGeneration"]
rate_per_s = 0.5
burst = 3

[[rules]]
name = "reads-per-source"
by = "source"
operations = ["getGeneration"]
rate_per_s = 0.01
burst = 20
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("docs"), workers=0) as stack:
        yield stack


def test_the_specification_is_valid_openapi_3_1(stack: Stack) -> None:
    answer = stack.client().call("GET", "/openapi.json", headers={"Authorization": ""})
    assert answer.status == 200
    specification = answer.json()
    assert specification["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(specification).validate()
    assert set(specification["paths"]) >= {
        "/v1/generations",
        "/v1/generations/{generation_id}",
        "/v1/generations/{generation_id}/cancel",
        "/v1/generations/{generation_id}/images/{index}",
    }


def test_what_is_refused_is_what_the_specification_forbids(stack: Stack) -> None:
    specification = stack.client().call("GET", "/openapi.json").json()
    request = specification["components"]["schemas"]["GenerationRequest"]
    assert request["additionalProperties"] is False
    assert request["required"] == ["prompt"]
    assert request["properties"]["n"]["maximum"] == 10


def test_the_page_needs_nothing_from_elsewhere(stack: Stack) -> None:
    client = stack.client()
    answer = client.call("GET", "/docs", headers={"Authorization": ""})
    assert answer.status == 200, answer.headers
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "unsafe-eval" not in policy
    page = answer.body.decode()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "<script>" not in page, "an inline script, which the policy forbids or should"
    assets = re.findall(r"""(?:src|href)=["']([^"'#]+)["']""", page)
    assert assets
    for asset in assets:
        path = asset if asset.startswith("/") else f"/docs/{asset.removeprefix('./')}"
        found = client.call("GET", path, headers={"Authorization": ""})
        assert found.status == 200, f"{path}: {found.status}"
        assert found.headers["x-content-type-options"] == "nosniff"


def test_nobody_wanders_out_of_the_page_s_folder(stack: Stack) -> None:
    client = stack.client()
    for path in ("/docs/../openapi.py", "/docs/%2e%2e/%2e%2e/app.py", "/docs//etc/passwd", "/static/../app.py"):
        assert client.call("GET", path).status in {400, 404}, path


def test_problems_serve_readers_of_openai_s_errors_too(stack: Stack) -> None:
    problem = stack.client().post(width=100).problem(422, "width")
    assert problem["error"]["param"] == "width"
    assert problem["error"]["message"]
    assert CANARY not in json.dumps(problem)


def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    with Stack(tmp_path, workers=0, gateway_env={"DARKROOM_GATEWAY_RULES_FILE": str(rules)}) as stack:
        client, other = stack.client("alice"), stack.client("bob")
        answers = [client.post() for _ in range(6)]
        assert [answer.status for answer in answers[:3]] == [202, 202, 202]
        refused = [answer for answer in answers if answer.status != 202]
        assert refused
        for answer in refused:
            answer.problem(429)
            assert 1 <= int(answer.headers["retry-after"]) <= 2
            assert "submissions-per-key" in answer.headers["ratelimit"]
        assert other.post().status == 202, "another key has its own bucket"
        assert len(client.ids()) == 6 - len(refused), "a refused submission is not stored"
        until(lambda: client.post().status == 202, 10, what="the bucket fills again", every_s=0.3)


def test_a_source_that_asks_too_often_is_refused_whatever_its_key(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    with Stack(tmp_path, workers=0, gateway_env={"DARKROOM_GATEWAY_RULES_FILE": str(rules)}) as stack:
        unknown = "/v1/generations/gen_" + "0" * 26
        clients = [stack.client("alice"), stack.client("bob")]
        statuses = [clients[number % 2].call("GET", unknown).status for number in range(25)]
        assert statuses == [404] * 20 + [429] * 5
