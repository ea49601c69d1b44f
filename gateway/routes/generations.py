"""The operations on generations: create, list, get or wait, cancel, erase."""

import asyncio
import re
from typing import Final

from aiohttp import web
from pydantic_core import to_json

from gateway import errors, tracing
from gateway.access.keys import Caller
from gateway.bodies import parsing, requests, responses, views
from gateway.edge import framing
from gateway.pictures.signing import Urls
from gateway.routes import paths, submissions
from gateway.routes.context import SLOT, Context
from gateway.routes.operations import Answer, Parameter, operation
from schema import fast, limits, pb

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=[,;]|$)", re.IGNORECASE)
_ETAG = re.compile(r"(?:W/)?(\"[^\"]*\")")
_MAX_WAIT_S = limits.MAX_WAIT_MS // 1000
_WAIT_SLICE_S: Final = 5.0
"""A wait asks core in slices, so that it ends soon when the gateway stops or the client hangs up."""
_EARLY_S = 0.25
_POLL_S = 1
"""Retry-After of an accepted submission, in seconds."""

_LONGEST_RETRY_S = 120
"""Seconds; after a longer Retry-After, OpenAI's Python client does not retry."""

_OUTCOMES = ("unknown", "accepted", "replayed", "key_conflict", "backlog_full", "invalid")
_BY_STATUS = {name: number for number, name in enumerate(views.STATUSES)}

ID_PARAMETER = Parameter(
    name="generation_id",
    where="path",
    description="The generation's id.",
    schema={"type": "string", "pattern": "^gen_[0-9a-z]{26}$"},
)
_GENERATION_HEADERS = {"ETag": "Strong: changes with the body."}


@operation(
    id="createGeneration",
    method="POST",
    path="/v1/generations",
    tag="generations",
    summary="Ask for images",
    description="Answers once the request is stored durably; the images follow. Poll the `Location`, or wait on it.",
    request=requests.GenerationRequest,
    answers={
        202: Answer(
            description="Accepted: it will reach an end, whatever fails in between.",
            model=responses.Generation,
            headers={
                "Location": "Where the generation lives.",
                "Retry-After": "Seconds until a look is worth while.",
                "ETag": "As in GET.",
                "Idempotent-Replayed": "`true`: the Idempotency-Key was known, and this is the first one's generation.",
            },
        )
    },
    problems=(400, 408, 413, 415, 422, 429, 503),
    parameters=(
        Parameter(
            name="Idempotency-Key",
            where="header",
            description="A repeat with the same key and body, within 24 hours, is the same generation; "
            "with another body it is refused (422).",
            schema={"type": "string", "minLength": 1, "maxLength": limits.MAX_IDEMPOTENCY_KEY_CHARS},
        ),
    ),
)
async def create(context: Context, request: web.Request, caller: Caller) -> web.Response:
    """POST /v1/generations."""
    sent = parsing.parse(await parsing.read(request, timeout_s=context.body_timeout_s))
    wanted = parsing.validated(requests.GenerationRequest, sent)
    item = submissions.item(
        wanted,
        submissions.spec(wanted, context.models, context.new_seed, context.reports.capabilities),
        generation_id=context.new_id(),
        tenant=caller.tenant,
        idempotency=submissions.idempotency(request.headers.get("Idempotency-Key"), sent),
        trace=context.tracer.outgoing(request),
    )
    result = await context.core.submit(item)
    outcome = _outcome(item, result)
    context.metrics.submitted(_OUTCOMES[outcome] if 0 <= outcome < len(_OUTCOMES) else _OUTCOMES[0])
    return _accepted(context, outcome, result, signed_urls(context, request, caller))


def _outcome(item: fast.SubmitItem, result: fast.SubmitResult) -> int:
    """What core decided, as the client sees it: a call that the gateway itself repeated is not a replay."""
    own = result.outcome == pb.SubmitOutcome.REPLAYED and result.generation.generation_id == item.generation_id
    return int(pb.SubmitOutcome.ACCEPTED if own else result.outcome)


