"""The description is valid, tells what the gateway does, and holds against a fuzzer that believes it."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.app import description
from gateway.bodies.requests import GenerationRequest
from gateway.routes import OPERATIONS
from tests.unit.gateway.harness import Rig, rig


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as each:
        yield each


def test_it_is_valid_openapi_3_1() -> None:
    document: Any = description(["small"])
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_every_reference_leads_somewhere() -> None:
    document: Any = description(["small"])
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert "Problem" in named
    assert named <= set(document["components"]["schemas"])


def test_it_describes_every_operation_and_the_model_that_validates() -> None:
    document: Any = description(["small", "other"])
    described = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(described) == {(each.method, each.path) for each in OPERATIONS if each.documented}
    for each in OPERATIONS:
        if each.documented:
            assert bool(described[each.method, each.path]["security"]) is each.secured
            parameters = re.findall(r"{(\w+)}", each.path)
            in_path = [p["name"] for p in described[each.method, each.path].get("parameters", ()) if p["in"] == "path"]
            assert in_path == parameters
    request = document["components"]["schemas"]["GenerationRequest"]
    assert request["additionalProperties"] is False
    assert set(request["properties"]) == set(GenerationRequest.model_fields)
    assert request["properties"]["model"]["examples"] == ["small", "other"]


def test_every_number_of_a_request_has_its_bounds_in_words_of_json_schema() -> None:
    document: Any = description(["small"])
    properties: dict[str, Any] = document["components"]["schemas"]["GenerationRequest"]["properties"]
    numbers = {}
    for name, described in properties.items():
        for each in described.get("anyOf", [described]):
            assert not {"ge", "gt", "le", "lt", "multiple_of"} & set(each), f"{name}: pydantic's words"
            if each["type"] in {"integer", "number"}:
                numbers[name] = each
    assert set(numbers) >= {"n", "width", "height", "seed", "priority", "ttl_s", "num_inference_steps"}
    for name, each in numbers.items():
        assert "minimum" in each, name
        assert {"maximum", "exclusiveMaximum"} & set(each), name


@pytest.mark.asyncio
async def test_the_page_and_all_it_needs_come_from_here(gateway: Rig) -> None:
    page = await gateway.call("GET", "/docs", key="")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.raw.decode()
    assert "<script>" not in text
    assert "style=" not in text
    needed = re.findall(r"""(?:src|href)=["']([^"'#]+)["']""", text)
    assert len(needed) >= 5
    for path in needed:
        assert path.startswith("/")
        found = await gateway.call("GET", path, key="")
        assert found.status == 200, path
        again = await gateway.call("GET", path, headers={"If-None-Match": found.headers["ETag"]}, key="")
        assert (again.status, again.raw) == (304, b"")


@pytest.mark.asyncio
async def test_the_description_is_served_as_it_is_made(gateway: Rig) -> None:
    served = await gateway.call("GET", "/openapi.json", key="")
    assert served.body == description(["small", "other"])


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_fuzzer_that_believes_the_description_finds_nothing(gateway: Rig, tmp_path: Path) -> None:
    """Every answer conforms, nothing is a 500, what the description forbids is refused.

    What it allows may be refused for what a schema cannot say: a foreign cursor, a key used before, an image that
    is not there. So that one check is left out.
    """
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("run", f"{gateway.base}/openapi.json", "-H", f"Authorization: Bearer {gateway.key}", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "-n", "8", "--seed", "20261122", "--request-timeout", "10"),
        *("--exclude-checks", "positive_data_acceptance"),
    ]
    fuzzer = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(110):
        told, _ = await fuzzer.communicate()
    report = told.decode()
    assert fuzzer.returncode == 0, report[-6000:]
    assert "Tested: 10" in report, report
    assert len(gateway.core.stored) > 5, "it got nothing accepted, so it tested nothing"
