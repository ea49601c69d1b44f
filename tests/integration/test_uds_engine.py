"""The worker's engine whose model is in a process of its own: what crosses the socket, and how that process ends."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from infra import models
from tests.engine_processes import faulty, job
from worker.engines.child_process.engine import UdsEngine
from worker.engines.contract import Picture, Progress, StepTime
from worker.engines.emulated import draw
from worker.engines.errors import EngineDied, LoadFailed, Unsupported
from worker.engines.factory import build


def test_a_server_that_another_process_answers_for_is_not_taken() -> None:
    """The child stays alive, and a process that it started listens in its place and greets as an engine would."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from tests.engine_processes import emulated\n"
        "from worker.engines.child_process.frames import Connection, listen\n"
        "from schema.pb import EngineFrameKind\n"
        "from worker.engines.child_process.messages import frame, hello\n"
        "if os.fork():\n"
        "    time.sleep(600)\n"
        "engine = emulated()\n"
        "listener = listen(Path(sys.argv[2]), os.geteuid())\n"
        "connection = Connection(listener.accept()[0])\n"
        "connection.send(frame(EngineFrameKind.HELLO, hello=hello(engine.facts, engine.capabilities)))\n"
        "connection.waiting(60)\n"
    )
    with faulty(loaded=False) as engine:
        stranger = UdsEngine(engine._served, [sys.executable, "-c", program])
        try:
            with pytest.raises(LoadFailed, match="another process answers"):
                stranger.load()
        finally:
            stranger.unload()


def test_what_is_no_engine_server_is_not_waited_for() -> None:
    with faulty(loaded=False) as engine:
        stranger = UdsEngine(engine, [sys.executable, "-c", "print('hello')"])
        with pytest.raises(LoadFailed, match="exited with code 0 before it was ready"):
            stranger.load()
        missing = UdsEngine(engine, ["/nonexistent/program"])
        with pytest.raises(LoadFailed, match="did not start"):
            missing.load()


def test_a_model_process_gets_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the key of an http model, whose variable may have any name."""
    secrets = {
        "AWS_SECRET_ACCESS_KEY",
        "DARKROOM_INTERNAL_TOKEN",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "THE_OTHER_SERVERS_KEY",
    }
    of_use = {"CUDA_VISIBLE_DEVICES", "HF_HOME", "OMP_NUM_THREADS", "DARKROOM_WORKER_TORCH_THREADS"}
    for name in secrets | of_use:
        monkeypatch.setenv(name, "1")
    with faulty("--environment", str(tmp_path / "names")):
        names = set((tmp_path / "names").read_text().splitlines())
    assert names >= of_use | {"PATH"}
    assert not names & secrets


def test_nothing_is_left_in_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the temporary folder's name is: a socket's own may have 107 bytes."""
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with faulty() as engine:
        assert engine.loaded
        assert list(folder.iterdir()) == []


def test_a_whole_call_can_be_left_in_the_middle() -> None:
    """An engine whose one step is the whole call: evicting everybody ends it long before its last step."""
    with faulty("--whole-calls") as engine:
        assert not engine.capabilities.join_midway
        engine.admit([job(1, steps=150), job(2, steps=150)])
        seen: list[dict[str, int]] = []

        def report(progress: Progress) -> None:
            seen.append(progress.steps)
            if len(seen) == 2:
                engine.evict("gen_1/0")
                engine.evict("gen_2/0")

        left: list[str] = []
        while len(left) < 2:
            stepped = engine.step(report)
            assert not stepped.finished
            left += stepped.evicted
        assert sorted(left) == ["gen_1/0", "gen_2/0"]
        assert len(seen) < 100


def test_an_eviction_from_another_thread_arrives(tmp_path: Path) -> None:
    with faulty("--whole-calls") as engine:
        engine.admit([job(1, steps=150)])
        evictor = threading.Timer(0.05, engine.evict, ["gen_1/0"])
        evictor.start()
        assert list(engine.step(lambda _: None).evicted) == ["gen_1/0"]
        evictor.join()
        engine.evict("gen_1/0")  # too late: ignored
        engine.admit([job(1, steps=1)])
        assert [done.job_id for done in engine.step(lambda _: None).finished] == ["gen_1/0"]


