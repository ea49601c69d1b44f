"""Requests one picture from a model server over HTTP: the request, its retries, and what the outcome means.

`HttpEngine` runs several of these concurrently. Two dialects: the OpenAI Images API with the fields that
SGLang-Diffusion and vLLM-Omni add under the same names, and our own engine server's bare pixels. Text from a foreign
server is neither logged nor passed on: it may quote the prompt.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import aiohttp

from infra.retry import backoff_s
from worker.engines.contract import RenderJob

REFUSED: Final = frozenset({"out_of_memory", "bad_output", "model_error"})
"""Error codes of our own engine server that would probably recur on a retry."""

REFUSED_FOR_GOOD: Final = frozenset(
    {
        "invalid_request",
        "unsupported",
        "content_policy_violation",
        "moderation_blocked",
        "content_filter",
        "invalid_prompt",
    }
)
"""Error codes, ours and those of known services, that blame the request itself."""

LONG_S: Final = 5.0
"""The longest `Retry-After` that a call waits out: meanwhile it blocks the GPU thread, which others need."""

_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_CODE: Final = re.compile(r"[a-z0-9_]{1,40}")
_SLACK_BYTES: Final = 64 * 1024
_MAX_ERROR_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP 200 whose body has not been checked yet."""

    job: RenderJob
    media_type: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server works but gives no picture for this job. `final`: a retry, here or elsewhere, would not help."""

    why: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """A redirect or a 4xx, which may be the job's fault or that of our settings, such as the key."""

    why: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The server may give the picture later. `suspect`: this job may be what broke the server; `gone`: no connection
    could be made. `retry_after_s` is the pause that the server asks for.
    """

    why: str
    suspect: bool = False
    gone: bool = False
    retry_after_s: float = 0.0


Outcome = Answer | Refusal | Denied | Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A server's health. `why` is empty if it is well; `hopeless`: waiting does not help; `about`: its own report."""

    why: str
    hopeless: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


class Dialect(Protocol):
    """How one kind of server is asked."""

    path: str

    def body(self, job: RenderJob, name: str) -> dict[str, Any]:
        """The JSON to send; `name` is the server's for the model."""

    def most_bytes(self, job: RenderJob) -> int:
        """The limit of the response body in bytes: no picture of this size needs more."""


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
        """Room for a PNG of noise, which exceeds its pixels, with an alpha channel, and a third more for base64."""
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
        """Room for the pixels, or for a file from an engine that encodes by itself."""
        return job.width * job.height * 4 + _SLACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServer:
    """Where a model is served, and how it is asked for. `api` is openai or raw; `remote_name` the model's name there,
    empty for the same; `api_key_env` names the variable that holds the key, empty for none.
    """

    base: str
    api: str = "openai"
    remote_name: str = ""
    api_key_env: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """`timeout_s` is one picture's limit, retries and waits included; `beat_s` how often progress is reported while
    pictures are awaited.
    """

    timeout_s: float
    attempts: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    beat_s: float = 1.0


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
        """Request the job's picture, with retries. Raises nothing but CancelledError."""
        outcome: Outcome = Unreachable("no answer")
        broke = asking = False
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                for attempt in range(self._patience.attempts):
                    asking = True
                    outcome, wait_s = await self._once(job, name)
                    asking = False
                    broke = broke or (isinstance(outcome, Unreachable) and outcome.suspect)
                    if wait_s is None or wait_s > LONG_S or attempt + 1 == self._patience.attempts:
                        break
                    most = min(self._patience.longest_wait_s, 2.0**attempt * self._patience.first_wait_s)
                    await asyncio.sleep(wait_s + backoff_s(0, first_s=most, cap_s=most, draw=self._rng()))
        except TimeoutError:
            return Unreachable(f"no answer within {self._patience.timeout_s:g} s", suspect=broke or asking)
        # A 500 may be this job's failure or the server's: only the server's health tells which.
        if isinstance(outcome, Refusal) and outcome.why.endswith(" 500") and (await self.health()).why:
            return Unreachable(f"{outcome.why}, and is not healthy", suspect=True)
        return replace(outcome, suspect=broke) if isinstance(outcome, Unreachable) else outcome

    async def health(self) -> Condition:
        """Whether the server is ready, and its own report; /v1/models tells whether it accepts the key."""
        about: dict[str, Any] = {}
        try:
            async with asyncio.timeout(10.0):
                async with self._session.get(f"{self._base}/health", allow_redirects=False) as response:
                    if response.status not in (200, 404):  # 404: not every server has /health
                        return Condition(why=f"not ready (HTTP {response.status})")
                    about = _object(await _limited(response, _MAX_ERROR_BYTES)) if response.status == 200 else {}
                async with self._session.get(f"{self._base}/v1/models", allow_redirects=False) as response:
                    if response.status in (401, 403):
                        return Condition(why=f"it refuses the key (HTTP {response.status})", hopeless=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            return Condition(why=f"not reachable ({type(error).__name__})")
        return Condition(why="", about=about)

    async def _once(self, job: RenderJob, name: str) -> tuple[Outcome, float | None]:
        """One request: its outcome, and the least wait in seconds before a retry; None if a retry is no use."""
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
            return Unreachable(type(error).__name__, gone=True), 0.0
        except (aiohttp.ClientError, OSError) as error:
            return Unreachable(type(error).__name__, suspect=True), 0.0

    async def _answer(self, job: RenderJob, response: aiohttp.ClientResponse) -> Outcome:
        try:
            body = await _limited(response, self._dialect.most_bytes(job))
        except ValueError:
            return Refusal("an answer that is too long")  # and no word on what would be a shorter one
        return Answer(job=job, media_type=response.content_type, headers=response.headers, body=body)

    async def _refusal(self, response: aiohttp.ClientResponse) -> tuple[Outcome, float | None]:
        status = response.status
        try:
            code = error_code(await _limited(response, _MAX_ERROR_BYTES))
        except ValueError:
            code = ""
        said = f"the model server answered {status}"
        if code in REFUSED or code in REFUSED_FOR_GOOD:
            return Refusal(f"{said} ({code})", final=code in REFUSED_FOR_GOOD), None
        wait_s = _retry_after_s(response.headers)
        if status == 500:
            return Refusal(said), wait_s
        if status in _RETRIED or status > 500:
            return Unreachable(said, retry_after_s=wait_s), wait_s
        return Denied(said, retry_after_s=wait_s), None


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


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """A `Retry-After` in seconds; it may be a date by the server's clock. 0 if it is missing or unreadable."""
    said = headers.get("Retry-After", "")
    if said.isdecimal():
        return float(said[:6])
    try:
        return max(0.0, (parsedate_to_datetime(said) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def error_code(body: bytes) -> str:
    """The error code in a response body; empty without one, or if it is no plain identifier and may quote a prompt."""
    error = _object(body).get("error")
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""
