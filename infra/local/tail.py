"""The lines that a service adds to its log, while it adds them, and what they say of a start that fails."""

import json
import re
from pathlib import Path

_COMPLAINT = "darkroom: "  # how lifecycle.print_config_error begins
_MOST_BYTES = 1_000_000
_OPERATION = re.compile(r"`python -m core (?=(?:init|backup|restore|verify|rebuild|history)\b)")


class Tail:
    """Reads a log from where it ended when this was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = self._size()
        self._rest = b""

    def lines(self) -> list[str]:
        """The whole lines that have been added since the last call. A log that was cut is read from its beginning."""
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


def complaint(line: str) -> str:
    """What a service says when it cannot start with these settings; empty for any other line.

    Commands of core that it advises become recipes, which run on this stack's data folder with its settings.
    """
    return _OPERATION.sub("`just ", line.removeprefix(_COMPLAINT)) if line.startswith(_COMPLAINT) else ""


def trouble(line: str) -> str:
    """An error in a line of a log, short; empty where there is none."""
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
