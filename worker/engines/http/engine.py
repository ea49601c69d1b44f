"""A model server over HTTP as an engine: our own engine server, or any that speaks the OpenAI Images API.

Each member is a request of its own. New members are requested at once, those that got no picture before one by one. A
picture that the server refuses fails alone, one that has to wait is given back alone. When no request is answered
because the server is away, overloaded or misconfigured, the step raises EngineAway, and the worker goes on with other
models (`judge.py`).
"""

import asyncio
import contextlib
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
import structlog

from schema import limits
from worker.engines import errors
from worker.engines.base import Bounds, NoParking, NoProcess
from worker.engines.contract import (
    BatchKey,
    Capabilities,
    Done,
    EncodedPicture,
    EngineFacts,
    Picture,
    Progress,
    RenderJob,
    Report,
    Stepped,
)
from worker.engines.errors import BadOutput, EngineAway, ModelAway, NotNow, Unsupported
from worker.engines.http.calls import (
    Answer,
    Calls,
    Denied,
    ModelServer,
    OpenAI,
    Outcome,
    Patience,
    Raw,
    Refusal,
    Unreachable,
)
from worker.engines.http.judge import Judge
from worker.engines.http.pictures import from_base64, looked_at

_log = structlog.get_logger()
_CONNECT_S: Final = 10.0
_MATES_S: Final = 0.25
"""A step waits this long, or half as long as the first answer took if that is longer, for further answers."""

_FACT_CHARS: Final = 100
_RGB: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Later:
    """The image is not requested for now: the worker gives it back."""

    why: str


Result = Answer | Refusal | Later


