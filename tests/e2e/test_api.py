"""The public API against a whole stack: what a client does with a working darkroom."""

from collections.abc import Iterator
from hashlib import sha256

import pytest

from tests.api import CANARY, story
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("api")) as stack:
        yield stack
        invariants.check(stack)


def test_a_picture_from_prompt_to_link(stack: Stack) -> None:
    client = stack.client()
    answer = client.post(prompt=f"a large red circle {CANARY}", seed=7, negative_prompt=f"blue {CANARY}")
    accepted = answer.json()
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/generations/{accepted['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert accepted["status"] in {"queued", "running"}
    assert accepted["prompt"] == f"a large red circle {CANARY}"
    assert (accepted["model"], accepted["width"], accepted["num_inference_steps"]) == ("quick", 64, 4)
    assert accepted["links"]["self"] == answer.headers["location"]

    body = client.get(accepted["id"], wait_s=20)
    assert body["status"] == "succeeded"
    assert body["created_at"] <= body["started_at"] <= body["finished_at"]
    image = body["images"][0]
    assert image["url"].endswith(f"/v1/generations/{body['id']}/images/0")
    picture = client.picture(body["id"])
    assert picture.status == 200
    assert sha256(picture.body).hexdigest() == image["sha256"]
    invariants.check_generation(stack, client.tenant, body)


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_formats_and_several_images_with_seeds_of_their_own(stack: Stack, output_format: str) -> None:
    client = stack.client()
    body = client.submit(n=3, seed=2**32 - 2, output_format=output_format, width=128, height=72)
    done = client.ended(body["id"])
    assert [image["seed"] for image in done["images"]] == [2**32 - 2, 2**32 - 1, 0]
    assert len({image["sha256"] for image in done["images"]}) == 3
    invariants.check_generation(stack, client.tenant, done)


def test_a_wait_is_answered_when_it_ends_and_says_so(stack: Stack) -> None:
    client = stack.client()
    body = client.submit()
    answer = client.call("GET", f"/v1/generations/{body['id']}", headers={"Prefer": "wait=20"})
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"].startswith("wait")


def test_a_wait_that_runs_out_answers_with_what_is(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(model="slow")
    answer = client.call("GET", f"/v1/generations/{body['id']}", headers={"Prefer": "wait=1"})
    assert answer.status == 200
    assert answer.json()["status"] in {"queued", "running"}
    assert client.ended(body["id"])["status"] == "succeeded"


def test_progress_is_shown_while_it_runs(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(model="slow", num_inference_steps=60)
    seen = set()

    def moving() -> bool:
        now = client.get(body["id"])
        progress = now["progress"]
        if now["status"] == "running" and progress:
            assert progress["steps"] == 60
            seen.add(progress["step"])
        return len(seen) >= 2

    until(moving, 20, what="two different steps of progress")
    assert client.ended(body["id"])["status"] == "succeeded"


def test_an_unchanged_generation_is_304_and_a_changed_one_is_not(stack: Stack) -> None:
    client = stack.client()
    body = client.submit()
    early = client.call("GET", f"/v1/generations/{body['id']}").headers["etag"]
    client.ended(body["id"])
    path = f"/v1/generations/{body['id']}"
    answer = client.call("GET", path)
    again = client.call("GET", path, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status == 304
    assert again.body == b""
    assert again.headers["etag"] == answer.headers["etag"]
    assert client.call("GET", path, headers={"If-None-Match": '"another"'}).status == 200
    if early != answer.headers["etag"]:
        assert client.call("GET", path, headers={"If-None-Match": early}).status == 200


def test_the_list_is_newest_first_and_pages_by_cursor(stack: Stack) -> None:
    client = stack.client("bob")
    made = [client.submit()["id"] for _ in range(7)]
    client.succeeded(made)
    pages: list[list[str]] = []
    cursor = ""
    while True:
        answer = client.call("GET", f"/v1/generations?limit=3{cursor}").json()
        pages.append([body["id"] for body in answer["data"]])
        assert answer["has_more"] == bool(answer["next_cursor"])
        if not answer["next_cursor"]:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    listed = [each for page in pages for each in page]
    assert [len(page) for page in pages[:2]] == [3, 3]
    assert listed[:7] == made[::-1]
    assert len(set(listed)) == len(listed)


def test_the_list_can_be_narrowed_to_a_status(stack: Stack) -> None:
    client = stack.client("bob")
    done = client.ended(client.submit()["id"])
    assert done["id"] in {body["id"] for body in client.listed(status="succeeded")}
    assert all(body["status"] == "succeeded" for body in client.listed(status="succeeded"))
    assert done["id"] not in {body["id"] for body in client.listed(status="failed")}


def test_a_running_generation_is_cancelled(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(model="slow", num_inference_steps=150)
    until(lambda: client.get(body["id"])["status"] == "running", 20, what="it runs")
    answer = client.cancel(body["id"])
    assert answer.status == 200
    assert answer.json()["status"] == "cancelled"
    assert client.cancel(body["id"]).json()["status"] == "cancelled"
    assert client.get(body["id"])["status"] == "cancelled"
    client.call("GET", f"/v1/generations/{body['id']}/images/0").problem(410)


def test_a_finished_generation_cannot_be_cancelled(stack: Stack) -> None:
    client = stack.client()
    body = client.ended(client.submit()["id"])
    assert client.cancel(body["id"]).problem(409, "succeeded")["state"] == "succeeded"
    assert story(client.get(body["id"])) == story(body)


def test_another_tenants_generation_is_as_unknown_as_one_that_never_was(stack: Stack) -> None:
    owner, stranger = stack.client("alice"), stack.client("bob")
    body = owner.ended(owner.submit()["id"])
    never = "gen_00000000000000000000000000"
    for method, path in [("GET", ""), ("GET", "/images/0"), ("POST", "/cancel")]:
        foreign = stranger.call(method, f"/v1/generations/{body['id']}{path}")
        unknown = stranger.call(method, f"/v1/generations/{never}{path}")
        assert foreign.problem(404) == unknown.problem(404)
    assert body["id"] not in stranger.ids()


def test_the_same_key_and_body_give_the_same_generation(stack: Stack) -> None:
    client, other = stack.client("alice"), stack.client("bob")
    first = client.submit(key="once", seed=1)
    client.ended(first["id"])
    again = client.submit(key="once", seed=1)
    assert again["id"] == first["id"]
    assert again["status"] == "succeeded"
    client.post(key="once", seed=2).problem(422, "Idempotency-Key")
    assert other.submit(key="once", seed=2)["id"] != first["id"]
    assert client.ids().count(first["id"]) == 1


def test_an_image_index_that_was_not_asked_for_is_unknown(stack: Stack) -> None:
    client = stack.client()
    body = client.ended(client.submit(n=2)["id"])
    for index in ("2", "10", "-1", "x", "99999999999999999999"):
        client.call("GET", f"/v1/generations/{body['id']}/images/{index}").problem(404)


def test_models_are_listed_with_their_defaults(stack: Stack) -> None:
    answer = stack.client().call("GET", "/v1/models")
    assert [model["id"] for model in answer.json()["data"]] == ["quick", "slow"]


def test_health_and_readiness(stack: Stack) -> None:
    client = stack.client()
    assert client.call("GET", "/healthz", headers={"Authorization": ""}).status == 200
    assert client.call("GET", "/readyz", headers={"Authorization": ""}).status == 200
    for port in (stack.core_admin, *stack.gateway_admins, *stack.worker_admins):
        assert stack.readiness(port)[0] == 200
        assert stack.metrics(port)
