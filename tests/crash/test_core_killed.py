"""core dies by SIGKILL at each named place while work flows; started again, it finishes all of it, once."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.api import Answer, Client
from tests.cloud import PUBLIC
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

AFTER_ACCEPTING = [
    "core.before_send",  # dispatch decided, nothing sent (faults.md 11)
    "core.after_send",  # sent, and nobody wrote it down
    "core.after_rendered",  # a picture has won, its copy not begun (12)
    "core.mid_copy",  # 13
    "core.after_copy",  # copied, and nobody wrote it down (14)
    "core.before_reply_delete",  # 15
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"DARKROOM_GATEWAY_SUBMIT_TIMEOUT_S": "4"}
    with Stack(tmp_path_factory.mktemp("core"), gateway_env=env) as stack:
        yield stack
        stack.core.stop()
        stack.command("core", "verify")
        stack.restart_core()


@pytest.mark.parametrize("place", AFTER_ACCEPTING)
def test_accepted_work_is_finished_once_wherever_core_dies(stack: Stack, place: str) -> None:
    client = stack.client()
    stack.core.stop()
    stack.restart_core(DARKROOM_FAILPOINTS=f"{place}=kill@3")
    ids = accepted_until_death(stack, client)
    stack.core.died_by_kill()
    stack.restart_core()
    client.succeeded(ids, 40)
    invariants.check(stack)


def accepted_until_death(stack: Stack, client: Client) -> list[str]:
    """Submit until core is dead; the ids that were accepted. One at a time, so that each has a dispatch of its own."""
    ids = []
    for number in range(40):
        answer = client.post(n=2, seed=number)
        if answer.status != 202:
            answer.problem(503)
            break
        ids.append(answer.json()["id"])
        if len(ids) >= 8 and not stack.core.alive:
            break
    assert ids
    return ids


@pytest.mark.parametrize(("place", "durable"), [("core.before_commit", False), ("core.after_commit", True)])
def test_a_submission_core_dies_over_is_repeated_safely(stack: Stack, place: str, durable: bool) -> None:
    """The client is told nothing, or 503; the same key afterwards gives one generation (9, 10)."""
    client = stack.client("bob")
    before = client.ids()
    durable_before = requested(stack)
    stack.core.stop()
    stack.restart_core(DARKROOM_FAILPOINTS=f"{place}=kill@1")
    key = uuid4().hex
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: client.post(key=key, seed=3, timeout_s=60))
        stack.core.died_by_kill()
        assert len(requested(stack) - durable_before) == durable
        stack.restart_core()
        answer: Answer = first.result()
    if answer.status != 202:
        answer.problem(503)
        assert int(answer.headers["retry-after"]) >= 1
    again = client.submit(key=key, seed=3)
    assert answer.status != 202 or answer.json()["id"] == again["id"]
    assert [each for each in client.ids() if each not in before] == [again["id"]]
    client.succeeded([again["id"]])
    invariants.check(stack)


def requested(stack: Stack) -> set[str]:
    """The generations that are in the log, whether anybody was told or not."""
    return {line.stream for line in invariants.read_log(stack) if line.type == "generation.requested"}


def test_what_core_was_told_while_it_was_away_is_read_when_it_returns(stack: Stack) -> None:
    """The worker goes on without core; its replies wait on the queue."""
    client = stack.client()
    ids = client.submit_many([{"seed": k, "n": 2, "model": "slow", "num_inference_steps": 20} for k in range(4)])
    until(lambda: any(client.get(each)["status"] == "running" for each in ids), 20, what="one runs")
    stack.core.kill()
    until(lambda: stack.cloud.waiting("darkroom-replies") >= 8, 30, what="replies pile up", every_s=0.2)
    client.call("GET", f"/v1/generations/{ids[0]}").problem(503)
    stack.restart_core()
    client.succeeded(ids, 40)
    invariants.check(stack)


def rendered(stack: Stack, made: str) -> bool:
    return any(line.stream == made and line.type == "image.rendered" for line in invariants.read_log(stack))


def test_a_cancel_in_mid_copy_leaves_no_picture_behind(stack: Stack) -> None:
    """Some of five are drawn and copied, and nobody has written that down yet, when the client cancels."""
    client = stack.client()
    stack.core.stop()
    stack.restart_core(DARKROOM_FAILPOINTS="core.after_copy=sleep:3")
    before = stack.cloud.objects(PUBLIC)
    body = client.submit(model="slow", n=5, num_inference_steps=40)
    until(lambda: rendered(stack, body["id"]), 20, what="the first are drawn")
    stack.workers[0].signal(signal.SIGSTOP)  # the fifth has two seconds to go, and is not to be done first
    try:
        until(lambda: stack.cloud.objects(PUBLIC) - before, 20, what="a copy lies in the public bucket")
        cancelled = client.cancel(body["id"])
    finally:
        stack.workers[0].signal(signal.SIGCONT)
    assert cancelled.status == 200, cancelled.body
    assert "published" not in [image["status"] for image in cancelled.json()["images"]]
    until(lambda: stack.cloud.objects(PUBLIC) == before, 20, what="the copies are gone")
    client.call("GET", f"/v1/generations/{body['id']}/images/0").problem(410)
    stack.core.stop()
    stack.restart_core()
