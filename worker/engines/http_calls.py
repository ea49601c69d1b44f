"""One picture asked of a model server over HTTP: the request, its repetitions, and what its end means.

`HttpEngine` runs these side by side. Two dialects: the OpenAI Images API with the fields that SGLang-Diffusion and
vLLM-Omni add under the same names, and our own engine server's bare pixels. No text of a foreign server is repeated
anywhere: it may quote the prompt.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import aiohttp

from infra.retry import backoff_s
from worker.engines.contract import RenderJob

REFUSED: Final = frozenset({"invalid_request", "unsupported", "out_of_memory", "bad_output", "model_error"})
"""Error codes of our own engine server that a repetition of the request would bring again."""

_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_OUR_FAULT: Final = frozenset({401, 403, 404, 405})
_CODE: Final = re.compile(r"[a-z0-9_]{1,40}")
_SLACK_BYTES: Final = 64 * 1024
_MAX_ERROR_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success, not looked into yet."""

    job: RenderJob
    media_type: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The server works and gives no picture for this job."""

    why: str


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Asked later, the server may give the picture. `suspect`: it may be the job that the server broke on."""

    why: str
    suspect: bool = False


Outcome = Answer | Refused | Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`why` is empty when the server is well; waiting does not help when it is `hopeless`."""

    why: str
    hopeless: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


class Dialect(Protocol):
    """How one kind of server is asked."""

    path: str

    def body(self, job: RenderJob, name: str) -> dict[str, Any]:
        """The JSON to send; `name` is the server's for the model."""

    def most_bytes(self, job: RenderJob) -> int:
        """A longer answer is no picture of this size."""


class OpenAI:
    """POST /v1/images/generations, n = 1, a PNG in base64 within JSON."""

    path = "/v1/images/generations"

    def body(self, job: RenderJob, name: str) -> dict[str, Any]:
        """SGLang's default for response_format is url, so it is always said."""
        wishes: dict[str, Any] = {
            "model": name,
            "prompt": job.prompt,
            "n": 1,
            "size": f"{job.width}x{job.height}",
            "response_format": "b64_json",
            "output_format": "png",
            "seed": job.seed,
            "num_inference_steps": job.num_inference_steps,
            "guidance_scale": job.guidance_scale,
        }
        return wishes | ({"negative_prompt": job.negative_prompt} if job.negative_prompt else {})

    def most_bytes(self, job: RenderJob) -> int:
        """PNG of noise is a little longer than its pixels, with an alpha channel by a third; base64 adds another."""
        return job.width * job.height * 4 * 3 // 2 + _SLACK_BYTES


class Raw:
    """POST /v1/render of our own engine server: pixels as they are."""

    path = "/v1/render"

    def body(self, job: RenderJob, name: str) -> dict[str, Any]:
        """The whole job."""
        return {
            "id": job.id,
            "model": name,
            "width": job.width,
            "height": job.height,
            "num_inference_steps": job.num_inference_steps,
            "guidance_scale": job.guidance_scale,
            "seed": job.seed,
            "scheduler": job.scheduler,
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "format": "rgb",
        }

    def most_bytes(self, job: RenderJob) -> int:
        """Or a file, from an engine that encodes by itself."""
        return job.width * job.height * 4 + _SLACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """`timeout_s` is one picture's limit, repetitions and waits included."""

    timeout_s: float
    attempts: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0


class Calls:
    """Asks one server. Belongs to one event loop; the session is its owner's."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: str,
        dialect: Dialect,
        *,
        patience: Patience,
        rng: Callable[[], float],
    ) -> None:
        self._session = session
        self._base = base.rstrip("/")
        self._dialect = dialect
        self._patience = patience
        self._rng = rng

    async def picture(self, job: RenderJob, name: str) -> Outcome:
        """What becomes of the job. Raises nothing but CancelledError."""
        outcome: Outcome = Unreachable("no answer")
        broke = asking = False
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                for attempt in range(self._patience.attempts):
                    asking = True
                    outcome, wait_s = await self._once(job, name)
                    asking = False
                    broke = broke or (isinstance(outcome, Unreachable) and outcome.suspect)
                    if wait_s is None or attempt + 1 == self._patience.attempts:
                        break
                    most = min(self._patience.longest_wait_s, 2.0**attempt * self._patience.first_wait_s)
                    await asyncio.sleep(wait_s + backoff_s(0, first_s=most, cap_s=most, draw=self._rng()))
        except TimeoutError:
            return Unreachable(f"no answer within {self._patience.timeout_s:g} s", suspect=broke or asking)
        if isinstance(outcome, Refused) and outcome.why == "HTTP 500" and (await self.health()).why:
            return Unreachable("HTTP 500, and not healthy", suspect=True)
        return replace(outcome, suspect=broke) if isinstance(outcome, Unreachable) else outcome

    async def health(self) -> Condition:
        """How the server is and what it says of itself; /v1/models knows the right key."""
        about: dict[str, Any] = {}
        try:
            async with asyncio.timeout(10.0):
                async with self._session.get(f"{self._base}/health", allow_redirects=False) as response:
                    if response.status not in (200, 404):
                        return Condition(why=f"not ready (HTTP {response.status})")
                    about = _object(await _limited(response, _MAX_ERROR_BYTES)) if response.status == 200 else {}
                async with self._session.get(f"{self._base}/v1/models", allow_redirects=False) as response:
                    if response.status in (401, 403):
                        return Condition(why=f"it refuses the key (HTTP {response.status})", hopeless=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            return Condition(why=f"not reachable ({type(error).__name__})")
        return Condition(why="", about=about)

    async def _once(self, job: RenderJob, name: str) -> tuple[Outcome, float | None]:
        """One request: its outcome, and the least wait before it is worth another; None if it is not."""
        try:
            async with self._session.post(
                self._base + self._dialect.path,
                json=self._dialect.body(job, name),
                headers={"X-Request-Id": job.id},
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return await self._answer(job, response), None
                return await self._refusal(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Unreachable(type(error).__name__), 0.0
        except (aiohttp.ClientError, OSError) as error:
            return Unreachable(type(error).__name__, suspect=True), 0.0

    async def _answer(self, job: RenderJob, response: aiohttp.ClientResponse) -> Outcome:
        try:
            body = await _limited(response, self._dialect.most_bytes(job))
        except ValueError:
            return Refused("an answer that is too long")
        return Answer(job=job, media_type=response.content_type, headers=response.headers, body=body)

    async def _refusal(self, response: aiohttp.ClientResponse) -> tuple[Outcome, float | None]:
        status = response.status
        try:
            code = _code(await _limited(response, _MAX_ERROR_BYTES))
        except ValueError:
            code = ""
        if code in REFUSED:
            return Refused(f"HTTP {status}, {code}"), None
        if status in _RETRIED:
            said = response.headers.get("Retry-After", "")
            wait_s = float(said) if said.isdecimal() else 0.0
            return Refused("HTTP 500") if status == 500 else Unreachable(f"HTTP {status}"), wait_s
        if status in _OUR_FAULT or status < 400:
            return Unreachable(f"HTTP {status}; is the address right, and the key?"), None
        return Refused(f"HTTP {status}"), None


async def _limited(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body. Raises ValueError beyond `most` bytes."""
    if response.headers.get("Content-Encoding", "identity") != "identity" or (response.content_length or 0) > most:
        raise ValueError("too long, or compressed")
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > most:
            raise ValueError("too long")
        parts.append(part)
    return b"".join(parts)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _code(body: bytes) -> str:
    error = _object(body).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""
