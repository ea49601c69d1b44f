"""Follows a service's log file, and extracts from its lines why the service cannot start."""

import json
import re
from pathlib import Path

_ERROR_PREFIX = "darkroom: "  # how lifecycle.print_config_error begins
_MOST_BYTES = 1_000_000
_CORE_COMMAND = re.compile(r"`python -m core (?=(?:init|backup|restore|verify|rebuild|history)\b)")


class Tail:
    """Reads what is appended to a log file after this object was created."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = self._size()
        self._rest = b""

    def lines(self) -> list[str]:
        """The complete lines appended since the last call. A truncated log is read from its beginning."""
        size = self._size()
        if size < self.offset:
            self.offset, self._rest = 0, b""
        if size == self.offset:
            return []
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                read = file.read(_MOST_BYTES)
        except OSError:
            return []
        self.offset += len(read)
        *whole, self._rest = (self._rest + read).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def config_error_text(line: str) -> str:
    """What a service says when it cannot start with these settings; empty for any other line.

    `python -m core NAME` in its advice becomes `just NAME`, which runs with this stack's data folder and settings.
    """
    return _CORE_COMMAND.sub("`just ", line.removeprefix(_ERROR_PREFIX)) if line.startswith(_ERROR_PREFIX) else ""


def error_summary(line: str) -> str:
    """The error that a JSON log line reports, on one line; empty for a line below level error."""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict) or entry.get("level") not in {"error", "critical"}:
        return ""
    subject = f"model {entry['model']}: " if "model" in entry else ""
    kind = str(entry.get("error", ""))
    text = str(entry.get("detail") or entry.get("reason") or "")
    exception = str(entry.get("exception", "")).strip().splitlines()
    cause = ": ".join(part for part in (kind, text) if part) or (exception[-1] if exception else "")
    return f"{subject}{_event(str(entry.get('event', '')))}{f' ({_one_line(cause)})' if cause else ''}"


def _event(name: str) -> str:
    return {"model.out": "cannot be used", "process.crashed": "has crashed"}.get(name, name)


def _one_line(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= 300 else joined[:297] + "..."
