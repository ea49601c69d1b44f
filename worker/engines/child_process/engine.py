"""An engine in a process of its own, reached over a Unix domain socket: a crash of the model does not end the worker.

The worker's end: each call of the contract is a request frame and a response frame (`frames.py`); the other end is
`engine_server/over_uds.py`. Capabilities and batch keys come from an unloaded copy of the served engine in this
process, so `key` needs no server. Whenever the engine's process ends, by itself, by the kernel or by `kill`, the call
in progress raises EngineDied.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import structlog

from infra.retry import backoff_s
from schema import fast
from schema.pb import EngineFrameKind
from worker.engines.child_process.frames import Closed, Garbage, Silent
from worker.engines.child_process.messages import (
    capabilities_of,
    exception_of,
    facts_of,
    frame,
    job_message,
    picture_of,
)
from worker.engines.child_process.process import EngineProcess
from worker.engines.contract import (
    BatchKey,
    Capabilities,
    Done,
    EncodedPicture,
    Engine,
    EngineFacts,
    Picture,
    Progress,
    RenderJob,
    Report,
    Stepped,
    StepTime,
)
from worker.engines.errors import EngineDied, LoadFailed

_log = structlog.get_logger()
_LONGEST_WAIT_S: Final = 10.0


class _Result:
    """A finished job's result, held by the server. If it is dropped here without being decoded, the next step tells the
    server to drop it too.

    `ticket` is 0 once decoding was requested. Each run of the server has an `unclaimed` queue of its own, by which
    results of an earlier run are recognised.
    """

    def __init__(self, ticket: int, unclaimed: deque[int]) -> None:
        self.ticket = ticket
        self.unclaimed = unclaimed

    def __del__(self) -> None:
        if self.ticket:
            self.unclaimed.append(self.ticket)


class UdsEngine:
    """`served` is the engine as this process would build it; `command` starts its server. Deadlines in seconds."""

    def __init__(
        self,
        served: Engine,
        command: Sequence[str],
        *,
        load_deadline_s: float = 600.0,
        answer_deadline_s: float = 30.0,
        rng: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._served = served
        self._command = list(command)
        self._load_deadline_s = load_deadline_s
        self._answer_deadline_s = answer_deadline_s
        self._rng = rng
        self._sleep = sleep
        self._process: EngineProcess | None = None
        self._wanted = False
        self._deaths = 0
        self._unclaimed: deque[int] = deque()
        self._lock = threading.Lock()  # around what `evict` shares with the GPU thread
        self._members: set[str] = set()
        self._evicted: list[str] = []
        self._stepping = False
        self._declared = replace(served.capabilities, restartable=True)
        self.capabilities: Capabilities = self._declared
        self.facts: EngineFacts = replace(served.facts, engine=f"uds:{served.facts.engine}")

    @property
    def loaded(self) -> bool:
        """False as soon as the process has ended."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        """The server's process; 0 when there is none."""
        return self._process.pid if self._process else 0

    def key(self, job: RenderJob) -> BatchKey:
        """The served engine's."""
        return self._served.key(job)

    def load(self) -> None:
        """Start the server and wait until it has loaded the model. Raises LoadFailed and ModelAway."""
        self.unload()
        self._process = process = EngineProcess(self._command)
        hello = process.open(self._load_deadline_s)
        can = capabilities_of(hello)
        if can not in (self._declared, replace(self._declared, max_batch=1)) or hello.model != self.facts.model:
            process.end()
            raise LoadFailed("the server serves something else; does it read the same models file?")
        self.capabilities = can  # a pipeline that takes one prompt at a time says so once it is loaded
        self.facts = facts_of(hello, "uds")
        self._unclaimed = deque()
        self._wanted = True
        _log.info("engine.started", pid=process.pid, engine=self.facts.engine, model=self.facts.model)

    def unload(self) -> None:
        """End the server: the surest way to give memory back."""
        self._wanted = False
        self._forget()
        if self._process is not None:
            self._process.end()
            self._process = None

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """At any step, if the served engine lets jobs join."""
        with self._lock:
            self._members |= {job.id for job in jobs}
            self._evicted = [each for each in self._evicted if each not in self._members]
        self._call(frame(EngineFrameKind.ADMIT, jobs=[job_message(job) for job in jobs]), EngineFrameKind.DONE)

    def step(self, report: Report) -> Stepped:
        """As the served engine steps. `report` is called as its reports arrive."""
        with self._talking() as process:
            connection = process.connection
            with self._lock:
                gone = [self._unclaimed.popleft() for _ in range(len(self._unclaimed))]
                asked = frame(EngineFrameKind.STEP, job_ids=self._evicted, tickets=gone)
                self._evicted = []
                self._stepping = True
                connection.send(asked)
            try:
                answer = connection.receive()
                while answer.kind == EngineFrameKind.PROGRESS:
                    report(Progress(steps={each.job_id: each.step for each in answer.steps}))
                    answer = connection.receive()
            finally:
                with self._lock:
                    self._stepping = False
            self._check(answer, EngineFrameKind.STEPPED)
        finished = [Done(job_id=each.job_id, result=_Result(each.ticket, self._unclaimed)) for each in answer.finished]
        left = list(answer.job_ids)
        with self._lock:
            self._members -= {*left, *(each.job_id for each in finished)}
        if finished:
            self._deaths = 0
        timed = StepTime(size=answer.timed_size, seconds=answer.timed_s) if answer.timed_size else None
        return Stepped(finished=finished, evicted=left, fits=answer.fits or None, ahead=answer.ahead, timed=timed)

    def evict(self, job_id: str) -> None:
        """Sent at once while a step runs, otherwise with the next step."""
        with self._lock:
            if job_id not in self._members:
                return
            process = self._process
            # Only during a step: other calls send without the lock, and two frames must not interleave.
            now = self._stepping and process is not None and process.alive
            if not (now and process and process.connection.send_now(frame(EngineFrameKind.EVICT, job_ids=[job_id]))):
                self._evicted.append(job_id)

    def park(self, job_id: str) -> None:
        """As the served engine does."""
        self._call(frame(EngineFrameKind.PARK, job_ids=[job_id]), EngineFrameKind.DONE, self._answer_deadline_s)

    def unpark(self, job_id: str) -> None:
        """As the served engine does."""
        self._call(frame(EngineFrameKind.UNPARK, job_ids=[job_id]), EngineFrameKind.DONE, self._answer_deadline_s)

    def decode(self, done: Done) -> Picture | EncodedPicture:
        """The picture, its pixels received into the bytes that are returned."""
        result = done.result
        if not isinstance(result, _Result) or result.unclaimed is not self._unclaimed:
            raise EngineDied("the result was lost with its process")
        with self._talking() as process:
            process.connection.send(frame(EngineFrameKind.DECODE, tickets=[result.ticket]))
            result.ticket = 0
            answer = process.connection.receive()
            self._check(answer, EngineFrameKind.PICTURE)
            data = process.connection.pixels(answer.pixel_bytes)
        return picture_of(answer.picture, data)

    def reset(self) -> None:
        """Forget all members. Restarts the server if it has ended or cannot reset, with growing pauses until an image
        is finished again. Raises LoadFailed when it does not start.
        """
        self._forget()
        if not self._wanted:
            return
        process = self._process
        if process is not None and process.alive:
            try:
                self._call(frame(EngineFrameKind.RESET), EngineFrameKind.DONE, self._answer_deadline_s)
            except EngineDied:
                pass
            except Exception as error:  # noqa: BLE001  (whatever it answers: a new process can do without this one)
                self._ended(process, f"reset raised {type(error).__name__}", at_once=True)
        if not self.loaded:
            self._restart()

    def kill(self) -> None:
        """SIGKILL to the server."""
        process = self._process
        if process is not None:
            process.kill()

    def _restart(self) -> None:
        """Start the server once: retries here would block the GPU thread, which others need. Raises LoadFailed."""
        if self._deaths > 1:  # the first time at once
            self._sleep(backoff_s(self._deaths - 2, first_s=0.5, cap_s=_LONGEST_WAIT_S, draw=self._rng()))
        self.load()

    def _call(self, asked: fast.EngineFrame, answer: int, deadline_s: float | None = None) -> None:
        """One request and its response. Without a deadline, only the watchdog ends a wait: it runs while images do."""
        with self._talking() as process:
            process.connection.send(asked)
            if deadline_s is not None and not process.connection.waiting(deadline_s):
                raise Silent(f"no answer within {deadline_s:g} s")
            self._check(process.connection.receive(), answer)

    @contextmanager
    def _talking(self) -> Iterator[EngineProcess]:
        """Around one call: a failure of the connection counts as the death of the process. Raises EngineDied."""
        process = self._process
        if process is None:
            raise EngineDied("there is no engine process")
        try:
            yield process
        except (Garbage, Silent) as error:
            why, at_once = str(error), True
        except (Closed, EngineDied) as error:  # EngineDied: it said so itself, and ends
            why, at_once = str(error), False
        else:
            return
        raise EngineDied(f"the engine's process {self._ended(process, why, at_once=at_once)}")

    def _ended(self, process: EngineProcess, why: str, *, at_once: bool) -> str:
        """Make sure that the process has ended. Returns how it ended."""
        self._deaths += 1
        how = process.end(at_once=at_once)
        _log.error("engine.died", pid=process.pid, how=how, why=why)
        return how

    @staticmethod
    def _check(answer: fast.EngineFrame, kind: int) -> None:
        """Raises the error that the server reported, and Garbage for a response of the wrong kind."""
        if answer.kind == EngineFrameKind.ERROR:
            raise exception_of(answer.error)
        if answer.kind != kind:
            raise Garbage(f"frame kind {answer.kind} where {int(kind)} was due")

    def _forget(self) -> None:
        with self._lock:
            self._members.clear()
            self._evicted.clear()
