"""Generations over HTTP: asking, looking, listing, cancelling, their images, and whose they are."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.bodies import responses
from schema import pb
from tests.unit.gateway.harness import PICTURE, PROMPT, SEED, UNKNOWN, Rig, rig


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
@pytest.mark.parametrize(("bound", "name"), [(1, "share"), (2, "everything"), (0, "everything")])
async def test_a_full_backlog_says_whose_work_is_in_the_way_and_when_to_come_back(
    gateway: Rig, bound: int, name: str
) -> None:
    gateway.core.backlog_cap = 0
    for told, said in ((0, "1"), (119, "119"), (4_000, "120")):
        gateway.core.bound, gateway.core.retry_after_s = bound, told
        full = await gateway.submit()
        problem = full.problem(429)
        assert (problem["bound"], full.headers["Retry-After"]) == (name, said)
        assert ("your share" in problem["detail"]) == (name == "share")
        assert not any(character.isdigit() for character in problem["detail"]), "no figure tells of others"


@pytest.mark.asyncio
async def test_core_hears_what_a_request_without_wishes_is(gateway: Rig) -> None:
    await gateway.submit(width=256, num_inference_steps=9)
    [default] = gateway.core.default_specs
    assert (default.model, default.width, default.height, default.num_inference_steps) == ("small", 128, 64, 4)
    assert (default.guidance_scale, default.n) == (3.5, 1)


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
async def test_erasing_leaves_the_story_without_its_content_and_can_be_repeated(gateway: Rig) -> None:
    first = await gateway.submit({"Idempotency-Key": "once"})
    path = f"/v1/generations/{first.body['id']}"
    assert first.body["erased"] is False
    assert (await gateway.call("DELETE", path)).problem(409)["state"] == "queued"
    done = await gateway.core.move(first.body["id"], 3, 3)
    before = await gateway.call("GET", path)
    answers = [await gateway.call("DELETE", path) for _ in range(2)]
    seen = await gateway.call("GET", path)
    again = await gateway.submit({"Idempotency-Key": "once"})
    listed = (await gateway.call("GET", "/v1/generations")).body["data"]
    assert [each.status for each in answers] == [200, 200]
    assert answers[0].raw == answers[1].raw == seen.raw == again.raw
    assert listed == [seen.body]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert answers[0].headers["ETag"] == seen.headers["ETag"] != before.headers["ETag"]
    assert seen.body == before.body | {
        "erased": True,
        "version": done.version,
        "prompt": "",
        "negative_prompt": "",
        "seed": None,
        "progress": None,
        "images": [
            {
                "index": 0,
                "status": "erased",
                "seed": None,
                "url": None,
                "signed_url": None,
                "signed_url_expires_at": None,
                "sha256": None,
                "size_bytes": None,
                "error": None,
            }
        ],
    }
    (await gateway.call("GET", f"{path}/images/0")).problem(410)


@pytest.mark.asyncio
async def test_a_foreign_id_looks_exactly_like_an_unknown_one(gateway: Rig) -> None:
    mine = (await gateway.submit()).body["id"]
    bob = gateway.keys["bob"]
    for method, tail in [("GET", ""), ("GET", "/images/0"), ("POST", "/cancel"), ("DELETE", "")]:
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
    [(1, 1, 409), (2, 2, 409), (3, 3, 200), (4, 4, 410), (4, 3, 200), (5, 5, 410), (5, 3, 410), (6, 5, 410)],
)
async def test_an_image_is_sent_or_says_why_not(gateway: Rig, status: int, image: int, expected: int) -> None:
    path = await gateway.published()
    view = await gateway.core.move(path.rpartition("/")[2], status, image)
    view.images[0].sha256, view.images[0].size_bytes = sha256(PICTURE).digest(), len(PICTURE)
    answer = await gateway.call("GET", f"{path}/images/0")
    assert answer.status == expected, answer.raw
    shown = (await gateway.call("GET", path)).body["images"][0]
    assert (shown["url"] is not None) is (shown["signed_url"] is not None) is (expected == 200)
    if expected == 200:
        assert answer.raw == PICTURE
        view.erased = True
        (await gateway.call("GET", f"{path}/images/0")).problem(410)
        signed = shown["signed_url"].removeprefix(gateway.base)
        (await gateway.call("GET", signed, key="")).problem(410)
    if expected == 409:
        assert answer.headers["Retry-After"] == "1"


@pytest.mark.asyncio
@pytest.mark.parametrize("index", ["1", "10", "-1", "x", "00", "٠", "99999999999999999999"])
async def test_an_image_that_was_not_asked_for_is_unknown(gateway: Rig, index: str) -> None:
    path = (await gateway.submit()).headers["Location"]
    await gateway.core.move(path.rpartition("/")[2], 3, 3)
    (await gateway.call("GET", f"{path}/images/{index}")).problem(404)


@pytest.mark.asyncio
async def test_models_are_listed_with_defaults_and_limits(gateway: Rig) -> None:
    body = (await gateway.call("GET", "/v1/models")).body
    models = responses.ModelList.model_validate(body).data
    assert [model.id for model in models] == ["small", "other"]
    assert (models[0].defaults.width, models[0].limits.height) == (128, 256)
