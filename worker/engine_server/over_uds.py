"""The engine server on a Unix domain socket: lets one worker drive an engine in this process, step by step.

Single-threaded: the thread that serves the socket also runs the engine. During a step it polls the socket after each
denoising step, which is when an engine can act on an eviction. With a parent it serves one connection and never
outlives that process; a malformed frame closes the connection.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from schema import fast
from schema.pb import EngineErrorKind, EngineFrameKind
from schema.validate import Invalid
from worker.engines.child_process.frames import Closed, Connection, Garbage, listen, peer_pid
from worker.engines.child_process.messages import error_message, frame, hello, job_id, job_of, picture_message
from worker.engines.contract import Done, Engine, Progress
from worker.engines.errors import EngineLost, LoadFailed, Unsupported

_log = structlog.get_logger()
_PR_SET_PDEATHSIG: Final = 1
_EXIT_LOST: Final = 3
MAX_MEMBERS: Final = 4096


def serve(engine: Engine, path: Path, *, parent: int = 0) -> int:
    """Serves `engine` at `path`; with `parent`, until its connection or that process ends.

    Returns the exit code: 0, 1 if the model does not load, 3 if the device is lost. Raises OSError for the socket.
    """
    if parent:
        _die_with(parent)
    uid = os.geteuid()
    with listen(path, uid) as listener:
        while True:
            sock, _ = listener.accept()
            connection = Connection(sock)
            try:
                pid = peer_pid(sock, uid)
                if parent and pid != parent:
                    raise Garbage("another process than the parent")
                _Session(engine, connection).run()
            except Closed:
                _log.info("engine_server.closed")
            except Garbage as error:
                _log.warning("engine_server.garbage", error=str(error))
            except LoadFailed:
                return 1  # the worker has the error already
            except EngineLost:
                return _EXIT_LOST  # only a new process helps
            finally:
                connection.close()
            if parent:
                return 0
            try:
                engine.reset()
            except EngineLost:
                return _EXIT_LOST


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, for whatever reason; see prctl(2).

    The end of the connection says the same, but is not read while a model hangs.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the call
        raise SystemExit(1)


class _Session:
    """One connection's calls, in order."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._results: dict[int, Done] = {}
        self._tickets = 0

    def run(self) -> None:
        """Serves until the other side disconnects. Raises Closed, Garbage, LoadFailed and EngineLost."""
        self._attempt(self._hello)
        while True:
            asked = self._connection.receive()
            if asked.pixel_bytes:
                raise Garbage("pixels for the server")
            if asked.kind == EngineFrameKind.EVICT:
                self._evict(asked)
            else:
                self._attempt(lambda asked=asked: self._answer(asked))  # type: ignore[misc]

    def _attempt(self, call: Callable[[], None]) -> None:
        """Run `call`, and send a failure to the other side. Raises Closed, Garbage, LoadFailed and EngineLost."""
        try:
            call()
        except (Closed, Garbage):
            raise
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            failed = error_message(error)
        else:
            return
        # outside the except block: its traceback would hold tensors
        self._connection.send(frame(EngineFrameKind.ERROR, error=failed))
        if failed.kind == EngineErrorKind.LOST:
            raise EngineLost
        if failed.kind == EngineErrorKind.LOAD_FAILED:
            raise LoadFailed

    def _hello(self) -> None:
        if not self._engine.loaded:
            self._engine.load()
        self._connection.send(frame(EngineFrameKind.HELLO, hello=hello(self._engine.facts, self._engine.capabilities)))

    def _answer(self, asked: fast.EngineFrame) -> None:
        match asked.kind:
            case EngineFrameKind.STEP:
                return self._step(asked)
            case EngineFrameKind.DECODE:
                return self._decode(asked)
            case EngineFrameKind.ADMIT:
                self._admit(asked)
            case EngineFrameKind.PARK:
                self._engine.park(self._one_job(asked))
            case EngineFrameKind.UNPARK:
                self._engine.unpark(self._one_job(asked))
            case EngineFrameKind.RESET:
                self._results.clear()
                self._engine.reset()
            case _:
                raise Garbage(f"frame kind {asked.kind}")
        return self._connection.send(frame(EngineFrameKind.DONE))

    def _admit(self, asked: fast.EngineFrame) -> None:
        if not 0 < len(asked.jobs) <= MAX_MEMBERS:
            raise Garbage(f"{len(asked.jobs)} jobs")
        try:
            jobs = [job_of(each) for each in asked.jobs]
        except Invalid as error:
            raise Unsupported(str(error)) from None
        self._engine.admit(jobs)

    def _step(self, asked: fast.EngineFrame) -> None:
        for ticket in asked.tickets:
            self._results.pop(ticket, None)
        self._evict(asked)
        stepped = self._engine.step(self._report)
        finished = [fast.EngineFinished(job_id=done.job_id, ticket=self._keep(done)) for done in stepped.finished]
        timed = stepped.timed
        self._connection.send(
            frame(
                EngineFrameKind.STEPPED,
                finished=finished,
                job_ids=list(stepped.evicted),
                fits=stepped.fits or 0,
                ahead=stepped.ahead,
                timed_size=timed.size if timed else 0,
                timed_s=timed.seconds if timed else 0.0,
            )
        )

    def _report(self, progress: Progress) -> None:
        steps = [fast.EngineStep(job_id=each, step=step) for each, step in progress.steps.items()]
        self._connection.send(frame(EngineFrameKind.PROGRESS, steps=steps))
        while self._connection.waiting():
            asked = self._connection.receive()
            if asked.kind != EngineFrameKind.EVICT or asked.pixel_bytes:
                raise Garbage("a call within a call")
            self._evict(asked)

    def _keep(self, done: Done) -> int:
        self._tickets += 1
        self._results[self._tickets] = done
        return self._tickets

    def _decode(self, asked: fast.EngineFrame) -> None:
        if len(asked.tickets) != 1 or asked.tickets[0] not in self._results:
            raise Garbage("an unknown ticket")
        picture = self._engine.decode(self._results.pop(asked.tickets[0]))
        about, data = picture_message(picture)
        self._connection.send(frame(EngineFrameKind.PICTURE, picture=about), data)

    def _evict(self, asked: fast.EngineFrame) -> None:
        for each in asked.job_ids:
            self._engine.evict(each)

    @staticmethod
    def _one_job(asked: fast.EngineFrame) -> str:
        if len(asked.job_ids) != 1:
            raise Garbage("not one job")
        try:
            return job_id(asked.job_ids[0])
        except Invalid as error:
            raise Garbage(str(error)) from None
