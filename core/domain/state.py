"""The state of one generation: its events, applied one by one. Pure.

    pending ──dispatched──> dispatched ──started──> started ──rendered──> rendered ──published──> published
       ^                        │                      │                      │
       └──── attempt_failed ────┴──────────────────────┴──── (object lost) ───┘        any ──failed──> failed

An image is *decided* once it is rendered, published or failed. A generation is *open* until its terminal event.
`apply` does not check whether an event is allowed; the rules are in `decide`.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, assert_never

from core.domain import events as e
from core.domain.events import Event, Failure, Spec, Trace
from core.domain.shares import ONE, Usage
from schema import limits

REMEMBERED_ATTEMPTS: Final = 8
"""Attempt ids kept per image to recognise late and repeated reports. Older ones are known by their dispatch number."""


class Phase(IntEnum):
    """How far one image has come."""

    PENDING = 1
    DISPATCHED = 2
    STARTED = 3
    RENDERED = 4
    PUBLISHED = 5
    FAILED = 6


class Ending(IntEnum):
    """How a generation ended; OPEN until then."""

    OPEN = 0
    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    EXPIRED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image: what has been tried, and what came of it.

    `suspect`: it runs solo from now on. `solo_starts`: solo starts without a result; a report that blames something
    else subtracts one, a picture resets them to 0. `refusals`: how often a worker, the same or another, did not serve
    its model or could not load it. `uncounted_refusals`: refusals that do not count, because another worker may serve
    the model. `ended_attempts`: attempts that ended without a picture; a late or repeated report of one must not count
    again. `revoked_attempts`: attempts whose decision was revoked because the temporary object was lost.
    """

    index: int
    phase: Phase = Phase.PENDING
    dispatches: int = 0
    suspect: bool = False
    ever_started: bool = False
    solo_starts: int = 0
    refusals: int = 0
    uncounted_refusals: int = 0
    attempts: tuple[str, ...] = ()
    ended_attempts: tuple[str, ...] = ()
    revoked_attempts: tuple[str, ...] = ()
    recheck_at_running_ms: int = 0
    rendered: e.ImageRendered | None = None
    public_key: str = ""
    failure: Failure = Failure.NONE
    detail: str = ""

    @property
    def attempt_id(self) -> str:
        """The latest attempt; empty before the first start."""
        return self.attempts[-1] if self.attempts else ""

    @property
    def decided(self) -> bool:
        """Whether a picture has won, or the image has failed."""
        return self.phase >= Phase.RENDERED


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation after `version` events. `charge`: the weight of each image in the backlog; it never changes."""

    id: str
    version: int
    tenant: str
    spec: Spec
    priority: int
    ttl_s: int
    requested_at_ms: int
    expires_at_running_ms: int
    prompt_hmac: bytes
    trace: Trace
    images: tuple[Image, ...]
    charge: int = ONE
    started_at_ms: int = 0
    finished_at_ms: int = 0
    ending: Ending = Ending.OPEN
    detail: str = ""
    erased: bool = False
    latest_at_ms: int = 0
    """The latest time of its events; `transaction.not_before` gives later events no earlier one."""

    @property
    def open(self) -> bool:
        """Whether there is no terminal event yet."""
        return self.ending is Ending.OPEN

    @property
    def usage(self) -> Usage:
        """Its part of the backlog: the images neither published nor failed; nothing once the generation has ended."""
        if not self.open:
            return Usage()
        images = sum(image.phase < Phase.PUBLISHED for image in self.images)
        return Usage(self.charge * images, images)

    @property
    def undecided(self) -> bool:
        """Whether some image is not decided."""
        return not all(image.decided for image in self.images)


def begin(generation_id: str, event: e.GenerationRequested) -> Generation:
    """The state after the first event of a stream."""
    return Generation(
        id=generation_id,
        version=1,
        tenant=event.tenant,
        spec=event.spec,
        priority=event.priority,
        ttl_s=event.ttl_s,
        requested_at_ms=event.requested_at_ms,
        expires_at_running_ms=event.expires_at_running_ms,
        prompt_hmac=event.prompt_hmac,
        trace=event.trace,
        charge=event.charge or ONE,
        images=tuple(Image(index=index) for index in range(event.spec.n)),
        latest_at_ms=event.requested_at_ms,
    )


def apply(state: Generation, event: Event, at_ms: int) -> Generation:
    """The state after one more event, recorded at `at_ms` Unix milliseconds."""
    match event:
        case e.GenerationRequested():
            raise ValueError("a stream is requested once")
        case (
            e.ImageDispatched()
            | e.ImageStarted()
            | e.ImageRendered()
            | e.ImagePublished()
            | e.ImageAttemptFailed()
            | e.ImageFailed()
        ):
            image = image_after(state.images[event.index], event)
            images = (*state.images[: event.index], image, *state.images[event.index + 1 :])
            first_start = isinstance(event, (e.ImageStarted, e.ImageRendered)) and not state.started_at_ms
            started_at_ms = at_ms if first_start else state.started_at_ms
            latest_ms = max(state.latest_at_ms, at_ms)
            version = state.version + 1
            return replace(state, version=version, images=images, started_at_ms=started_at_ms, latest_at_ms=latest_ms)
        case e.GenerationSucceeded():
            return _end(state, Ending.SUCCEEDED, at_ms)
        case e.GenerationFailed():
            return _end(replace(state, detail=event.detail), Ending.FAILED, at_ms)
        case e.GenerationCancelled():
            return _end(state, Ending.CANCELLED, at_ms)
        case e.GenerationExpired():
            return _end(state, Ending.EXPIRED, at_ms)
        case e.GenerationErased():
            return replace(state, version=state.version + 1, erased=True, latest_at_ms=max(state.latest_at_ms, at_ms))
        case _:
            assert_never(event)


def fold(generation_id: str, history: "list[tuple[Event, int]]") -> Generation:
    """The state after a whole stream of (event, at_ms). Raises ValueError if that does not begin with a request."""
    first, *rest = history
    if not isinstance(first[0], e.GenerationRequested):
        raise ValueError(f"stream {generation_id} does not begin with generation.requested")  # noqa: TRY004
    state = begin(generation_id, first[0])
    for event, at_ms in rest:
        state = apply(state, event, at_ms)
    return state


def _end(state: Generation, ending: Ending, at_ms: int) -> Generation:
    latest_ms = max(state.latest_at_ms, at_ms)
    return replace(state, version=state.version + 1, ending=ending, finished_at_ms=at_ms, latest_at_ms=latest_ms)


ImageEvent = (
    e.ImageDispatched | e.ImageStarted | e.ImageRendered | e.ImagePublished | e.ImageAttemptFailed | e.ImageFailed
)


def image_after(image: Image, event: ImageEvent) -> Image:
    """One image after one more event of its own."""
    match event:
        case e.ImageDispatched():
            return replace(
                image,
                phase=Phase.DISPATCHED,
                dispatches=event.dispatch,
                suspect=image.suspect or event.solo,
                recheck_at_running_ms=event.recheck_at_running_ms,
            )
        case e.ImageStarted():
            return replace(
                image,
                phase=Phase.STARTED,
                ever_started=True,
                dispatches=_heard_of(image, event.dispatch),
                solo_starts=image.solo_starts + event.solo,
                attempts=(*image.attempts, event.attempt_id)[-REMEMBERED_ATTEMPTS:],
                # A start never moves the recheck earlier: that of the dispatch also covers work queued before it.
                recheck_at_running_ms=max(image.recheck_at_running_ms, event.recheck_at_running_ms),
            )
        case e.ImageRendered():
            return replace(image, phase=Phase.RENDERED, ever_started=True, solo_starts=0, rendered=event)
        case e.ImagePublished():
            return replace(image, phase=Phase.PUBLISHED, public_key=event.public_key)
        case e.ImageAttemptFailed():
            return _apply_attempt_failed(image, event)
        case e.ImageFailed():
            return replace(image, phase=Phase.FAILED, failure=event.failure, detail=event.detail, rendered=None)
        case _:
            assert_never(event)


def _apply_attempt_failed(image: Image, event: e.ImageAttemptFailed) -> Image:
    if event.failure is Failure.DEAD_LETTERED:  # no worker started it: it is no suspect, and no attempt counts
        return replace(image, phase=Phase.PENDING)
    ended = (*image.ended_attempts, event.attempt_id)[-REMEMBERED_ATTEMPTS:]
    image = replace(
        image, phase=Phase.PENDING, rendered=None, ended_attempts=ended, dispatches=_heard_of(image, event.dispatch)
    )
    counted_at_start = event.solo and event.attempt_id in image.attempts
    if event.uncounted:
        solo_starts = max(0, image.solo_starts - counted_at_start)
        return replace(image, uncounted_refusals=image.uncounted_refusals + 1, solo_starts=solo_starts)
    match event.failure:
        case Failure.OBJECT_LOST:
            return replace(image, revoked_attempts=(*image.revoked_attempts, event.attempt_id))
        case Failure.DRAINED:
            return replace(image, solo_starts=max(0, image.solo_starts - counted_at_start))
        case Failure.UNSUPPORTED | Failure.MODEL_BROKEN:
            return replace(image, refusals=image.refusals + 1)
        case _:
            # A solo attempt whose start was never recorded is counted at its end.
            uncounted = event.solo and not counted_at_start
            return replace(image, suspect=True, solo_starts=image.solo_starts + uncounted)


def _heard_of(image: Image, dispatch: int) -> int:
    """The number of dispatches after a report of dispatch number `dispatch`.

    The report may be recorded before the dispatch itself. It then counts as a dispatch, so that the next one has a new
    number: workers discard copies of a dispatch that they have answered.
    """
    return image.dispatches + (dispatch > image.dispatches)


Ref = tuple[str, int]
"""An image: (generation id, index)."""


def image_seed(seed: int, index: int) -> int:
    """The seed of one image: (seed + index) mod 2^32."""
    return (seed + index) % limits.SEED_MODULUS
