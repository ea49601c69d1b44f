"""Why the worker is not ready, and what else an operator should know. Each part reports its own state; the admin port
reads it.
"""

from collections.abc import Sequence


class Health:
    """Reasons for not being ready, by name, and notes; ready when there is no reason."""

    def __init__(self, **reasons: str) -> None:
        self._reasons = dict(reasons)
        self._notes: dict[str, list[str]] = {}

    def mark_unready(self, name: str, reason: str) -> None:
        """Marks the worker as not ready, because of `reason`, until `clear(name)`."""
        self._reasons[name] = reason

    def clear(self, name: str) -> None:
        """Removes the reason of this name, if there is one."""
        self._reasons.pop(name, None)

    def note(self, name: str, texts: Sequence[str]) -> None:
        """Replaces the notes of this name: what is wrong, although the worker is ready."""
        self._notes[name] = list(texts)

    def notes(self) -> list[str]:
        """All notes."""
        return [text for texts in self._notes.values() for text in texts]

    def reasons(self) -> list[str]:
        """All reasons; empty when ready."""
        return list(self._reasons.values())
