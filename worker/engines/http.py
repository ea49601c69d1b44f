"""A model server over HTTP as an engine: our own engine server, or any that speaks the OpenAI Images API.

All members are asked for at once, each with a request of its own; a step lasts until each has been answered, given up
or evicted. A picture that the server refuses fails alone. When nobody could be answered because the server is away,
overloaded or misconfigured, the step raises EngineAway, and `reset` waits until it is worth asking again
(`http_outage.py`).
"""

import asyncio
import base64
import binascii
import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, Final

import aiohttp
import structlog

from schema import limits
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
from worker.engines.http_calls import Answer, Calls, Condition, OpenAI, Outcome, Patience, Raw, Refused, Unreachable
from worker.engines.http_outage import Outage
from worker.engines.unable import Bounds, NoParking, NoProcess
from worker.engines.words import printable
from worker.errors import BadOutput, EngineAway, LoadFailed, Unsupported

_log = structlog.get_logger()
_CONNECT_S: Final = 10.0
_OUTAGE_LOOK_S: Final = 1.0
_FACT_CHARS: Final = 100
_RGB: Final = "application/octet-stream"


class HttpEngine(NoParking, NoProcess):
    """`base` is the server's address without a path, `remote_name` what it calls the model. The key is read from the
    environment variable `api_key_env` when the engine loads, and kept nowhere else than in the session.
    """

    def __init__(
        self,
        *,
        model: str,
        base: str,
        api: str = "openai",
        remote_name: str = "",
        api_key_env: str = "",
        revision: str = "",
        max_batch: int = 8,
        max_width: int = 1024,
        max_height: int = 1024,
        bounds: Bounds | None = None,
        patience: Patience | None = None,
        outage_s: float = 120.0,
        beat_s: float = 1.0,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._base = base
        self._dialect: OpenAI | Raw = Raw() if api == "raw" else OpenAI()
        self._remote_name = remote_name or model
        self._api_key_env = api_key_env
        self._bounds = bounds or Bounds(max_width=max_width, max_height=max_height)
        self._patience = patience or Patience(timeout_s=300.0)
        self._outage_s = outage_s
        self._beat_s = beat_s
        self._rng = rng
        self._outage = Outage(limit_s=outage_s, clock=clock, rng=rng)
        self._runner: asyncio.Runner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._calls: Calls | None = None
        self._lock = threading.Lock()  # around what `evict` shares with the GPU thread
        self._members: dict[str, RenderJob] = {}
        self._evicted: set[str] = set()
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self.capabilities = Capabilities(evict_one=True, max_batch=max_batch)
        self.facts = EngineFacts(engine=f"http:{api}", model=model, model_revision=revision)

    @property
    def loaded(self) -> bool:
        """Whether the server has been found healthy."""
        return self._calls is not None

    def key(self, job: RenderJob) -> BatchKey:
        """Every picture is a request of its own: only the size is shared, so that they take similar times."""
        self._bounds.require(job)
        if job.scheduler and isinstance(self._dialect, OpenAI):
            raise Unsupported("the OpenAI Images API has no scheduler")
        return (job.model, job.width, job.height)

    def load(self) -> None:
        """Wait until the server is there, well, and takes the key; it may have a model to load. Raises LoadFailed."""
        self.unload()
        key = os.environ.get(self._api_key_env, "") if self._api_key_env else ""
        if self._api_key_env and not key:
            raise LoadFailed(f"the environment variable {self._api_key_env} holds no key")
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
        """Ask for every member. `report` is told now and then that the requests are within their limits."""
        if self._runner is None or self._calls is None:
            raise EngineAway("the model server is not known to be there")
        outcomes, left = self._runner.run(self._ask_all(self._calls, report))
        unanswered = {job_id: each for job_id, each in outcomes.items() if isinstance(each, Unreachable)}
        for each in unanswered.values():
            _log.warning("http_engine.unanswered", why=each.why)
        blamed = self._outage.learn(unanswered, answered=len(outcomes) - len(unanswered))
        if blamed:
            outcomes[blamed] = Refused(f"{unanswered.pop(blamed).why}, asked alone and twice")
        finished = [Done(job_id=job_id, result=each) for job_id, each in outcomes.items() if job_id not in unanswered]
        for job_id in [*left, *(done.job_id for done in finished)]:
            self._outage.gone(job_id)
            with self._lock:
                self._members.pop(job_id, None)
                self._evicted.discard(job_id)
        if unanswered and not finished and not left:
            raise EngineAway(f"the model server: {'; '.join(sorted({each.why for each in unanswered.values()}))}")
        return Stepped(finished=finished, evicted=left)

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
        """Raises BadOutput for a refusal, and for what is no picture."""
        answer = done.result
        if not isinstance(answer, Answer):
            raise BadOutput(f"the model server refused: {getattr(answer, 'why', '')}")
        scheduler = printable(answer.headers.get("X-Darkroom-Scheduler", ""), limits.MAX_ID_CHARS)
        if isinstance(self._dialect, OpenAI):
            return _looked_at(_from_base64(answer.body), scheduler)
        if answer.media_type != _RGB:
            return _looked_at(answer.body, scheduler)
        width, height = answer.job.width, answer.job.height
        if len(answer.body) != width * height * 3:
            raise BadOutput("the pixels are not those of the asked size")
        return Picture(width=width, height=height, rgb=answer.body, scheduler=scheduler)

    def reset(self) -> None:
        """Forget all; when nobody was answered, wait for the server. Raises LoadFailed when that lasts too long."""
        self._forget()
        if self._outage.lasts and self._runner is not None and self._calls is not None:
            self._runner.run(self._until_worth_it(self._calls))

    async def _open(self, key: str) -> None:
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            connector=aiohttp.TCPConnector(limit=self.capabilities.max_batch + 1),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        calls = Calls(self._session, self._base, self._dialect, patience=self._patience, rng=self._rng)
        about = await self._until_healthy(calls, self._outage_s)
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

    async def _ask_all(self, calls: Calls, report: Report) -> tuple[dict[str, Outcome], list[str]]:
        """Outcomes by job, and who was evicted."""
        async with asyncio.TaskGroup() as group:
            with self._lock:
                left = [job_id for job_id in self._members if job_id in self._evicted]
                asked = self._outage.to_ask([job_id for job_id in self._members if job_id not in self._evicted])
                self._tasks = {
                    job_id: group.create_task(
                        calls.picture(self._members[job_id], self._remote_name), name=f"picture {job_id}"
                    )
                    for job_id in asked
                }
            pending: set[asyncio.Task[Outcome]] = set(self._tasks.values())
            while pending:
                _, pending = await asyncio.wait(pending, timeout=self._beat_s)
                if pending:
                    report(Progress(steps={}))  # each request has a limit: a sign of life, for the watchdog
        with self._lock:
            tasks, self._tasks = self._tasks, {}
        left += [job_id for job_id, task in tasks.items() if task.cancelled()]
        return {job_id: task.result() for job_id, task in tasks.items() if not task.cancelled()}, left

    async def _until_worth_it(self, calls: Calls) -> None:
        """A healthy server may be overloaded, or not know the model: it is asked later and later."""
        wait_s, left_s = self._outage.wait_s()
        await asyncio.sleep(wait_s)
        try:
            await self._until_healthy(calls, left_s)
        except LoadFailed:
            self._outage.over()
            raise

    async def _until_healthy(self, calls: Calls, limit_s: float) -> Mapping[str, Any]:
        """What the server says of itself. Raises LoadFailed when it is not well in time."""
        health = Condition(why="not answering")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while True:
                    health = await calls.health()
                    if not health.why:
                        return health.about
                    if health.hopeless:
                        break
                    await asyncio.sleep(_OUTAGE_LOOK_S)
        raise LoadFailed(f"the model server: {health.why}")

    def _forget(self) -> None:
        with self._lock:
            self._members.clear()
            self._evicted.clear()


def _from_base64(body: bytes) -> bytes:
    """The file in an answer of the OpenAI Images API."""
    try:
        data = json.loads(body)["data"][0]["b64_json"]
        return base64.b64decode(data, validate=True)
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
        raise BadOutput("the model server's answer holds no picture in base64") from None


def _looked_at(data: bytes, scheduler: str) -> EncodedPicture:
    """A file with the size and the kind that its header says. Its pixels are checked where it is encoded."""
    from PIL import Image  # noqa: PLC0415  (pixels from our own server need no Pillow)

    try:
        with Image.open(BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as image:
            width, height = image.size
            media_type = f"image/{(image.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadOutput(f"the model server's answer is no picture ({type(error).__name__})") from None
    return EncodedPicture(width=width, height=height, data=data, media_type=media_type, scheduler=scheduler)
