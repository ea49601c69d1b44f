"""Generations over HTTP: asking, looking, waiting, listing, cancelling, and whose they are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from grpclib import Status

from gateway.models import responses
from gateway.routes import generations
from schema import pb
from tests.eventually import eventually
from tests.unit.gateway.fake_core import FakeCore, serving
from tests.unit.gateway.harness import PROMPT, SEED, Rig, rig, running, settings_for

UNKNOWN = "gen_00000000000000000000000000"


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, tenants=("alice", "bob")) as each:
        yield each


def only(gateway: Rig) -> pb.SubmitItem:
    """The one submission that core holds."""
    (stored,) = gateway.core.stored.values()
    return stored.item


@pytest.mark.asyncio
async def test_a_submission_is_answered_with_the_whole_generation_and_where_it_is(gateway: Rig) -> None:
    answer = await gateway.submit(n=2)
    assert answer.status == 202
    body = responses.Generation.model_validate(answer.body)
    assert answer.headers["Location"] == body.links.self == f"/v1/generations/{body.id}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert body.status == "queued"
    assert body.backlog_position == 1
    assert (body.model, body.width, body.height, body.num_inference_steps) == ("small", 128, 64, 4)
    assert [image.seed for image in body.images] == [SEED, SEED + 1]
    assert body.created_at == "2025-11-22T13:26:40.123Z"
    assert (await gateway.call("GET", body.links.self)).body == answer.body


@pytest.mark.asyncio
async def test_every_field_reaches_core_as_it_was_sent(gateway: Rig) -> None:
    fields: dict[str, Any] = {
        "negative_prompt": "blue\nand green",
        "model": "other",
        "width": 640,
        "height": 72,
        "num_inference_steps": 150,
        "guidance_scale": 7,
        "seed": 2**32 - 1,
        "n": 10,
        "output_format": "webp",
        "priority": -10,
        "ttl_s": 60,
    }
    answer = await gateway.submit(**fields)
    assert answer.status == 202, answer.raw
    item = only(gateway)
    assert item.tenant == "alice"
    assert (item.prompts.prompt, item.prompts.negative_prompt) == (PROMPT, "blue\nand green")
    assert item.spec.seed == 2**32 - 1
    assert item.spec.guidance_scale == 7.0
    assert int(item.spec.output_format) == 2
    assert (item.priority, item.ttl_s, item.spec.n) == (-10, 60, 10)
    assert {key: answer.body[key] for key in fields} == fields


@pytest.mark.asyncio
async def test_the_same_idempotency_key_and_body_is_the_same_generation(gateway: Rig) -> None:
    key = {"Idempotency-Key": "once"}
    first = await gateway.submit(key)
    again = await gateway.call("POST", "/v1/generations", b' { "prompt" :"a large red circle" }', key)
    assert again.status == 202
    assert again.body["id"] == first.body["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert (await gateway.submit(key, n=2)).problem(422)["error"]["param"] == "Idempotency-Key"
    assert (await gateway.submit(key, seed=SEED)).status == 422, "a seed that we drew is no part of the body"
    assert len(gateway.core.stored) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["", " ", "k" * 256, "schlüssel"])
async def test_an_idempotency_key_that_is_none_is_refused(gateway: Rig, key: str) -> None:
    problem = (await gateway.submit({"Idempotency-Key": key})).problem(422)
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    assert not gateway.core.stored


@pytest.mark.asyncio
async def test_core_s_refusals_reach_the_client_in_its_words(gateway: Rig) -> None:
    assert (await gateway.submit(prompt="core says no")).problem(422)["errors"] == [
        {"field": "prompt", "message": "is not liked"}
    ]
    gateway.core.backlog_cap = 0
    full = await gateway.submit()
    assert full.problem(429)["type"].endswith("backlog-full")
    assert full.headers["Retry-After"] == "7"


@pytest.mark.asyncio
async def test_an_unchanged_generation_is_304_and_a_changed_one_is_not(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    tag = (await gateway.call("GET", path)).headers["ETag"]
    for held in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        same = await gateway.call("GET", path, headers={"If-None-Match": held})
        assert (same.status, same.raw, same.headers["ETag"]) == (304, b"", tag)
    view = await gateway.core.move(path.rpartition("/")[2], 2, 2)
    assert (await gateway.call("GET", path, headers={"If-None-Match": tag})).status == 200
    moved = (await gateway.call("GET", path)).headers["ETag"]
    view.images[0].progress_step += 1
    assert (await gateway.call("GET", path)).headers["ETag"] not in (tag, moved), "progress is part of the body"


@pytest.mark.asyncio
async def test_a_wait_ends_with_the_generation(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gateway.call("GET", path, headers={"Prefer": "respond-async, wait=99"}))
        await eventually(lambda: len(gateway.core.gets) == 1)
        await gateway.core.move(path.rpartition("/")[2], 3, 3)
    answer = waiting.result()
    assert answer.body["status"] == "succeeded"
    assert answer.headers["Preference-Applied"] == "wait=60"


@pytest.mark.asyncio
async def test_a_wait_that_runs_out_answers_with_what_is(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    answer = await gateway.call("GET", path, headers={"Prefer": "wait=1"})
    assert (answer.status, answer.body["status"]) == (200, "queued")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.asyncio
@pytest.mark.parametrize("prefer", ["wait=-1", "wait=x", "wait=1e9", "awaits=5", "wait"])
async def test_a_preference_that_is_none_is_ignored(gateway: Rig, prefer: str) -> None:
    path = (await gateway.submit()).headers["Location"]
    answer = await gateway.call("GET", path, headers={"Prefer": prefer})
    assert "Preference-Applied" not in answer.headers


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_does_not_wait_on(gateway: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever opens waits and leaves takes the room of those who stay."""
    monkeypatch.setattr(generations, "_WAIT_SLICE_S", 0.1)
    path = (await gateway.submit()).headers["Location"]
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    key = f"Authorization: Bearer {gateway.key}"
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\n{key}\r\nPrefer: respond-async\r\nPrefer: wait=60\r\n\r\n".encode()
    )
    await eventually(lambda: len(gateway.core.gets) == 2)
    writer.close()
    await writer.wait_closed()

    async def answered() -> bool:
        async with gateway.session.get(f"http://127.0.0.1:{gateway.admin_port}/metrics") as metrics:
            text = await metrics.text()
        return 'darkroom_gateway_requests_total{operation="getGeneration",status="200"} 1.0' in text

    look: Callable[[], bool | Awaitable[bool]] = answered
    await eventually(look, 10)


