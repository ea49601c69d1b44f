"""Checks one stream by itself, for the invariants that no database constraint enforces. Pure."""

from collections.abc import Iterator, Sequence

from core.domain import events as e
from core.domain.events import TERMINAL_TYPES, TYPES, Event, Recorded
from core.domain.state import Generation, Phase, apply, begin


def problems(stream: Sequence[Recorded]) -> Iterator[str]:
    """One line per violation, with the event's position. Ends at the first event that cannot be applied."""
    state: Generation | None = None
    for wanted, each in enumerate(stream, 1):
        if each.version != wanted:
            yield _line(each, f"has version {each.version} where {wanted} belongs")
            return
        if wanted > 1 and each.position <= stream[wanted - 2].position:
            yield _line(each, "stands before an earlier version")
        wrong = _wrong(state, each.event)
        if wrong:
            yield _line(each, wrong)
            return
        if isinstance(each.event, e.GenerationRequested):
            state = begin(each.generation_id, each.event)
        elif state is not None:
            state = apply(state, each.event, each.at_ms)


def _line(each: Recorded, what: str) -> str:
    return f"position {each.position}, stream {each.generation_id}: {TYPES[type(each.event)]} {what}"


def _wrong(state: Generation | None, event: Event) -> str:
    requested = isinstance(event, e.GenerationRequested)
    if state is None:
        return "" if requested else "comes before generation.requested"
    if requested:
        return "comes a second time"
    if not state.open:
        return "" if isinstance(event, e.GenerationErased) and not state.erased else "comes after the end"
    if TYPES[type(event)] in TERMINAL_TYPES:
        return _wrong_end(state, event)
    if isinstance(event, e.GenerationErased):
        return "comes before the end"
    index: int = getattr(event, "index", 0)
    if index >= len(state.images):
        return f"is of image {index} of {len(state.images)}"
    return _wrong_image(state.images[index].phase, event)


def _wrong_end(state: Generation, event: Event) -> str:
    settled = all(image.phase in {Phase.PUBLISHED, Phase.FAILED} for image in state.images)
    failed = any(image.phase is Phase.FAILED for image in state.images)
    match event:
        case e.GenerationSucceeded():
            return "" if settled and not failed else "comes while an image is not published"
        case e.GenerationFailed():
            return "" if settled and failed else "comes while no image has failed, or one is undecided"
        case _:
            return "" if state.undecided else "comes although every image is decided"


def _wrong_image(phase: Phase, event: Event) -> str:
    match event:
        case e.ImagePublished():
            return "" if phase is Phase.RENDERED else "comes without image.rendered before it"
        case e.ImageAttemptFailed(failure=e.Failure.OBJECT_LOST):
            return "" if phase is Phase.RENDERED else "revokes what was not rendered"
        case e.ImageAttemptFailed(failure=e.Failure.DEAD_LETTERED):
            return (
                "" if phase is Phase.DISPATCHED else "is of a dead letter although the image was not out on the queue"
            )
        case e.ImageDispatched() | e.ImageStarted() | e.ImageRendered() | e.ImageAttemptFailed() | e.ImageFailed():
            return "comes although the image is decided" if phase >= Phase.RENDERED else ""
        case _:
            return ""
