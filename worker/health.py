"""Why the worker is not ready. Whoever meets or loses a hindrance says so; the admin port asks."""


class Health:
    """Reasons by name; ready when there is none."""

    def __init__(self, **reasons: str) -> None:
        self._reasons = dict(reasons)

    def hinder(self, name: str, reason: str) -> None:
        """Not ready, because of `reason`, until `clear(name)`."""
        self._reasons[name] = reason

    def clear(self, name: str) -> None:
        """That hindrance is gone."""
        self._reasons.pop(name, None)

    def reasons(self) -> list[str]:
        """All reasons; empty when ready."""
        return list(self._reasons.values())