@pytest.mark.asyncio
async def test_a_stopping_gateway_ends_waits_and_finishes_what_is_under_way(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gateway.call("GET", path, headers={"Prefer": "wait=60"}))
        await eventually(lambda: len(gateway.core.gets) == 1)
        gateway.shutdown.trigger()
        async with asyncio.timeout(8):
            answer = await waiting
    assert answer.body["status"] == "queued"


@pytest.mark.asyncio
async def test_the_list_pages_through_the_tenant_s_own_newest_first(gateway: Rig) -> None:
    bob = gateway.keys["bob"]
    made = [(await gateway.submit()).body["id"] for _ in range(5)]
    await gateway.core.move(made[0], 5, 5)
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await gateway.call("GET", f"/v1/generations?limit=2{cursor}")).body
        responses.GenerationList.model_validate(page)
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made[::-1]
    cancelled = (await gateway.call("GET", "/v1/generations?status=cancelled")).body["data"]
    assert [each["id"] for each in cancelled] == made[:1]
    assert (await gateway.call("GET", "/v1/generations", key=bob)).body["data"] == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=done", "cursor=%00", "cursor=zzz", "page=2", "limit=1&limit=2"]
)
async def test_a_bad_query_names_its_parameter(gateway: Rig, query: str) -> None:
    problem = (await gateway.call("GET", f"/v1/generations?{query}")).problem(422)
    assert [error["field"] for error in problem["errors"]] == [query.partition("=")[0]]


