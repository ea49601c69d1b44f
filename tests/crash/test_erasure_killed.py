"""core dies by SIGKILL at each step of an erasure; started again, nothing is left of it, and all else is there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cloud import PUBLIC
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

STEPS = [
    "core.after_erasure_listed",  # on the list, and not in the log
    "core.before_commit",  # decided, and not written
    "core.after_commit",  # in the log: the prompt is gone, nobody was told
    "core.before_erased_objects_go",  # nothing is deleted
    "core.after_erased_objects_went",  # deleted, and nobody wrote it down
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("erasure")) as stack:
        yield stack
        stack.core.stop()
        stack.command("core", "verify")
        stack.restart_core()


@pytest.mark.parametrize("step", STEPS)
def test_an_erasure_is_whole_wherever_core_dies(stack: Stack, step: str) -> None:
    client = stack.client()
    ids = [client.submit(n=2, seed=number)["id"] for number in range(3)]
    client.succeeded(ids)
    stack.core.stop()
    stack.restart_core(DARKROOM_FAILPOINTS=f"{step}=kill@1")
    path = f"/v1/generations/{ids[1]}"
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(lambda: client.call("DELETE", path, timeout_s=60))
        stack.core.died_by_kill()
        stack.restart_core()
        assert told.result().status in {200, 503}
    if step == "core.before_commit":
        # Erased by its place on the list already, without anybody asking again.
        assert client.get(ids[1])["erased"]
    assert client.call("DELETE", path).status == 200
    assert client.get(ids[1])["erased"]
    assert not client.get(ids[0])["erased"]
    invariants.check(stack)


def test_objects_go_though_the_store_was_away_and_core_died_meanwhile(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(n=2)
    client.succeeded([body["id"]])
    stack.core.stop()
    stack.restart_core(DARKROOM_FAILPOINTS="core.before_erased_objects_go=sleep:600")
    assert client.call("DELETE", f"/v1/generations/{body['id']}").status == 200
    before = stack.cloud.objects(PUBLIC)
    stack.emulator.kill()
    stack.core.kill()
    stack.core.start()
    until(lambda: stack.readiness(stack.core_admin)[0] == 503, 20, what="core is up, without a store")
    stack.emulator.start()
    stack.ready()
    assert stack.cloud.objects(PUBLIC) <= before
    invariants.check(stack)