def _accepted(context: Context, outcome: int, result: fast.SubmitResult, signed: Urls) -> web.Response:
    """The answer to what core decided. Raises the error of a refusal."""
    if outcome in (pb.SubmitOutcome.ACCEPTED, pb.SubmitOutcome.REPLAYED):
        view = result.generation
        tracing.note_generation(view.generation_id)
        headers = {
            "Location": f"{context.base_url}/v1/generations/{view.generation_id}",
            "Retry-After": str(_POLL_S),
            "ETag": views.etag(view, signed),
        }
        if outcome == pb.SubmitOutcome.REPLAYED:
            headers["Idempotent-Replayed"] = "true"
        return _answer(context, view, headers, signed, status=202)
    if outcome == pb.SubmitOutcome.KEY_CONFLICT:
        raise errors.KeyConflict(
            "The first request with this Idempotency-Key had another body.", param="Idempotency-Key"
        )
    if outcome == pb.SubmitOutcome.BACKLOG_FULL:
        bound = "share" if result.bound == pb.BacklogBound.SHARE else "everything"
        raise errors.BacklogFull(bound, retry_after_s=min(max(1, result.retry_after_s), _LONGEST_RETRY_S))
    if outcome == pb.SubmitOutcome.INVALID:
        field = result.field.removeprefix("spec.").removeprefix("prompts.")
        raise errors.InvalidFields([(field or "body", result.detail or "is not accepted")])
    raise errors.Broken(f"outcome {outcome}")


@operation(
    id="listGenerations",
    method="GET",
    path="/v1/generations",
    tag="generations",
    summary="List generations, newest first",
    query=requests.ListQuery,
    answers={200: Answer(description="One page.", model=responses.GenerationList)},
    problems=(422, 429, 503),
)
async def list_page(context: Context, request: web.Request, caller: Caller) -> web.Response:
    """GET /v1/generations."""
    query = parsing.validated_query(requests.ListQuery, request)
    status = _BY_STATUS[query.status] if query.status else 0
    page = await context.core.page(caller.tenant, size=query.limit, cursor=query.cursor, status=status)
    signed = signed_urls(context, request, caller)
    data = [views.body(view, context.base_url, signed) for view in page.generations]
    more = page.next_cursor or None
    content = {"object": "list", "data": data, "has_more": more is not None, "next_cursor": more}
    return web.Response(body=to_json(content), headers={"Cache-Control": "no-store"}, content_type="application/json")


@operation(
    id="getGeneration",
    method="GET",
    path="/v1/generations/{generation_id}",
    tag="generations",
    summary="Look at a generation, or wait for its end",
    answers={
        200: Answer(
            description="Its current state. With `Prefer: wait` after its end, or when the time is over.",
            model=responses.Generation,
            headers={**_GENERATION_HEADERS, "Preference-Applied": "The wait that was granted."},
        ),
        304: Answer(description="Still what `If-None-Match` names.", headers=_GENERATION_HEADERS),
    },
    problems=(404, 429, 503),
    parameters=(
        ID_PARAMETER,
        Parameter(name="If-None-Match", where="header", description="ETags that the client holds."),
        Parameter(
            name="Prefer",
            where="header",
            description=f"`wait=N`: answer when the generation has ended, or after N seconds, at most {_MAX_WAIT_S}.",
        ),
    ),
)
async def get(context: Context, request: web.Request, caller: Caller) -> web.Response:
    """GET /v1/generations/{generation_id}."""
    generation_id = paths.generation(request)
    headers = {}
    wait_s = _wanted_wait_s(", ".join(request.headers.getall("Prefer", ())))
    if wait_s is None:
        view = await context.core.get(caller.tenant, generation_id)
    else:
        headers["Preference-Applied"] = f"wait={wait_s}"
        view = await _waited(context, request, caller.tenant, generation_id, wait_s)
    signed = signed_urls(context, request, caller)
    tag = headers["ETag"] = views.etag(view, signed)
    if _matches(request.headers.get("If-None-Match"), tag):
        headers["Cache-Control"] = "private, no-cache"
        return web.Response(status=304, headers=headers)
    return _answer(context, view, headers, signed)


async def _waited(
    context: Context, request: web.Request, tenant: str, generation_id: str, wait_s: int
) -> fast.GenerationView:
    now = context.now
    end = now() + wait_s
    while True:
        asked_s = min(max(end - now(), 0.0), _WAIT_SLICE_S)
        asked_at = now()
        view = await _asked(context, request, tenant, generation_id, asked_s)
        if view is None:
            return await context.core.get(tenant, generation_id)
        gone = request.transport is None  # the client has hung up: free its lane at once
        if views.has_ended(view) or gone or context.draining.is_set() or now() >= end:
            return view
        if now() - asked_at < asked_s / 2:  # core answers waits early while it stops, and when it displaces them
            await asyncio.sleep(min(_EARLY_S, end - now()))


