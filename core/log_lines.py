"""One line in the process's log for each durable event: which image, what, by which worker, how long after the request.

A line holds ids, numbers and failure reasons only, and never a prompt or the key of a picture.
"""

from collections.abc import Callable, Iterable, Mapping

from core.domain import events as e
from core.domain.records import Entry
from core.domain.state import Generation

NAMES = ("generation", "index", "tenant", "images", "worker", "attempt", "dispatch", "reason", "ms_since_request")
"""The fields of a line, in the order of the arguments of `Line`."""
Line = Callable[..., None]


class EventLines:
    """`lines` maps event names to `Line`s, each called with the event's values for `NAMES`, None where it has none."""

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
    """The values for `NAMES` from `index` to `reason`."""
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