class HttpEngine(NoParking, NoProcess):
    """Renders on `server`. The key is read from the server's environment variable `api_key_env` when the engine loads,
    and is kept only in the HTTP session. `clock` is in seconds.
    """

    def __init__(
        self,
        model: str,
        server: ModelServer,
        *,
        max_batch: int = 8,
        bounds: Bounds | None = None,
        patience: Patience | None = None,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._server = server
        self._dialect: OpenAI | Raw = Raw() if server.api == "raw" else OpenAI()
        self._remote_name = server.remote_name or model
        self._bounds = bounds or Bounds.square(1024)
        self._patience = patience or Patience(timeout_s=300.0)
        self._rng = rng
        self._clock = clock
        self._judge = Judge(clock=clock)
        self._asked = self._answered = 0
        self._unanswered: dict[str, Denied | Unreachable] = {}
        self._away: EngineAway | None = None
        self._runner: asyncio.Runner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._calls: Calls | None = None
        self._lock = threading.Lock()  # around what `evict` shares with the GPU thread
        self._members: dict[str, RenderJob] = {}
        self._evicted: set[str] = set()
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self.capabilities = Capabilities(evict_one=True, remote=True, max_batch=max_batch)
        self.facts = EngineFacts(engine=f"http:{server.api}", model=model, model_revision=server.revision)

    @property
    def loaded(self) -> bool:
        """Whether the server has been found healthy."""
        return self._calls is not None

    def key(self, job: RenderJob) -> BatchKey:
        """Images of one size share a batch: each is a request of its own, but equal sizes take similar times. Raises
        Unsupported.
        """
        self._bounds.require(job)
        if job.scheduler and isinstance(self._dialect, OpenAI):
            raise Unsupported("the OpenAI Images API has no scheduler")
        return (job.model, job.width, job.height)

    def load(self) -> None:
        """Checks that the server answers, is healthy, and accepts the key. Does not wait for it: raises ModelAway."""
        self.unload()
        key = os.environ.get(self._server.api_key_env, "") if self._server.api_key_env else ""
        if self._server.api_key_env and not key:
            raise ModelAway(f"the environment variable {self._server.api_key_env} holds no key")
        self._runner = asyncio.Runner()
        try:
            self._runner.run(self._open(key))
        except BaseException:
            self.unload()
            raise

    def unload(self) -> None:
        """Close the connections."""
        self._forget()
        runner, session = self._runner, self._session
        self._runner = self._session = self._calls = None
        if runner is not None:
            if session is not None:
                runner.run(session.close())
            runner.close()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """Asked for in the next step."""
        with self._lock:
            for job in jobs:
                self._evicted.discard(job.id)
                self._members[job.id] = job

    def step(self, report: Report) -> Stepped:
        """Requests members until some are answered; one that takes much longer than the others is awaited in later
        steps. `report` is called every `patience.beat_s` while the requests are within their limits. Raises EngineAway.
        """
        if self._runner is None or self._calls is None:
            raise EngineAway("the model server is not known to be there")
        if self._away is not None:
            away, self._away = self._away, None
            raise away
        results, left = self._runner.run(self._go_on(self._runner, self._calls, report))
        for job_id in [*left, *results]:
            with self._lock:
                self._members.pop(job_id, None)
                self._evicted.discard(job_id)
        for job_id, result in results.items():
            if not isinstance(result, Later):
                self._judge.gone(job_id)
        for job_id in left:
            self._judge.gone(job_id)
        # With results to hand over, EngineAway waits for the next step; without any, it is raised now.
        if self._away is not None and not (results or left):
            return self.step(report)
        return Stepped(finished=[Done(job_id=each, result=result) for each, result in results.items()], evicted=left)

    def evict(self, job_id: str) -> None:
        """Its request is cancelled at once."""
        with self._lock:
            if job_id not in self._members:
                return
            self._evicted.add(job_id)
            task = self._tasks.get(job_id)
            if task is not None:
                with contextlib.suppress(RuntimeError):  # the loop has closed
                    task.get_loop().call_soon_threadsafe(task.cancel)

    def decode(self, done: Done) -> Picture | EncodedPicture:
        """Raises Refused for what the server refuses for good, NotNow for what it does not take now, and BadOutput for
        anything else that is no picture.
        """
        answer = done.result
        if isinstance(answer, Later):
            raise NotNow(answer.why)
        if not isinstance(answer, Answer):
            why = getattr(answer, "why", "")
            raise (errors.Refused if getattr(answer, "final", False) else BadOutput)(why)
        picture = self._picture(answer)
        self._judge.pictured()
        return picture

    def _picture(self, answer: Answer) -> Picture | EncodedPicture:
        scheduler = printable(answer.headers.get("X-Darkroom-Scheduler", ""), limits.MAX_ID_CHARS)
        if isinstance(self._dialect, OpenAI):
            return looked_at(from_base64(answer.body), scheduler)
        if answer.media_type != _RGB:
            return looked_at(answer.body, scheduler)
        width, height = answer.job.width, answer.job.height
        if len(answer.body) != width * height * 3:
            raise BadOutput("the pixels are not those of the asked size")
        return Picture(width=width, height=height, rgb=answer.body, scheduler=scheduler)

    def reset(self) -> None:
        """Forget all."""
        self._forget()

    async def _open(self, key: str) -> None:
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            connector=aiohttp.TCPConnector(limit=self.capabilities.max_batch + 1),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        calls = Calls(self._session, self._server.base, self._dialect, patience=self._patience, rng=self._rng)
        health = await calls.health()
        if health.why:
            raise ModelAway(f"the model server: {health.why}")
        about = health.about
        said = {
            name: printable(value, _FACT_CHARS) for name, value in about.items() if value and isinstance(value, str)
        }
        self.facts = replace(
            self.facts,
            engine=f"http:{said['engine']}" if "engine" in said else self.facts.engine,
            model_revision=self.facts.model_revision or said.get("model_revision", "unknown"),
            dtype=said.get("dtype", ""),
            device=said.get("device", "remote"),
            libraries=said.get("libraries", ""),
        )
        self._calls = calls

    async def _go_on(self, runner: asyncio.Runner, calls: Calls, report: Report) -> tuple[dict[str, Result], list[str]]:
        """Results by job, and who was evicted."""
        with self._lock:
            left = [job_id for job_id in self._members if job_id in self._evicted and job_id not in self._tasks]
            idle = [job_id for job_id in self._members if job_id not in self._evicted]
            early: Mapping[str, str] = {}
            if not self._tasks:
                asked, early = self._judge.to_ask(idle)
                self._ask(runner, calls, asked)
        results: dict[str, Result] = {job_id: Later(why) for job_id, why in early.items()}
        outcomes = await self._some(report) if self._tasks else {}
        for job_id, outcome in outcomes.items():
            if outcome is None:
                left.append(job_id)
            elif isinstance(outcome, Answer | Refusal):
                self._answered += isinstance(outcome, Answer)
                results[job_id] = outcome
            else:
                _log.warning("http_engine.unanswered", why=outcome.why)
                self._unanswered[job_id] = outcome
        if not self._tasks and self._unanswered:
            results |= await self._ruled(calls)
        return results, left

    def _ask(self, runner: asyncio.Runner, calls: Calls, asked: Sequence[str]) -> None:
        self._asked, self._answered, self._unanswered = len(asked), 0, {}
        self._tasks = {
            job_id: runner.get_loop().create_task(
                calls.picture(self._members[job_id], self._remote_name), name=f"picture {job_id}"
            )
            for job_id in asked
        }

    async def _some(self, report: Report) -> dict[str, Outcome | None]:
        """Outcomes by job id, None for an evicted job: waits for the first, and a little longer for more."""
        began_s = self._clock()
        pending = set(self._tasks.values())
        done: set[asyncio.Task[Outcome]] = set()
        until_s = math.inf
        while pending and (not done or self._clock() < until_s):
            wait_s = min(self._patience.beat_s, max(0.0, until_s - self._clock()))
            now_done, pending = await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if now_done and not done:
                until_s = self._clock() + max(_MATES_S, (self._clock() - began_s) / 2)
            done |= now_done
            if pending:
                report(Progress(steps={}))  # each request has a limit: a sign of life, for the watchdog
        with self._lock:
            over = {job_id: task for job_id, task in self._tasks.items() if task.done()}
            self._tasks = {job_id: task for job_id, task in self._tasks.items() if not task.done()}
        return {job_id: None if task.cancelled() else task.result() for job_id, task in over.items()}

    async def _ruled(self, calls: Calls) -> dict[str, Result]:
        """The judge's results for members without a picture, once no request is in flight."""
        unanswered, self._unanswered = self._unanswered, {}
        ruling = self._judge.rule(unanswered, asked=self._asked, answered=self._answered)
        self._away = ruling.away
        results: dict[str, Result] = dict(ruling.failed)
        if ruling.to_check:
            health = await calls.health()
            if health.why:  # a refused key, for example: says nothing about the images
                self._away = EngineAway(f"the model server: {health.why}")
            else:
                results |= ruling.to_check
        if self._away is None:
            results |= {job_id: Later(why) for job_id, why in ruling.later.items()}
        return results

    def _forget(self) -> None:
        with self._lock:
            self._members.clear()
            self._evicted.clear()
            tasks, self._tasks = self._tasks, {}
        self._unanswered, self._away = {}, None
        if tasks and self._runner is not None:
            self._runner.run(_ended(tasks.values()))


async def _ended(tasks: Collection["asyncio.Task[Outcome]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


_OTHER = re.compile(r"[^ -~]")


def printable(text: str, most: int) -> str:
    """At most `most` characters of printable ASCII; "?" stands for every other one."""
    return _OTHER.sub("?", text[:most])
