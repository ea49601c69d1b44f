"""The rules: the events that follow from a command in a given state. Pure; the writer calls it.

No events means that nothing changes: the fact is already known, or comes too late to matter. Replies are delivered at
least once and out of order, so most rules start with the cases that change nothing. `Refused` is for the caller of the
command.
"""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from core.domain import commands as c
from core.domain import events as e
from core.domain.events import Cause, Event, Failure
from core.domain.state import Ending, Generation, Image, Phase, apply, image_after

MAX_SOLO_STARTS: Final = 3
"""Solo starts without a result after which an image fails. Starts in a batch never count: any image in it may be the
cause.
"""

MAX_REFUSALS: Final = 3
"""Refusals for an unusable model after which an image fails. More than one, so that an image survives a rolling change
of models. They may all come from one worker: if they had to come from three, an image could never fail where fewer
workers run. The cost: a worker with a wrong models file can fail an image that it receives three times.
"""

MAX_UNCOUNTED_REFUSALS: Final = 1_000
"""Refusals that do not count because another worker may serve the model. All later ones count, so that an image that
never reaches such a worker fails: after about two hours, since dispatches are then eight seconds apart.
"""

MAX_LOSSES: Final = 3
"""Revoked decisions (the temporary object was missing or altered) after which an image fails."""


class Refused(Exception):
    """The command is not allowed in this state."""


class UnknownGeneration(Refused):
    """No such generation."""


class TooLate(Refused):
    """Every image is decided, or the generation has ended."""


class NotEnded(Refused):
    """Only an ended generation can be erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The two times that decisions use: Unix time for people, core's running time for deadlines."""

    at_ms: int
    running_ms: int


def decide(state: Generation | None, command: c.Command, now: Now) -> tuple[Event, ...]:
    """The events that follow, in order; none when nothing changes. Raises Refused, and nothing else."""
    if isinstance(command, c.Request):
        return () if state else (_requested(command, now),)
    if state is None:
        raise UnknownGeneration
    match command:
        case c.Cancel():
            return _cancel(state)
        case c.Erase():
            return _erase(state, command)
        case c.EraseAgain():
            return _erase_again(state)
        case c.Expire():
            due = state.expires_at_running_ms and now.running_ms >= state.expires_at_running_ms
            return (e.GenerationExpired(),) if due and state.open and state.undecided else ()
        case _:
            pass
    if not state.open or command.index >= len(state.images):
        return ()
    own = _decide_image(state.images[command.index], command, now)
    return own + _ending(state, own, now)


def _decide_image(image: Image, command: c.Command, now: Now) -> tuple[Event, ...]:
    match command:
        case c.Dispatch():
            return _dispatch(image, command, now)
        case c.GiveUp():
            return _give_up(image, now)
        case c.RecordStarted():
            return _started(image, command, now)
        case c.RecordRendered():
            return _rendered(image, command)
        case c.RecordAttemptFailed():
            return _attempt_failed(image, command)
        case c.RecordDeadLetter():
            return _dead_letter(image, command)
        case c.RecordObjectLost():
            return _object_lost(image, command)
        case c.RecordPublished():
            return _published(image, command)
        case c.Request() | c.Cancel() | c.Expire() | c.Erase() | c.EraseAgain():
            raise AssertionError("decided for the whole generation")
        case _:
            assert_never(command)


def may_dispatch(image: Image, running_ms: int) -> bool:
    """Whether the image may be sent to the queue now: it is pending, or no report came by its recheck time."""
    if image.decided or convicted(image):
        return False
    return image.phase is Phase.PENDING or running_ms >= image.recheck_at_running_ms


def runs_solo(image: Image, running_ms: int) -> bool:
    """Whether its next dispatch is solo: it is a suspect, or was started and no report came by its recheck time."""
    return image.suspect or (image.phase is Phase.STARTED and running_ms >= image.recheck_at_running_ms)


def convicted(image: Image) -> bool:
    """Whether the image has used up its solo starts."""
    return image.solo_starts >= MAX_SOLO_STARTS


def _requested(command: c.Request, now: Now) -> Event:
    return e.GenerationRequested(
        tenant=command.tenant,
        spec=command.spec,
        priority=command.priority,
        ttl_s=command.ttl_s,
        requested_at_ms=now.at_ms,
        expires_at_running_ms=now.running_ms + command.ttl_s * 1000 if command.ttl_s else 0,
        prompt_hmac=command.prompt_hmac,
        trace=command.trace,
        charge=command.charge,
    )


def _cancel(state: Generation) -> tuple[Event, ...]:
    if state.ending is Ending.CANCELLED:
        return ()
    if not state.open or not state.undecided:
        raise TooLate
    return (e.GenerationCancelled(),)


def _erase(state: Generation, command: c.Erase) -> tuple[Event, ...]:
    if state.open:
        raise NotEnded
    return () if state.erased else (e.GenerationErased(cause=command.cause),)


def _erase_again(state: Generation) -> tuple[Event, ...]:
    """An open generation is cancelled first, so that nothing of it is rendered or shown again. Once every image is
    decided a cancellation is not allowed, so one decision is revoked before it; `stream_check` accepts that stream.
    """
    if state.erased:
        return ()
    won = next((image for image in state.images if image.phase is Phase.RENDERED), None)
    revoked = (_revoked(won, "it was erased"),) if won is not None and not state.undecided else ()
    end = (*revoked, e.GenerationCancelled()) if state.open else ()
    return (*end, e.GenerationErased(cause=Cause.LISTED))