def test_results_that_nobody_wants_are_forgotten() -> None:
    with faulty() as engine:
        for number in range(5):
            engine.admit([job(number, steps=1)])
            stepped = engine.step(lambda _: None)
            assert len(stepped.finished) == 1
        assert len(engine._unclaimed) == 1  # each step has told the server of the one before
        del stepped
        assert len(engine._unclaimed) == 2
        engine.step(lambda _: None)
        assert not engine._unclaimed


def test_what_fits_into_memory_crosses_the_socket() -> None:
    with faulty() as engine:
        engine.admit([job(1, steps=2)])
        assert engine.step(lambda _: None).fits is None
        engine.evict("gen_1/0")
        engine.step(lambda _: None)
        engine.admit([job(2, "fits", steps=1)])
        assert engine.step(lambda _: None).fits == 5


def test_whether_the_device_is_ahead_and_what_its_clock_says_cross_the_socket() -> None:
    with faulty() as engine:
        engine.admit([job(1, steps=2), job(2, "ahead", steps=1)])
        first, second = (engine.step(lambda _: None) for _ in range(2))
        assert (first.ahead, first.timed) == (True, StepTime(size=2, seconds=0.25))
        assert (second.ahead, second.timed) == (False, None)


def test_a_step_waits_for_nothing_but_the_engine() -> None:
    """Hundreds of calls in order: no frame is lost, doubled or mixed up."""
    with faulty() as engine:
        for number in range(150):
            one, other = job(2 * number, steps=1, side=64), job(2 * number + 1, steps=2, side=64)
            engine.admit([one, other])
            for expected in (one, other):
                (done,) = engine.step(lambda _: None).finished
                picture = engine.decode(done)
                assert isinstance(picture, Picture)
                assert picture.rgb == draw(expected.id.partition("/")[0], 0, expected.seed, 64, 64)


def test_what_the_models_file_no_longer_says_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[[models]]\nname = "m"\nengine = "uds"\nserves = "emulated"\nmax_batch = 4\n')
    engine = build(models.load(path)[0], torch_threads=1)
    monkeypatch.setenv("DARKROOM_MODELS_FILE", str(path))
    path.write_text(path.read_text().replace("4", "5"))
    with pytest.raises(LoadFailed, match="the same models file"):
        engine.load()
    assert not engine.loaded


def test_an_unsupported_size_is_known_without_a_server() -> None:
    with faulty(loaded=False) as engine, pytest.raises(Unsupported):
        engine.key(job(1, side=1024))


@pytest.mark.parametrize("call", ["reset", "park"])
def test_a_server_that_stands_still_is_replaced(call: str) -> None:
    with faulty(answer_deadline_s=0.2) as engine:
        engine.admit([job(1)])
        engine.step(lambda _: None)
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        if call != "reset":
            with pytest.raises(EngineDied, match="SIGKILL"):
                getattr(engine, call)("gen_1/0")
        engine.reset()
        assert engine.loaded
        assert engine.pid != pid
        assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_cannot_reset_its_engine_is_replaced() -> None:
    with faulty() as engine:
        engine.admit([job(1, "sticks")])
        pid = engine.pid
        engine.reset()
        assert engine.loaded
        assert engine.pid != pid
        assert not Path(f"/proc/{pid}").exists()
        engine.admit([job(1, steps=1)])
        assert [done.job_id for done in engine.step(lambda _: None).finished] == ["gen_1/0"]


def test_a_stopped_server_is_killed_when_it_is_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engines.child_process.process._FAREWELL_S", 0.2)
    with faulty() as engine:
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        began = time.perf_counter()
        engine.unload()
        assert time.perf_counter() - began < 60
        assert not Path(f"/proc/{pid}").exists()
