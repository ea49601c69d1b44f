"""Why the worker is not ready, and what else is worth telling. Whoever meets or loses a hindrance says so; the admin
port asks.
"""

from collections.abc import Sequence


class Health:
    """Reasons by name; ready when there is none."""

    def __init__(self, **reasons: str) -> None:
        self._reasons = dict(reasons)
        self._notes: dict[str, list[str]] = {}

    def hinder(self, name: str, reason: str) -> None:
        """Not ready, because of `reason`, until `clear(name)`."""
        self._reasons[name] = reason

    def clear(self, name: str) -> None:
        """That hindrance is gone."""
        self._reasons.pop(name, None)

    def note(self, name: str, texts: Sequence[str]) -> None:
        """What is wrong without being a hindrance; nothing for nothing."""
        self._notes[name] = list(texts)

    def notes(self) -> list[str]:
        """All notes."""
        return [text for texts in self._notes.values() for text in texts]

    def reasons(self) -> list[str]:
        """All reasons; empty when ready."""
        return list(self._reasons.values())
