"""The engine server on a Unix domain socket: garbage, strangers, a second server, wrong settings."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schema.pb import EngineFrameKind
from tests.engine_processes import ROOT, job
from tests.eventually import until
from tests.process import Process, module
from worker.engines.child_process.frames import Closed, Connection
from worker.engines.child_process.messages import frame, job_message

MODELS = """
[[models]]
name = "m"
engine = "emulated"
max_batch = 4

[[models]]
name = "far"
engine = "http"
source = "http://127.0.0.1:1"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """A server of nobody's: it takes one connection after the other."""
    (tmp_path / "models.toml").write_text(MODELS)
    path = tmp_path / "engine.sock"
    argv = module("worker", "engine-server", "--model", "m", "--models-file", "models.toml", "--uds", str(path))
    process = Process("engine-server", argv, os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    tmp_path.chmod(0o700)
    process.start()
    until(path.is_socket, 30, what=process.tail())
    yield process
    process.kill()


def connect(server: Process) -> Connection:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    until(lambda: sock.connect_ex(str(server.folder / "engine.sock")) == 0)
    connection = Connection(sock)
    assert connection.receive().kind == EngineFrameKind.HELLO
    return connection


def serves(server: Process) -> None:
    connection = connect(server)
    connection.send(frame(EngineFrameKind.ADMIT, jobs=[job_message(job(1, steps=1))]))
    assert connection.receive().kind == EngineFrameKind.DONE
    connection.send(frame(EngineFrameKind.STEP))
    assert connection.receive().kind == EngineFrameKind.PROGRESS
    assert [each.job_id for each in connection.receive().finished] == ["gen_1/0"]
    connection.close()


def test_garbage_closes_the_connection_and_costs_nothing_else(server: Process) -> None:
    pixels = frame(EngineFrameKind.STEP)
    unknown = frame(99)
    nobody = frame(EngineFrameKind.PARK)
    path = frame(EngineFrameKind.PARK, job_ids=["gen_1"])
    ticket = frame(EngineFrameKind.DECODE, tickets=[7])
    crowd = frame(EngineFrameKind.ADMIT)
    for number, wrong in enumerate((unknown, nobody, path, ticket, crowd, pixels)):
        connection = connect(server)
        connection.send(wrong, b"abc" if wrong is pixels else b"")
        with pytest.raises(Closed):
            connection.receive()
        connection.close()
        assert server.output().count("engine_server.garbage") == number + 1
    bare = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    until(lambda: bare.connect_ex(str(server.folder / "engine.sock")) == 0)
    with bare:
        bare.sendall(struct.pack(">I", 2**31) + b"x" * 100)
        with contextlib.suppress(ConnectionResetError):
            while bare.recv(4096):
                pass
    serves(server)


def test_members_of_a_closed_connection_are_forgotten(server: Process) -> None:
    connection = connect(server)
    connection.send(frame(EngineFrameKind.ADMIT, jobs=[job_message(job(5))]))
    assert connection.receive().kind == EngineFrameKind.DONE
    connection.close()
    serves(server)


def test_a_job_out_of_range_is_refused_and_the_connection_stays(server: Process) -> None:
    connection = connect(server)
    wrong = job_message(job(1))
    wrong.spec.width = 65
    for _ in range(2):
        connection.send(frame(EngineFrameKind.ADMIT, jobs=[wrong]))
        answer = connection.receive()
        assert (answer.kind, answer.error.detail) == (EngineFrameKind.ERROR, "width must be a multiple of 8")
    connection.close()


def test_a_second_server_leaves_the_first_its_socket(server: Process) -> None:
    second = Process("second", server.argv, server.env, server.folder)
    second.start()
    assert second.exit_code() == 2
    assert "in use" in second.output()
    serves(server)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model", "x", "--uds", "s"], "no model 'x'; it has m, far"),
        (["--model", "far", "--uds", "s"], "served elsewhere"),
        (["--model", "m", "--http", "0.0.0.0:1"], "DARKROOM_ENGINE_TOKEN"),
        (["--model", "m", "--http", "8000"], "not HOST:PORT"),
        (["--model", "m", "--uds", "open/s"], "chmod 700"),
    ],
    ids=["unknown", "elsewhere", "open to all", "no port", "open folder"],
)
def test_wrong_settings_are_one_line_and_exit_code_2(tmp_path: Path, options: list[str], complaint: str) -> None:
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    argv = module("worker", "engine-server", "--models-file", "models.toml", *options)
    process = Process("engine-server", argv, os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    process.start()
    try:
        assert process.exit_code() == 2
    finally:
        process.kill()
    (line,) = process.output().splitlines()
    assert complaint in line


def test_it_answers_nobody_but_its_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    argv = [sys.executable, "-m", "tests.crash.faulty_engine_server", "--uds", "s", "--parent", str(os.getpid() + 1)]
    process = Process("server", argv, os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    process.start()
    assert process.exit_code() == 1  # the process it was told of has not started it


def test_another_process_of_the_same_user_is_sent_away(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    argv = [sys.executable, "-m", "tests.crash.faulty_engine_server", "--uds", "s", "--parent", str(os.getpid())]
    process = Process("server", argv, os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    process.start()
    try:
        until((tmp_path / "s").is_socket, 30, what=process.tail())
        assert greeting_seen_by_another_process(tmp_path / "s") == b""
        assert process.exit_code() == 0
    finally:
        process.kill()
    assert "another process than the parent" in process.output()


def greeting_seen_by_another_process(path: Path) -> bytes:
    program = (
        "import socket, sys, time\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "while sock.connect_ex(sys.argv[1]): time.sleep(0.01)\n"
        "sock.settimeout(20)\n"
        "sys.stdout.buffer.write(sock.recv(1))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, check=True, timeout=60
    ).stdout
