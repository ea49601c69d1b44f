"""The engine in a process of its own dies in every way there is; the worker's end says so and starts it again."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_processes import ROOT, faulty, job
from tests.eventually import until
from tests.process import Process
from worker.engines.child_process.engine import UdsEngine
from worker.engines.child_process.messages import RemoteModelError
from worker.engines.contract import Progress, RenderJob
from worker.engines.emulated import draw
from worker.engines.errors import BadOutput, EngineDied, LoadFailed, OutOfMemory


@pytest.fixture
def engine() -> Iterator[UdsEngine]:
    with faulty() as made:
        yield made


def render(engine: UdsEngine, *jobs: RenderJob) -> dict[str, bytes]:
    engine.admit(jobs)
    done: dict[str, bytes] = {}
    while len(done) < len(jobs):
        for each in engine.step(lambda _: None).finished:
            picture = engine.decode(each)
            assert not hasattr(picture, "media_type")
            done[each.job_id] = picture.rgb
    return done


def gone(pid: int) -> bool:
    """Ended and reaped, or a zombie of somebody else's."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def renders_again(engine: UdsEngine, *, after: int) -> None:
    """Started anew by reset, with nothing left of the old members."""
    assert not engine.loaded
    engine.reset()
    assert engine.loaded
    assert engine.pid != after
    assert gone(after)
    assert render(engine, job(7)) == {"gen_7/0": draw("gen_7", 0, 107, 64, 64)}


@pytest.mark.parametrize(
    ("fault", "how"), [("segfault", "ended by SIGSEGV"), ("lost", "exited with code 3")], ids=["segfault", "lost"]
)
def test_a_model_that_ends_its_process_is_started_again(engine: UdsEngine, fault: str, how: str) -> None:
    pid = engine.pid
    engine.admit([job(1), job(2, fault), job(3)])
    with pytest.raises(EngineDied, match=how):
        engine.step(lambda _: None)
    renders_again(engine, after=pid)


def test_a_hung_call_ends_when_the_process_is_killed(engine: UdsEngine) -> None:
    pid = engine.pid
    engine.admit([job(1, "hang")])
    killer = threading.Timer(0.2, engine.kill)
    killer.start()
    with pytest.raises(EngineDied, match="SIGKILL"):
        engine.step(lambda _: None)
    killer.join()
    renders_again(engine, after=pid)


def test_a_death_between_calls_is_seen(engine: UdsEngine) -> None:
    pid = engine.pid
    engine.admit([job(1)])
    os.kill(pid, signal.SIGKILL)  # as the kernel does when memory is short
    until(lambda: not engine.loaded, what="the death is seen")
    with pytest.raises(EngineDied):
        engine.step(lambda _: None)
    renders_again(engine, after=pid)


def test_an_idle_engine_that_died_is_not_loaded_and_can_be_loaded(engine: UdsEngine) -> None:
    pid = engine.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not engine.loaded, what="the death is seen")
    engine.load()
    assert engine.pid != pid
    assert render(engine, job(1))


def test_a_result_that_died_with_its_process_is_not_taken_for_another(engine: UdsEngine) -> None:
    engine.admit([job(1, steps=1)])
    (old,) = engine.step(lambda _: None).finished
    engine.kill()
    engine.reset()
    engine.admit([job(2, steps=1)])
    (new,) = engine.step(lambda _: None).finished
    with pytest.raises(EngineDied, match="lost with its process"):
        engine.decode(old)
    assert engine.decode(new).width == 64


@pytest.mark.parametrize(
    ("fault", "kind"), [("raise", RemoteModelError), ("memory", OutOfMemory)], ids=["raise", "memory"]
)
def test_a_model_error_crosses_without_its_text_and_costs_no_process(
    engine: UdsEngine, fault: str, kind: type[Exception]
) -> None:
    pid = engine.pid
    engine.admit([job(1), job(2, fault)])
    with pytest.raises(kind) as caught:
        engine.step(lambda _: None)
    assert fault not in str(caught.value)
    assert type(caught.value).__name__ in ("ZeroDivisionError", "OutOfMemory")
    engine.reset()
    assert render(engine, job(3))
    assert engine.pid == pid


def test_a_bad_picture_fails_alone(engine: UdsEngine) -> None:
    engine.admit([job(1, "bad", steps=1), job(2, steps=1)])
    bad, good = engine.step(lambda _: None).finished
    with pytest.raises(BadOutput, match="not finite"):
        engine.decode(bad)
    assert engine.decode(good).width == 64


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [("segfault", "ended by SIGSEGV before it was ready"), ("weights", "no such weights")],
    ids=["segfault", "weights"],
)
def test_a_server_that_cannot_start_says_why(broken: str, complaint: str) -> None:
    with faulty("--broken", broken, loaded=False) as engine:
        with pytest.raises(LoadFailed, match=complaint):
            engine.load()
        assert not engine.loaded
        assert gone(engine.pid)


def test_a_load_that_hangs_ends_at_its_deadline() -> None:
    with faulty("--broken", "hang", loaded=False, load_deadline_s=3.0) as engine:
        with pytest.raises(LoadFailed, match="its time was up"):
            engine.load()
        assert gone(engine.pid)


def test_a_server_that_does_not_start_again_is_tried_once(tmp_path: Path) -> None:
    """Others need the thread: whoever drives the engine tries again later."""
    starts = tmp_path / "starts"
    with faulty("--starts", str(starts), "--broken-after", "1") as engine:
        engine.kill()
        with pytest.raises(LoadFailed, match="no such weights"):
            engine.reset()
        assert not engine.loaded
    assert len(starts.read_text().splitlines()) == 2


WORKER = """
import sys, time
from tests.engine_processes import faulty, job
with faulty() as engine:
    engine.admit([job(1, sys.argv[1])])
    print("pid", engine.pid, file=sys.stderr, flush=True)
    engine.step(lambda _: None)
    time.sleep(600)
"""


@pytest.mark.parametrize("prompt", ["idle", "hang"])
def test_the_server_does_not_outlive_a_killed_worker(tmp_path: Path, prompt: str) -> None:
    """Also while its model hangs and it reads its socket no more."""
    worker = Process("worker", [sys.executable, "-c", WORKER, prompt], os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    worker.start()
    pid = 0
    try:
        told = until(lambda: re.search(r"^pid (\d+)$", worker.output(), re.MULTILINE), 30, what=worker.tail())
        assert told
        pid = int(told[1])
        assert not gone(pid)
    finally:
        worker.kill()
    until(lambda: gone(pid), what="the server is gone")


def test_kills_at_any_moment_cost_nothing_but_the_batch(engine: UdsEngine) -> None:
    """Eight kills within a step, each after a few steps; the same pictures come out in the end."""
    expected = {f"gen_{number}/0": draw(f"gen_{number}", 0, 100 + number, 64, 64) for number in (1, 2)}
    for kills in range(8):
        left = [kills]

        def kill_late(_: Progress, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                engine.kill()

        engine.admit([job(1, steps=5), job(2, steps=8)])
        died = 0
        for _ in range(20):
            try:
                engine.step(kill_late)
            except EngineDied:
                died += 1
                break
        assert died
        engine.reset()
    assert render(engine, job(1), job(2)) == expected