@pytest.mark.asyncio
async def test_a_cancel_holds_is_repeatable_and_comes_too_late(gateway: Rig) -> None:
    generation_id = (await gateway.submit()).body["id"]
    cancel = f"/v1/generations/{generation_id}/cancel"
    for _ in range(2):
        answer = await gateway.call("POST", cancel)
        assert (answer.status, answer.body["status"]) == (200, "cancelled")
    done = (await gateway.submit()).body["id"]
    await gateway.core.move(done, 3, 3)
    assert (await gateway.call("POST", f"/v1/generations/{done}/cancel")).problem(409)["state"] == "succeeded"


@pytest.mark.asyncio
async def test_a_foreign_id_looks_exactly_like_an_unknown_one(gateway: Rig) -> None:
    mine = (await gateway.submit()).body["id"]
    bob = gateway.keys["bob"]
    for method, tail in [("GET", ""), ("GET", "/images/0"), ("POST", "/cancel")]:
        answers = [
            await gateway.call(method, f"/v1/generations/{each}{tail}", key=bob)
            for each in (mine, UNKNOWN, "gen_1", "x", "..%2f..", "%00", "a" * 300)
        ]
        answers[0].problem(404)
        assert len({each.raw for each in answers}) == 1
        assert len({tuple((k, v) for k, v in each.headers.items() if k != "Date") for each in answers}) == 1
    assert gateway.core.stored[mine].view.status == pb.GenerationStatus.QUEUED
    assert {each.generation_id for each in gateway.core.gets} == {mine, UNKNOWN}, "core is asked for ids of ours only"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "image", "expected"),
    [(1, 1, 409), (2, 2, 409), (3, 3, 302), (4, 4, 410), (4, 3, 302), (5, 5, 410), (5, 3, 410), (6, 5, 410)],
)
async def test_an_image_is_a_redirect_or_says_why_not(gateway: Rig, status: int, image: int, expected: int) -> None:
    path = (await gateway.submit()).headers["Location"]
    view = await gateway.core.move(path.rpartition("/")[2], status, image)
    answer = await gateway.call("GET", f"{path}/images/0")
    assert answer.status == expected, answer.raw
    url = (await gateway.call("GET", path)).body["images"][0]["url"]
    assert (url is not None) is (expected == 302)
    if expected == 302:
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert answer.headers["Location"].startswith("http://127.0.0.1:1/bucket/token/0.png?")
        assert answer.raw == b""
        assert gateway.links.made == [("token/0.png", gateway.settings.gateway_link_s)]
        view.erased = True
        (await gateway.call("GET", f"{path}/images/0")).problem(410)
    if expected == 409:
        assert answer.headers["Retry-After"] == "1"


@pytest.mark.asyncio
@pytest.mark.parametrize("index", ["1", "10", "-1", "x", "00", "٠", "99999999999999999999"])
async def test_an_image_that_was_not_asked_for_is_unknown(gateway: Rig, index: str) -> None:
    path = (await gateway.submit()).headers["Location"]
    await gateway.core.move(path.rpartition("/")[2], 3, 3)
    (await gateway.call("GET", f"{path}/images/{index}")).problem(404)


@pytest.mark.asyncio
async def test_a_store_that_cannot_sign_is_503(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    await gateway.core.move(path.rpartition("/")[2], 3, 3)
    gateway.links.down = True
    answer = await gateway.call("GET", f"{path}/images/0")
    answer.problem(503)
    assert "Retry-After" in answer.headers


@pytest.mark.asyncio
async def test_models_are_listed_with_defaults_and_limits(gateway: Rig) -> None:
    body = (await gateway.call("GET", "/v1/models")).body
    models = responses.ModelList.model_validate(body).data
    assert [model.id for model in models] == ["small", "other"]
    assert (models[0].defaults.width, models[0].limits.height) == (128, 256)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [Status.INTERNAL, Status.UNKNOWN, Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED])
