"""What the gateway's address leads to, unknown paths, OPTIONS and CORS."""

from pathlib import Path

import pytest

from gateway.edge.cors import parsed
from gateway.edge.endpoints import Endpoints
from gateway.routes import OPERATIONS
from tests.integration.gateway_process import command, environment
from tests.unit.gateway.harness import UNKNOWN, Rig, rig

APP = "https://app.example.org"
ENDPOINTS = Endpoints([each.path for each in OPERATIONS if each.documented or each.id == "docs"])


@pytest.mark.asyncio
async def test_the_address_leads_to_what_there_is(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        body = (await gateway.call("GET", "/", key="")).body
        for path in body["links"].values():
            assert (await gateway.call("GET", path)).status == 200, path
        page = await gateway.call("GET", "/", key="", headers={"Accept": "text/html,*/*;q=0.8"})
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Vary"] == "Accept"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        for path in body["links"].values():
            assert f'href="{path}"' in page.raw.decode()


@pytest.mark.asyncio
async def test_an_unknown_path_and_an_unknown_id_are_told_apart(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        endpoint = (await gateway.call("GET", f"/generations/{UNKNOWN}")).problem(404)
        identifier = (await gateway.call("GET", f"/v1/generations/{UNKNOWN}")).problem(404)
        image = (await gateway.call("GET", f"{await gateway.published()}/images/7")).problem(404)
        assert len({each["type"] for each in (endpoint, identifier, image)}) == 3
        assert len({each["error"]["code"] for each in (endpoint, identifier, image)}) == 3
        assert "no such endpoint" in endpoint["detail"]
        assert "/v1/generations/{generation_id}" in endpoint["detail"]
        assert "no such generation" in identifier["detail"]
        unlike = (await gateway.call("GET", "/xq7canary?secret=xq7")).problem(404)
        assert "xq7" not in str(unlike)
        assert "/docs" in unlike["detail"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/generations", "/v1/generations"),
        ("/v1/generations/", "/v1/generations"),
        ("//v1//generations", "/v1/generations"),
        ("/v1/v1/generations", "/v1/generations"),
        ("/V1/Generations", "/v1/generations"),
        ("/v1/images/generations", "/v1/generations"),
        ("/images/generations", "/v1/generations"),
        ("/v1/generation", "/v1/generations"),
        ("/api/v1/models", "/v1/models"),
        ("/models", "/v1/models"),
        (f"/generations/{UNKNOWN}/cancel", "/v1/generations/{generation_id}/cancel"),
        (f"/v1/generations/{UNKNOWN}/image/0", "/v1/generations/{generation_id}/images/{index}"),
        ("/openapi", "/openapi.json"),
        ("/health", "/healthz"),
        ("/doc", "/docs"),
        ("/wp-admin/setup.php", None),
        ("/" + "a" * 100_000, None),
    ],
)
def test_the_closest_path_is_suggested(path: str, meant: str | None) -> None:
    assert ENDPOINTS.closest(path) == meant


@pytest.mark.asyncio
async def test_options_and_wrong_methods_name_the_right_ones(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        for path, allowed in (
            ("/v1/generations", "GET, HEAD, OPTIONS, POST"),
            (f"/v1/generations/{UNKNOWN}/cancel", "OPTIONS, POST"),
            (f"/v1/generations/{UNKNOWN}/images/0", "GET, HEAD, OPTIONS"),
            ("/", "GET, HEAD, OPTIONS"),
        ):
            answer = await gateway.call("OPTIONS", path, key="")
            assert (answer.status, answer.raw, answer.headers["Allow"]) == (204, b"", allowed)
            assert "Access-Control-Allow-Origin" not in answer.headers
            wrong = await gateway.call("PUT", path)
            wrong.problem(405)
            assert wrong.headers["Allow"] == allowed
        (await gateway.call("OPTIONS", "/nowhere")).problem(404)


PREFLIGHT = {
    "Origin": APP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,Idempotency-Key,last-event-id,prefer,if-none-match,"
    "x-stainless-arch,x-stainless-retry-count,x-evil",
}


@pytest.mark.asyncio
async def test_a_page_of_a_named_origin_may_call(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_cors_origins=f"{APP}, http://localhost:5173") as gateway:
        answer = await gateway.call("OPTIONS", "/v1/generations", key="", headers=PREFLIGHT)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == APP
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        allowed = set(answer.headers["Access-Control-Allow-Headers"].split(", "))
        assert allowed == {each.lower() for each in PREFLIGHT["Access-Control-Request-Headers"].split(",")} - {"x-evil"}
        assert "Access-Control-Allow-Credentials" not in answer.headers
        made = await gateway.submit(headers={"Origin": APP})
        errors = [
            await gateway.call("GET", "/v1/generations", key="", headers={"Origin": APP}),
            await gateway.call("GET", "/nowhere", headers={"Origin": APP}),
            await gateway.call("PUT", "/v1/models", headers={"Origin": APP}),
            await gateway.submit(headers={"Origin": APP}, width=1),
            await gateway.call("GET", f"{await gateway.published()}/images/0", headers={"Origin": APP}),
        ]
        for each in (made, *errors):
            assert each.headers["Access-Control-Allow-Origin"] == APP
            assert "Origin" in each.headers["Vary"]
            exposed = each.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Location", "Retry-After", "ETag", "RateLimit", "X-Request-Id", "Content-Range"} <= set(exposed)
        for origin in ("https://evil.example", "null", f"{APP}.evil", "http://app.example.org", f"{APP}:444", ""):
            other = await gateway.call("OPTIONS", "/v1/generations", key="", headers={**PREFLIGHT, "Origin": origin})
            assert not [name for name in other.headers if name.startswith("Access-Control")], origin
            assert "Origin" in other.headers["Vary"]


@pytest.mark.asyncio
async def test_any_origin_where_all_are_allowed_and_never_without_keys(tmp_path: Path) -> None:
    async with rig(tmp_path / "a", gateway_cors_origins="*") as gateway:
        answer = await gateway.call("GET", "/v1/models", headers={"Origin": "https://any.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    async with rig(tmp_path / "b", tenants=(), gateway_cors_origins="*") as keyless:
        answer = await keyless.call("OPTIONS", "/v1/generations", headers=PREFLIGHT)
        assert answer.status == 403
        for each in (answer, await keyless.call("GET", "/v1/models")):
            assert "Access-Control-Allow-Origin" not in each.headers


@pytest.mark.parametrize(
    "text", ["app.example.org", f"{APP}/", f"{APP}/x", "*, https://a.b", "null", "https://*.b", "ftp://a"]
)
def test_a_wrong_origin_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValueError):
        parsed(text)


@pytest.mark.asyncio
async def test_wrong_settings_are_named(tmp_path: Path) -> None:
    for name, value, about in (
        ("CORS_ORIGINS", "app.example.org", "https://app.example.org"),
        ("LINK_SECRET", "short", "32 characters"),
        ("IMAGES", "proxy", "redirect"),
        ("SIGNED_URL_S", "0", "greater"),
    ):
        code, _, err = await command(environment(tmp_path, **{f"DARKROOM_GATEWAY_{name}": value}))
        assert code == 2
        assert f"DARKROOM_GATEWAY_{name}" in err
        assert about in err
        assert err.count("\n") == 1


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.asyncio
async def test_what_the_gateway_keeps_is_its_owners_alone(tmp_path: Path) -> None:
    env = environment(tmp_path)
    assert (await command(env, "keys", "create", "acme"))[0] == 0
    data = tmp_path / "var"
    assert {mode(path) for path in (data, data / "gateway")} == {0o700}
    for action in ("rotate", "rotate", "revoke"):
        assert (await command(env, "links", action))[0] == 0
    assert {mode(path) for path in (data / "gateway").iterdir()} == {0o600}
    (data / "gateway").chmod(0o755)  # as an earlier release left it
    async with rig(tmp_path) as gateway:
        assert isinstance(gateway, Rig)
        assert mode(data / "gateway") == 0o700
