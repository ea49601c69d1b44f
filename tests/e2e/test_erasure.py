"""Erasure through the gateway, by retention and by an operator, and that it survives what operators do to the log."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api import Body, Client, fetch
from tests.cloud import PUBLIC
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

WORDS = "words that nobody may find again"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        yield stack
        invariants.check(stack)


def made(client: Client, **fields: Any) -> Body:
    """A generation that has succeeded."""
    body = client.submit(prompt=WORDS, **fields)
    [done] = client.succeeded([body["id"]])
    return done


def erase(client: Client, generation_id: str) -> Body:
    answer = client.call("DELETE", f"/v1/generations/{generation_id}")
    assert answer.status == 200, answer.body
    assert answer.json()["erased"] is True
    return answer.json()


def listed(stack: Stack) -> set[str]:
    prefix = "_darkroom/darkroom-jobs/erased/"
    return {key.removeprefix(prefix) for key in stack.cloud.objects(PUBLIC) if key.startswith(prefix)}


def words_on_disk(folder: Path) -> list[str]:
    return [str(each) for each in folder.rglob("*") if each.is_file() and WORDS.encode() in each.read_bytes()]


def test_prompt_pictures_and_links_are_gone_and_the_story_remains(stack: Stack) -> None:
    client = stack.client()
    done, other = made(client, n=2, key="once"), made(client)
    link = client.call("GET", f"/v1/generations/{done['id']}/images/0")
    client.call("DELETE", f"/v1/generations/{'gen_' + '0' * 26}").problem(404)
    stack.client("bob").call("DELETE", f"/v1/generations/{done['id']}").problem(404)
    shown = erase(client, done["id"])
    assert shown == erase(client, done["id"]) == client.get(done["id"])
    assert [body for body in client.listed() if body["id"] == done["id"]] == [shown]
    assert (shown["status"], shown["prompt"], shown["seed"], shown["finished_at"]) == (
        "succeeded",
        "",
        None,
        done["finished_at"],
    )
    assert [image["status"] for image in shown["images"]] == ["erased", "erased"]
    assert client.submit(prompt=WORDS, n=2, key="once") == shown
    for index in range(2):
        client.call("GET", f"/v1/generations/{done['id']}/images/{index}").problem(410)
    until(lambda: len(invariants.pictures(stack)) == 1, 10, what="both pictures are deleted")
    if link.status in {302, 303, 307}:
        path = link.headers["location"].partition("//")[2].partition("/")[2]
        assert fetch("127.0.0.1", stack.emulator_port, "GET", f"/{path}", None, {}, 10).status == 404
    assert listed(stack) == {done["id"]}
    story = stack.command("core", "history", done["id"], "--prompt")
    assert "asked for by its tenant" in story
    assert "its prompt was erased" in story
    assert made(client)["prompt"] == client.get(other["id"])["prompt"] == WORDS
    stack.command("core", "verify")


def test_what_has_not_ended_is_refused_with_its_state(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(model="slow", num_inference_steps=150, n=4)
    problem = client.call("DELETE", f"/v1/generations/{body['id']}").problem(409)
    assert problem["state"] in {"queued", "running"}
    assert problem["type"] == "urn:darkroom:problem:not-ended"
    assert client.cancel(body["id"]).status == 200
    assert erase(client, body["id"])["status"] == "cancelled"


def test_the_prompt_is_in_no_file_of_core_any_more(stack: Stack) -> None:
    client = stack.client()
    done = made(client)
    folder = stack.folder / "data"
    until(lambda: words_on_disk(folder), 10, what="the prompt lies on the disk")
    erase(client, done["id"])
    until(lambda: not words_on_disk(folder), 20, what="it lies there no longer")


def test_a_backup_brings_nothing_back_wherever_it_is_put(tmp_path: Path) -> None:
    """In the place of a log that is there, of one whose folder is lost, and on another machine."""
    with Stack(tmp_path) as stack:
        put_back_everywhere(stack)


def put_back_everywhere(stack: Stack) -> None:
    client = stack.client()
    done, kept = made(client), made(client)
    running = client.submit(prompt=WORDS, model="slow", num_inference_steps=150, n=4)
    backup = stack.folder / "backup.sqlite3"
    stack.command("core", "backup", str(backup))
    client.cancel(running["id"])
    for each in (done, running):
        erase(client, each["id"])
    until(lambda: len(invariants.pictures(stack)) == 1, 10, what="the picture is deleted")
    stack.core.stop()
    told = stack.command("core", "restore", str(backup), "--replace")
    assert "2 generations that were erased after the backup are erased in it again" in told
    stack.command("core", "verify")
    gone(stack, client, done, running, kept)
    stack.core.stop()
    shutil.rmtree(stack.folder / "data" / "core")
    stack.command("core", "restore", str(backup))
    gone(stack, client, done, running, kept)
    stack.core.stop()
    elsewhere = stack.folder / "elsewhere"
    stack.command("core", "restore", str(backup), data=elsewhere)
    stack.restart_core(DARKROOM_DATA_DIR=str(elsewhere))
    gone(stack, client, done, running, kept, start=False)
    stack.command("core", "verify", data=elsewhere)


def gone(stack: Stack, client: Client, done: Body, running: Body, kept: Body, *, start: bool = True) -> None:
    if start:
        stack.restart_core()
    assert (client.get(done["id"])["erased"], client.get(running["id"])["erased"]) == (True, True)
    assert client.get(running["id"])["status"] == "cancelled"
    assert client.get(kept["id"])["prompt"] == WORDS
    client.call("GET", f"/v1/generations/{done['id']}/images/0").problem(410)


def test_an_operator_erases_by_id_and_by_tenant(stack: Stack) -> None:
    alice, bob = stack.client(), stack.client("bob")
    own, foreign = [made(alice) for _ in range(3)], made(bob)
    stack.workers[0].signal(signal.SIGSTOP)
    slow = alice.submit()
    told = stack.command("core", "erase", own[0]["id"], "gen_unknown", expect=1)
    assert f"{own[0]['id']}  erased" in told
    assert "gen_unknown  is unknown" in told
    stack.command("core", "erase", "--tenant", "alice", expect=2)
    told = stack.command("core", "erase", "--tenant", "alice", "--yes", expect=1)
    assert "2 erased, 1 not" in told
    assert f"{slow['id']}  is" in told
    told = stack.command("core", "erase", "--tenant", "alice", "--yes", "--cancel")
    assert "1 erased" in told
    stack.workers[0].signal(signal.SIGCONT)
    assert all(body["erased"] for body in alice.listed())
    assert not bob.get(foreign["id"])["erased"]
    stack.command("core", "erase", foreign["id"], "--tenant", "alice", expect=1)
    assert not bob.get(foreign["id"])["erased"]
    assert "asked for by an operator" in stack.command("core", "history", own[0]["id"])
    stack.core.stop()
    assert "core cannot be reached" in stack.command("core", "erase", foreign["id"], expect=2)
    stack.restart_core()


def test_finished_generations_go_when_their_tenants_time_is_over(tmp_path: Path) -> None:
    rules = tmp_path / "retention.toml"
    rules.write_text("[tenants]\nbob = 0\n", "utf-8")
    days = str(6 / 86_400)
    env = {"DARKROOM_CORE_RETENTION_DAYS": days, "DARKROOM_CORE_RETENTION_FILE": str(rules)}
    with Stack(tmp_path, env=env) as stack:
        mine, bobs = made(stack.client()), made(stack.client("bob"))
        assert not stack.client().get(mine["id"])["erased"]
        until(lambda: stack.client().get(mine["id"])["erased"], 30, what="alice's is erased", every_s=0.2)
        assert "kept for as long as its tenant's retention says" in stack.command("core", "history", mine["id"])
        assert not stack.client("bob").get(bobs["id"])["erased"]
        invariants.check(stack)
        rules.write_text("[tenants]\nbob = 'long'\n", "utf-8")
        stack.core.stop()
        stack.core.start()
        assert stack.core.exit_code() == 2
        [line] = [each for each in stack.core.output().splitlines() if each.startswith("darkroom: ")]
        assert f"DARKROOM_CORE_RETENTION_FILE: {rules} says bob = 'long'" in line
        rules.write_text("", "utf-8")
        stack.restart_core()