async def _asked(
    context: Context, request: web.Request, tenant: str, generation_id: str, wait_s: float
) -> fast.GenerationView | None:
    """The generation, after one slice of the wait; None if the request is displaced for another tenant meanwhile."""
    try:
        async with asyncio.timeout(None) as limit:
            with request[SLOT].on_displaced(lambda: limit.reschedule(0)):  # a time that has passed: ends the block
                return await context.core.get(tenant, generation_id, wait_s=wait_s)
    except TimeoutError:
        return None


@operation(
    id="cancelGeneration",
    method="POST",
    path="/v1/generations/{generation_id}/cancel",
    tag="generations",
    summary="Cancel a generation",
    description="Possible while any of its images is undecided. Cancelling a cancelled generation changes nothing.",
    answers={200: Answer(description="It is cancelled.", model=responses.Generation, headers=_GENERATION_HEADERS)},
    problems=(404, 409, 429, 503),
    parameters=(ID_PARAMETER,),
)
async def cancel(context: Context, request: web.Request, caller: Caller) -> web.Response:
    """POST /v1/generations/{generation_id}/cancel."""
    outcome = await context.core.cancel(caller.tenant, paths.generation(request))
    view = outcome.generation
    if not outcome.cancelled and view.status != pb.GenerationStatus.CANCELLED:
        raise errors.TooLate(views.status_name(view))
    signed = signed_urls(context, request, caller)
    return _answer(context, view, {"ETag": views.etag(view, signed)}, signed)


@operation(
    id="eraseGeneration",
    method="DELETE",
    path="/v1/generations/{generation_id}",
    tag="generations",
    summary="Erase a generation",
    description="For good: its prompts are deleted before the answer, its images answer 410 from then on, and their "
    "files are deleted right after it, which is repeated until the store has confirmed it. GET and the list go on "
    "showing that the generation was there, how it ended and what it cost (`erased` is true), and an Idempotency-Key "
    "that it was made with still leads to it. It has to have ended (409): cancel it first. Erasing it again changes "
    "nothing and has the same answer. After 503 it may have happened, or happen yet: ask again.",
    answers={
        200: Answer(description="It is erased.", model=responses.Generation, headers=_GENERATION_HEADERS),
    },
    problems=(404, 409, 429, 503),
    parameters=(ID_PARAMETER,),
)
async def erase(context: Context, request: web.Request, caller: Caller) -> web.Response:
    """DELETE /v1/generations/{generation_id}."""
    outcome = await context.core.erase(caller.tenant, paths.generation(request))
    if not outcome.erased:
        raise errors.NotEnded(views.status_name(outcome.generation))
    view, signed = outcome.generation, signed_urls(context, request, caller)
    return _answer(context, view, {"ETag": views.etag(view, signed)}, signed)


def signed_urls(context: Context, request: web.Request, caller: Caller) -> Urls:
    """The signed URLs of the images in an answer, under the public URL or the address that the client used."""
    origin = context.base_url or f"{request.scheme}://{framing.authority(request) or _own_address(request)}"
    return context.pictures.signer.urls(caller.tenant, origin)


def _own_address(request: web.Request) -> str:
    """The local address of an HTTP/1.0 connection without a Host."""
    host, port, *_ = request.get_extra_info("sockname", ("localhost", 80))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _answer(
    context: Context, view: fast.GenerationView, headers: dict[str, str], signed: Urls, *, status: int = 200
) -> web.Response:
    headers["Cache-Control"] = "private, no-cache"
    headers["Content-Type"] = "application/json"
    return web.Response(status=status, body=to_json(views.body(view, context.base_url, signed)), headers=headers)


def _wanted_wait_s(prefer: str) -> int | None:
    """The N of `Prefer: wait=N` (RFC 7240), capped; None without one."""
    found = _WAIT.search(prefer)
    return min(int(found[1]), _MAX_WAIT_S) if found else None


def _matches(if_none_match: str | None, tag: str) -> bool:
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _ETAG.findall(if_none_match)
