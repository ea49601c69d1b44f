"""The SQS and S3 clients, set up once per process, and the translation of their errors.

Everything is configured by the standard `AWS_*` variables, which botocore reads itself: endpoint, region,
credentials. No botocore or aiohttp error leaves `infra`: callers see Retryable and Permanent only.

Every request that goes out, those that botocore repeats by itself included, passes `Pace`, and every answer's date
goes to `Skew`: both are hooks on botocore's events, so that no adapter can omit them.
"""

import os
import random
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from infra.lifecycle import ConfigError
from infra.pace import Pace
from infra.retry import Missing, Permanent, Retryable
from infra.settings import is_http_address
from infra.skew import Skew

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_sqs.client import SQSClient

CALL_DEADLINE_S = 30.0
_REFUSED = frozenset({401, 403, 429})
_MISCONFIGURED = (NoCredentialsError, PartialCredentialsError, NoRegionError)
# What an answer that cannot be parsed raises, such as a proxy's page or half an XML document: a ResponseParserError,
# or whatever botocore or the reader of the answer runs into.
_UNREADABLE = (ResponseParserError, LookupError, TypeError, ValueError, AttributeError)
# Refusals that pass by themselves: throttling, a queue or bucket that core has yet to make, a signature that aged
# while this process was stopped, a source that changed under a conditional copy.
_RETRYABLE_CODES = frozenset(
    {
        *("Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequestsException", "SlowDown"),
        *("InternalError", "InternalFailure", "ServiceUnavailable", "RequestTimeout", "OperationAborted"),
        *("RequestExpired", "RequestTimeTooSkewed", "OverLimit", "PreconditionFailed"),
    }
)
MISSING_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_MISSING_CODES = frozenset({*MISSING_QUEUE, "NoSuchBucket"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """`links` signs download links. It is not `s3` where API clients reach the store under another address."""

    sqs: "SQSClient"
    s3: "S3Client"
    links: "S3Client"


@asynccontextmanager
async def clients(
    *, max_connections: int = 50, link_endpoint_url: str = "", skew: Skew | None = None
) -> AsyncIterator[Clients]:
    """Yields the clients and closes them at exit; connects to nothing itself.

    `max_connections`, per client, must cover the long polls and the uploads that run at once. `link_endpoint_url` is
    the store's address in download links; empty means the same as ours. `skew` gets the date of every answer. Raises
    ConfigError for an `AWS_*` variable that is missing or wrong.
    """
    async with AsyncExitStack() as stack:
        try:
            opened = await _open(stack, max_connections, link_endpoint_url, skew)
        except _MISCONFIGURED as error:
            raise ConfigError(
                f"{str(error).rstrip('.')}: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION; for "
                "the local stack use `just up` and other recipes, such as `just dead-letters`, which need none"
            ) from None
        except (BotoCoreError, ValueError) as error:  # an invalid profile, region or endpoint
            raise ConfigError(
                "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION or AWS_PROFILE, or DARKROOM_GATEWAY_LINK_ENDPOINT_URL, is wrong: "
                f"{error}"
            ) from None
        yield opened


async def _open(stack: AsyncExitStack, max_connections: int, link_endpoint_url: str, skew: Skew | None) -> Clients:
    session = get_session()
    if await session.get_credentials() is None:
        raise NoCredentialsError
    sqs = await stack.enter_async_context(session.create_client("sqs", config=_config(max_connections)))
    s3 = await stack.enter_async_context(session.create_client("s3", config=_config(max_connections)))
    for watched in (sqs, s3):
        if not is_http_address(watched.meta.endpoint_url):  # botocore takes any scheme and port, and fails at each call
            raise ValueError(f"Invalid endpoint: {watched.meta.endpoint_url}")
        _watch(watched, Pace(random.random), skew)
    links = s3
    if link_endpoint_url:
        config = _config(1, path_style=True)
        client = session.create_client("s3", endpoint_url=link_endpoint_url, config=config)
        links = await stack.enter_async_context(client)
    return Clients(sqs=sqs, s3=s3, links=links)


def _watch(client: Any, pace: Pace, skew: Skew | None) -> None:
    service = client.meta.service_model.service_id.hyphenize()

    async def before_send(**_: Any) -> None:
        await pace.turn()

    def received(response_dict: Any, parsed_response: Any, **_: Any) -> None:
        headers = (response_dict or {}).get("headers") or {}
        if skew is not None:
            skew.answered(str(headers.get("date", "")))
        if parsed_response is None or _is_fruitless(response_dict.get("status_code", 0), parsed_response, headers):
            pace.failed()
        else:
            pace.worked()

    client.meta.events.register(f"before-send.{service}", before_send)
    client.meta.events.register(f"response-received.{service}", received)


def _is_fruitless(http_status: int, parsed: Any, headers: Any) -> bool:
    """Whether the answer shows that the service works for no caller: it is away, failing, or refuses us."""
    name = parsed.get("Error", {}).get("Code", "")
    page = str(headers.get("content-type", "")).startswith("text/html")
    return (
        page
        or http_status >= 500
        or http_status in _REFUSED
        # A failed precondition is about one object, and shows that the service works.
        or name in (_RETRYABLE_CODES | _MISSING_CODES) - {"PreconditionFailed"}
    )


def _config(max_connections: int, *, path_style: bool | None = None) -> AioConfig:
    if path_style is None:  # a self-hosted store rarely has a host name per bucket
        path_style = bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
    return AioConfig(
        signature_version="s3v4",  # links are SigV2 otherwise
        max_pool_connections=max_connections,
        connect_timeout=5,
        read_timeout=25,  # a long poll lasts up to 20 s
        retries={"mode": "standard", "total_max_attempts": 2},  # infra.retry repeats calls
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if path_style else "auto"},
        parameter_validation=False,
    )


@asynccontextmanager
async def calling(action: str, *, deadline_s: float = CALL_DEADLINE_S) -> AsyncIterator[None]:
    """Limits the block to `deadline_s` and translates its errors as `translated` does; their texts hold no content."""
    with translated(action):
        async with timeout(deadline_s):
            yield


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Translates errors raised in the block into Retryable and Permanent.

    The code that reads the answer belongs in the block too: an answer with an unexpected shape raises there.
    """
    try:
        yield
    except ClientError as error:
        raise _kind(error)(f"{action}: {code(error)}") from error
    except (ParamValidationError, *_MISCONFIGURED) as error:
        raise Permanent(f"{action}: {type(error).__name__}") from error
    except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Retryable(f"{action}: {type(error).__name__}") from error
    except _UNREADABLE as error:
        raise Retryable(f"{action}: unreadable answer, {type(error).__name__}") from error


def assert_readable(answer: Any) -> None:
    """Raises Retryable for a page that was meant for a browser: botocore reads one as an empty answer."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if str(headers.get("content-type", "")).startswith("text/html"):
        raise Retryable("a page instead of an answer")


def code(error: ClientError) -> str:
    """The service's name for the error, such as NoSuchKey."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def status(error: ClientError) -> int:
    """The HTTP status of the answer; 200 for a copy that failed inside a 200."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _kind(error: ClientError) -> type[Retryable | Permanent]:
    if code(error) in _MISSING_CODES:
        return Missing
    return Retryable if is_retryable(error) else Permanent


def is_retryable(error: ClientError) -> bool:
    """Whether the refusal may pass by itself."""
    return status(error) >= 500 or status(error) == 429 or code(error) in _RETRYABLE_CODES