def _dispatch(image: Image, command: c.Dispatch, now: Now) -> tuple[Event, ...]:
    # A dispatch is recorded after it is sent, so its reply may be recorded first; the state has then counted it.
    if command.dispatch <= image.dispatches or not may_dispatch(image, now.running_ms):
        return ()
    return (
        e.ImageDispatched(
            index=image.index,
            dispatch=command.dispatch,
            solo=runs_solo(image, now.running_ms),
            recheck_at_running_ms=now.running_ms + command.recheck_after_ms,
        ),
    )


def _give_up(image: Image, now: Now) -> tuple[Event, ...]:
    # Its last solo start may still be running; the attempt counts as lost only once the recheck time has passed.
    overdue = image.phase is Phase.PENDING or now.running_ms >= image.recheck_at_running_ms
    if image.decided or not convicted(image) or not overdue:
        return ()
    detail = f"started alone {image.solo_starts} times without a result"
    return (e.ImageFailed(index=image.index, failure=Failure.WORKER_LOST, detail=detail),)


def _started(image: Image, command: c.RecordStarted, now: Now) -> tuple[Event, ...]:
    # Jobs of two dispatches may both be started. While the later one runs, a start of the earlier one is stale.
    stale = command.dispatch < image.dispatches and image.phase is Phase.STARTED
    known = command.attempt_id in image.attempts or command.attempt_id in image.ended_attempts
    if image.decided or known or stale:
        return ()
    return (
        e.ImageStarted(
            index=image.index,
            attempt_id=command.attempt_id,
            dispatch=command.dispatch,
            worker_id=command.worker_id,
            solo=command.solo,
            batch_id=command.batch_id,
            batch_size=command.batch_size,
            recheck_at_running_ms=now.running_ms + command.recheck_after_ms,
        ),
    )


def _rendered(image: Image, command: c.RecordRendered) -> tuple[Event, ...]:
    """The first picture wins, from whichever attempt; a picture whose object was lost cannot win a second time."""
    if image.decided or command.event.attempt_id in image.revoked_attempts:
        return ()
    return (command.event,)


def _attempt_failed(image: Image, command: c.RecordAttemptFailed) -> tuple[Event, ...]:
    """Reports of superseded attempts are ignored: only the current attempt or the current dispatch counts."""
    event = command.event
    current = event.attempt_id == image.attempt_id or event.dispatch >= image.dispatches
    # A worker may refuse a job before core has recorded its dispatch: then the reported number is above the known one.
    not_sent = image.phase is Phase.PENDING and event.dispatch <= image.dispatches
    if image.decided or not_sent or event.attempt_id in image.ended_attempts or not current:
        return ()
    failed = replace(event, uncounted=_is_uncounted(image, command))
    final = command.verdict is c.Verdict.FINAL or event.failure is Failure.REFUSED
    return _with_verdict(image, failed, final=final)


def _is_uncounted(image: Image, command: c.RecordAttemptFailed) -> bool:
    """Whether the refusal says nothing about the image. A model that is away may come back, so that never counts."""
    if command.event.failure is Failure.MODEL_AWAY:
        return True
    if command.event.failure is Failure.REFUSED:  # the worker has already repeated the request alone
        return False
    return command.verdict is c.Verdict.ELSEWHERE and image.uncounted_refusals < MAX_UNCOUNTED_REFUSALS


def _dead_letter(image: Image, command: c.RecordDeadLetter) -> tuple[Event, ...]:
    """The image is pending again only if this dispatch was still on the queue. A started one waits for its recheck."""
    if image.phase is not Phase.DISPATCHED or command.dispatch != image.dispatches:
        return ()
    return (
        e.ImageAttemptFailed(
            index=image.index,
            attempt_id="",
            dispatch=command.dispatch,
            worker_id="",
            failure=Failure.DEAD_LETTERED,
            solo=False,
            detail="handed out too often, and begun by nobody",
        ),
    )


def _object_lost(image: Image, command: c.RecordObjectLost) -> tuple[Event, ...]:
    if image.phase is not Phase.RENDERED or not _won(image, command.attempt_id):
        return ()
    return _with_verdict(image, _revoked(image, command.detail))


def _revoked(image: Image, detail: str) -> e.ImageAttemptFailed:
    """The event that revokes the decision of a rendered image."""
    return e.ImageAttemptFailed(
        index=image.index,
        attempt_id=image.rendered.attempt_id if image.rendered else "",
        dispatch=image.dispatches,
        worker_id=image.rendered.worker_id if image.rendered else "",
        failure=Failure.OBJECT_LOST,
        solo=False,
        detail=detail,
    )


def _published(image: Image, command: c.RecordPublished) -> tuple[Event, ...]:
    if image.phase is not Phase.RENDERED or not _won(image, command.attempt_id):
        return ()
    return (e.ImagePublished(index=image.index, public_key=command.public_key),)


def _with_verdict(image: Image, failed: e.ImageAttemptFailed, *, final: bool = False) -> tuple[Event, ...]:
    after = image_after(image, failed)
    exhausted = final or convicted(after) or after.refusals >= MAX_REFUSALS or len(after.revoked_attempts) >= MAX_LOSSES
    if not exhausted:
        return (failed,)
    return failed, e.ImageFailed(index=image.index, failure=failed.failure, detail=failed.detail)


def _won(image: Image, attempt_id: str) -> bool:
    return image.rendered is not None and image.rendered.attempt_id == attempt_id


def _ending(state: Generation, own: tuple[Event, ...], now: Now) -> tuple[Event, ...]:
    for event in own:
        state = apply(state, event, now.at_ms)
    if not all(image.phase in {Phase.PUBLISHED, Phase.FAILED} for image in state.images):
        return ()
    failed = [image for image in state.images if image.phase is Phase.FAILED]
    if not failed:
        return (e.GenerationSucceeded(),)
    return (e.GenerationFailed(detail=f"{len(failed)} of {len(state.images)} images failed: {failed[0].detail}"),)
