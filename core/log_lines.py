"""One line of the process's log for each durable event: which image, what, by whom, how long after the request.

No prompt, no picture's address: ids, numbers and reasons of our own.
"""

from collections.abc import Callable, Iterable, Mapping

from core.domain import events as e
from core.domain.records import Entry
from core.domain.state import Generation

NAMES = ("generation", "index", "tenant", "images", "worker", "attempt", "dispatch", "reason", "ms_since_request")
"""What `Line` is called with."""
Line = Callable[..., None]


class EventLines:
    """`lines` by the events' public names, each called with values for `NAMES`, None where there is none."""

    def __init__(self, lines: Mapping[str, Line]) -> None:
        self._lines = lines

    def __call__(self, entries: Iterable[Entry], states: Callable[[str], Generation | None]) -> None:
        for entry in entries:
            line = self._lines.get(e.TYPES[type(entry.event)])
            if line is not None:
                state = states(entry.generation_id)
                age_ms = max(0, entry.at_ms - state.requested_at_ms) if state is not None else None
                line(entry.generation_id, *_values(entry.event), age_ms)


def _values(event: e.Event) -> tuple[str | float | None, ...]:
    """For `NAMES` between the generation and the time."""
    match event:
        case e.GenerationRequested():
            return None, event.tenant, event.spec.n, None, None, None, None
        case e.ImageDispatched():
            return event.index, None, None, None, None, event.dispatch, "solo" if event.solo else None
        case e.ImageStarted():
            return event.index, None, None, event.worker_id, event.attempt_id, event.dispatch, None
        case e.ImageRendered():
            return event.index, None, None, event.worker_id, event.attempt_id, None, None
        case e.ImagePublished():
            return event.index, None, None, None, None, None, None
        case e.ImageAttemptFailed():
            reason = f"{event.failure.name}: {event.detail}" if event.detail else event.failure.name
            return event.index, None, None, event.worker_id, event.attempt_id, event.dispatch, reason
        case e.ImageFailed():
            return event.index, None, None, None, None, None, f"{event.failure.name}: {event.detail}"
        case e.GenerationFailed():
            return None, None, None, None, None, None, event.detail
        case _:
            return None, None, None, None, None, None, None
