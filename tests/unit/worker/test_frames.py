"""Frames on a socket: whole, cut, oversized, of strangers."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import fast, limits
from schema.pb import EngineFrameKind
from schema.validate import Invalid
from worker.engines.child_process import messages as wire
from worker.engines.child_process.frames import (
    MAX_HEADER_BYTES,
    MAX_PIXEL_BYTES,
    Closed,
    Connection,
    Garbage,
    listen,
    peer_pid,
)
from worker.engines.contract import Capabilities, EngineFacts, RenderJob
from worker.engines.errors import BadOutput, EngineDied, EngineLost, LoadFailed, OutOfMemory, Unsupported

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection, and the bare socket at its other end."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = Connection(one)
    yield connection, other
    connection.close()
    other.close()


@pytest.mark.parametrize("size", [0, 1, 3 * 64 * 64, 3 * 1024 * 1024])
def test_a_frame_and_its_pixels_arrive_as_they_were_sent(pair: Pair, size: int) -> None:
    connection, bare = pair
    pixels = os.urandom(size)
    other = Connection(bare)
    sender = threading.Thread(
        target=lambda: other.send(wire.frame(EngineFrameKind.PICTURE, job_ids=["gen_1/0"]), pixels)
    )
    sender.start()
    frame = connection.receive()
    assert (frame.kind, list(frame.job_ids), frame.pixel_bytes) == (EngineFrameKind.PICTURE, ["gen_1/0"], size)
    assert connection.pixels(frame.pixel_bytes) == pixels
    sender.join()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 0),
        struct.pack(">I", MAX_HEADER_BYTES + 1),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 4) + b"\xff\xff\xff\xff",
        struct.pack(">I", 3) + b"\x0a\x05a",
    ],
    ids=["empty", "too long", "http", "no protobuf", "truncated protobuf"],
)
def test_garbage_is_told_from_frames(pair: Pair, data: bytes) -> None:
    connection, bare = pair
    bare.sendall(data)
    with pytest.raises(Garbage):
        connection.receive()


def test_more_pixels_than_the_largest_picture_has_are_not_received(pair: Pair) -> None:
    connection, bare = pair
    header = fast.EngineFrame(pixel_bytes=MAX_PIXEL_BYTES + 1).SerializeToString()
    bare.sendall(struct.pack(">I", len(header)) + header)
    with pytest.raises(Garbage, match="pixels"):
        connection.receive()


def test_an_end_anywhere_inside_a_frame_is_an_end(pair: Pair) -> None:
    picture = wire.frame(EngineFrameKind.PICTURE)
    picture.pixel_bytes = 10
    header = picture.SerializeToString()
    whole = struct.pack(">I", len(header)) + header + b"0123456789"
    for end in range(len(whole)):
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with other:
            other.sendall(whole[:end])
        connection = Connection(one)
        with pytest.raises(Closed):
            connection.pixels(connection.receive().pixel_bytes)
        connection.close()


def test_what_does_not_fit_at_once_is_not_sent_now(pair: Pair) -> None:
    connection, _ = pair
    evict = wire.frame(EngineFrameKind.EVICT, job_ids=["gen_1/0"])
    sent = 0
    while connection.send_now(evict):
        sent += 1
        assert sent < 10**6
    assert sent > 100


def test_strangers_are_refused(pair: Pair) -> None:
    _, bare = pair
    assert peer_pid(bare, os.geteuid()) == os.getpid()
    with pytest.raises(Garbage, match="user"):
        peer_pid(bare, os.geteuid() + 1)


def test_the_socket_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    with listen(folder / "engine.sock", os.geteuid()):
        assert (folder / "engine.sock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="in use"):  # it is being served
            listen(folder / "engine.sock", os.geteuid())
    with listen(folder / "engine.sock", os.geteuid()):  # its server has gone without removing it
        pass
    folder.chmod(0o750)
    with pytest.raises(PermissionError, match="chmod 700"):
        listen(folder / "other.sock", os.geteuid())
    folder.chmod(0o700)
    with pytest.raises(PermissionError):
        listen(folder / "other.sock", os.geteuid() + 1)


_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=50).filter(str.strip)
_jobs = st.builds(
    RenderJob,
    id=st.from_regex(r"\A[A-Za-z0-9_.:-]{1,64}/[0-9]{1,4}\Z"),
    model=st.just("org/model-1"),
    width=st.sampled_from([64, 72, 2048]),
    height=st.sampled_from([64, 1000, 2048]),
    num_inference_steps=st.integers(1, limits.MAX_STEPS),
    guidance_scale=st.floats(0, limits.MAX_GUIDANCE),
    seed=st.integers(0, limits.SEED_MODULUS - 1),
    scheduler=st.sampled_from(["", "ddim"]),
    prompt=_texts,
    negative_prompt=_texts,
)


@settings(deadline=None)
@given(_jobs)
def test_a_job_crosses_unchanged(job: RenderJob) -> None:
    frame = wire.frame(EngineFrameKind.ADMIT, jobs=[wire.job_message(job)])
    (message,) = fast.EngineFrame.FromString(frame.SerializeToString()).jobs
    assert wire.job_of(message) == job


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "gen_1"},
        {"id": "../../etc/0"},
        {"width": 65},
        {"height": 4096},
        {"num_inference_steps": 0},
        {"guidance_scale": float("nan")},
        {"seed": limits.SEED_MODULUS},
        {"prompt": ""},
        {"prompt": "a\x00b"},
        {"prompt": "x" * (limits.MAX_PROMPT_CHARS + 1)},
        {"model": ""},
    ],
    ids=lambda changes: "-".join(f"{name}={str(value)[:12]!r}" for name, value in changes.items()),
)
def test_a_job_out_of_range_is_refused(changes: dict[str, object]) -> None:
    fine: dict[str, object] = {
        "id": "gen_1/0",
        "model": "m",
        "width": 64,
        "height": 64,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "seed": 1,
        "prompt": "x",
    }
    assert wire.job_of(wire.job_message(RenderJob(**fine)))  # type: ignore[arg-type]
    with pytest.raises(Invalid):
        wire.job_of(wire.job_message(RenderJob(**(fine | changes))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raised", "arrives", "text"),
    [
        (OutOfMemory("8 GiB"), OutOfMemory, ""),
        (MemoryError("at a prompt"), OutOfMemory, ""),
        (BadOutput("not finite"), BadOutput, "not finite"),
        (Unsupported("too large"), Unsupported, "too large"),
        (LoadFailed("no weights"), LoadFailed, "no weights"),
        (EngineLost("a sticky error"), EngineDied, "its device was lost (a sticky error)"),
        (KeyError("a prompt"), wire.RemoteModelError, ""),
        (type("A prompt, made a name", (Exception,), {})(), wire.RemoteModelError, ""),
    ],
    ids=["memory", "MemoryError", "bad", "unsupported", "load", "lost", "model", "strange name"],
)
def test_an_error_crosses_as_what_it_means_and_foreign_texts_stay(
    raised: Exception, arrives: type[Exception], text: str
) -> None:
    message = fast.EngineFrame.FromString(
        wire.frame(EngineFrameKind.ERROR, error=wire.error_message(raised)).SerializeToString()
    ).error
    arrived = wire.exception_of(message)
    assert isinstance(arrived, arrives)
    assert str(arrived) == text


def test_a_model_error_keeps_its_name() -> None:
    assert type(wire.exception_of(wire.error_message(ZeroDivisionError("x")))).__name__ == "ZeroDivisionError"


def test_facts_and_capabilities_cross() -> None:
    facts = EngineFacts(engine="latent", model="m", model_revision="r", dtype="float16", device="d", libraries="l")
    can = Capabilities(join_midway=True, evict_one=True, park=True, max_batch=7)
    message = wire.hello(facts, can)
    assert wire.facts_of(message, "uds") == EngineFacts(
        engine="uds:latent", model="m", model_revision="r", dtype="float16", device="d", libraries="l"
    )
    assert wire.capabilities_of(message) == Capabilities(
        join_midway=True, evict_one=True, park=True, restartable=True, max_batch=7
    )
