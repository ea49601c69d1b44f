"""Engines behind real engine servers, for tests: each test ends what it started."""

import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.eventually import Hopeless, until
from tests.process import Process, free_port, module
from worker.engines.base import Bounds
from worker.engines.child_process.engine import UdsEngine
from worker.engines.contract import Capabilities, RenderJob
from worker.engines.emulated import EmulatedEngine

ROOT = Path(__file__).parent.parent


def emulated(*, max_batch: int = 8, max_side: int = 512) -> EmulatedEngine:
    """The copy that stays in this process: it is asked for keys and capabilities only."""
    return EmulatedEngine(model="m", step_s=0.002, alpha=0.3, max_batch=max_batch, bounds=Bounds.square(max_side))


@contextmanager
def faulty(
    *options: str, loaded: bool = True, load_deadline_s: float = 60.0, answer_deadline_s: float = 30.0
) -> Iterator[UdsEngine]:
    """A faulty engine (tests/crash/faulty_engine_server.py) in a process of its own."""
    served = emulated()
    if "--whole-calls" in options:
        served.capabilities = Capabilities(max_batch=8)
    command = (sys.executable, "-m", "tests.crash.faulty_engine_server", *options)
    engine = UdsEngine(
        served,
        command,
        load_deadline_s=load_deadline_s,
        answer_deadline_s=answer_deadline_s,
        sleep=lambda _: None,
    )
    try:
        if loaded:
            engine.load()
        yield engine
    finally:
        engine.unload()


@contextmanager
def http_engine_server(model: str, models_file: Path, **env: str) -> Iterator[str]:
    """The address of `python -m worker engine-server --http`, ready."""
    port = free_port()
    argv = module("worker", "engine-server", "--model", model, "--http", f"127.0.0.1:{port}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DARKROOM_MODELS_FILE": str(models_file)} | env
    server = Process("engine-server", argv, environment, models_file.parent)
    server.start()
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/health", server), 60, what=server.tail())
        yield f"http://127.0.0.1:{port}"
        server.stop()
    finally:
        server.kill()


@contextmanager
def faulty_http_server(folder: Path, *options: str) -> Iterator[tuple[str, Process]]:
    """A faulty engine (tests/crash/faulty_engine_server.py) over HTTP: its address, and the process once it listens."""
    port = free_port()
    argv = module("tests.crash.faulty_engine_server", "--http", str(port), *options)
    server = Process("faulty-server", argv, os.environ | {"PYTHONPATH": str(ROOT)}, folder)
    server.start()
    try:
        until(lambda: _listens(port, server), 60, what=server.tail())
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.kill()


def _listens(port: int, server: Process) -> bool:
    if not server.alive:
        raise Hopeless(server.tail())
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str, server: Process) -> bool:
    if not server.alive:
        raise Hopeless(server.tail())
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def job(number: int, prompt: str = "a picture", *, steps: int = 3, side: int = 64) -> RenderJob:
    return RenderJob(
        id=f"gen_{number}/0",
        model="m",
        width=side,
        height=side,
        num_inference_steps=steps,
        guidance_scale=3.0,
        seed=100 + number,
        prompt=prompt,
    )