async def test_trouble_in_core_is_503_and_tells_nothing(gateway: Rig, status: Status) -> None:
    gateway.core.refuse_with = status
    for method, path, body in [
        ("POST", "/v1/generations", {"prompt": PROMPT}),
        ("GET", "/v1/generations", None),
        ("GET", f"/v1/generations/{UNKNOWN}", None),
        ("POST", f"/v1/generations/{UNKNOWN}/cancel", None),
    ]:
        answer = await gateway.call(method, path, body)
        answer.problem(503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert b"secret" not in answer.raw


@pytest.mark.asyncio
async def test_core_s_refusal_of_the_gateway_itself_is_a_500_that_tells_nothing(gateway: Rig) -> None:
    gateway.core.refuse_with = Status.UNAUTHENTICATED
    for answer in (await gateway.submit(), await gateway.call("GET", "/v1/generations")):
        assert b"secret" not in answer.raw
        assert answer.problem(500)["detail"] == "Internal error"


@pytest.mark.asyncio
async def test_a_broken_call_is_repeated_and_the_generation_is_one(gateway: Rig) -> None:
    gateway.core.break_next = 2
    assert (await gateway.submit()).status == 202
    assert len(gateway.core.stored) == 1


@pytest.mark.asyncio
async def test_core_that_is_not_there_is_503_and_not_ready_and_comes_back(tmp_path: Path) -> None:
    async with rig(tmp_path / "a", tenants=()) as other:
        free_port = other.port
    settings = settings_for(tmp_path, free_port)
    core = FakeCore()
    async with running(settings, core) as gateway:
        ready = await gateway.call("GET", "/readyz")
        assert ready.status == 503
        assert ready.body["reasons"] == ["core cannot be reached"] or ready.body["reasons"] == [
            "core has not answered yet"
        ]
        assert (await gateway.call("GET", "/healthz")).status == 200
        answer = await gateway.submit()
        answer.problem(503)
        assert "Retry-After" in answer.headers
        async with serving(core, port=free_port):
            await eventually(gateway.answers("/readyz", 200), what="ready again")
            assert (await gateway.submit()).status == 202


@asynccontextmanager
async def wire_to(core_port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A TCP proxy: its port, and a way to cut all that goes through it, as SIGKILL of core would."""
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", core_port)
        writers.extend((writer, far_writer))
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(reader, far_writer))
            group.create_task(carry(far_reader, writer))

    def cut() -> None:
        while writers:
            writers.pop().transport.abort()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], cut
        cut()


@pytest.mark.asyncio
async def test_a_connection_cut_under_the_probe_and_under_calls_ends_nothing(tmp_path: Path) -> None:
    core = FakeCore()
    async with serving(core) as (_, core_port), wire_to(core_port) as (port, cut):
        async with running(settings_for(tmp_path, port), core) as gateway, asyncio.TaskGroup() as group:
            await eventually(gateway.answers("/readyz", 200), what="ready")
            core.hold_probes = core.hold = asyncio.Event()
            before = core.probes
            await eventually(lambda: core.probes > before, what="a probe is under way")
            asked = group.create_task(gateway.submit())
            await eventually(lambda: len(core.batches) == 1, what="a call is under way")
            cut()
            await eventually(gateway.answers("/readyz", 503), what="not ready")
            core.hold.set()
            assert (await asked).status == 202
            await eventually(gateway.answers("/readyz", 200), what="ready again")
    assert len(core.stored) == 1, "the repeated call is the same generation"


@pytest.mark.asyncio
async def test_many_waits_hold_up_neither_submissions_nor_looks(gateway: Rig) -> None:
    """HTTP/2 allows 100 streams at once per connection; waits have connections of their own, and a bound."""
    path = (await gateway.submit()).headers["Location"]
    gateway.core.hold_waits = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:

        async def wait() -> int:
            headers = {"Authorization": f"Bearer {gateway.key}", "Prefer": "wait=60"}
            async with session.get(gateway.base + path, headers=headers) as answer:
                return answer.status

        waiting = [group.create_task(wait()) for _ in range(380)]
        await eventually(lambda: len(gateway.core.gets) >= 100, 30, what="many wait")
        assert (await gateway.submit()).status == 202
        assert (await gateway.call("GET", path)).status == 200
        await gateway.core.move(path.rpartition("/")[2], 3, 3)
        gateway.core.hold_waits.set()
        assert {await each for each in waiting} == {200}
