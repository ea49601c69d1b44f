"""`just logs`: the services' logs in one stream, each line with the name of its service, readable and in colours."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from infra.lifecycle import ConfigError
from infra.local import folder
from infra.local.layout import Stack
from infra.local.tail import Tail

_COLORS = ("\033[36m", "\033[35m", "\033[32m", "\033[34m", "\033[33m", "\033[96m", "\033[95m", "\033[92m")
_LEVELS = {"warning": "\033[33m", "error": "\033[31m", "critical": "\033[31m"}
_OFF = "\033[0m"
_BESIDE = frozenset({"event", "level", "timestamp", "service", "logger", "exception", "trace_id", "span_id"})
_SUPERVISORD = re.compile(r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(?P<ms>\d{3}) (?P<level>[A-Z]+) (?P<text>.*)")
_POLL_S = 0.2
_LATEST_BYTES = 200_000


def run(service: str, *, follow: bool, lines: int) -> int:
    """Prints the last `lines` lines of each log, then follows until Ctrl-C if `follow` is set.

    An empty `service` means all. Raises ConfigError for a service that has no log.
    """
    stack = Stack.from_env(os.environ)
    terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    tails = {name: Tail(stack.logs / f"{name}.log") for name in _choose(stack, service)}
    latest = [(line, name) for name, tail in tails.items() for line in _latest(tail, lines)]
    for line, name in sorted(latest, key=lambda each: _at(each[0])):
        print(rendered(name, line, colors=terminal))
    sys.stdout.flush()
    try:
        while follow:
            for name, line in _new(tails):
                print(rendered(name, line, colors=terminal))
            sys.stdout.flush()
            time.sleep(_POLL_S)
            for name in _choose(stack, service):
                tails.setdefault(name, Tail(stack.logs / f"{name}.log"))
    except KeyboardInterrupt:
        pass  # the usual end
    return 0


def rendered(name: str, line: str, *, colors: bool) -> str:
    """One line of a log: as it is, or from JSON `time level event key=value …`, with the traceback below."""
    label = f"{_color(name)}{name:<12}{_OFF}" if colors else f"{name:<12}"
    entry = _entry(line)
    if entry is None:
        return f"{label} {line}"
    level = str(entry.get("level", ""))
    shown = f"{_LEVELS[level]}{level:<8}{_OFF}" if colors and level in _LEVELS else f"{level:<8}"
    rest = " ".join(f"{key}={_value(value)}" for key, value in entry.items() if key not in _BESIDE)
    text = f"{label} {str(entry.get('timestamp', ''))[11:23]} {shown} {entry.get('event', '')}  {rest}".rstrip()
    exception = str(entry.get("exception") or "")
    return "\n".join([text, *(f"{label}   {each}" for each in exception.splitlines())])


def _entry(line: str) -> dict[str, object] | None:
    """The keys and values of a line of JSON, or of one that supervisord wrote; None for any other."""
    if found := _SUPERVISORD.fullmatch(line):
        level = found["level"].lower()
        return {
            "timestamp": _utc(found),
            "level": {"warn": "warning", "crit": "critical"}.get(level, level),
            "event": found["text"],
        }
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _utc(found: re.Match[str]) -> str:
    """The time of a line of supervisord, which writes local time, as UTC."""
    at = datetime.fromisoformat(f"{found['time']}.{found['ms']}").astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{found['ms']}000Z"


def _choose(stack: Stack, service: str) -> list[str]:
    try:
        there = sorted(path.stem for path in stack.logs.glob("*.log"))
    except OSError:
        there = []
    chosen = [name for name in there if not service or name == service or name.startswith(f"{service}-")]
    if not chosen:
        what = f"{service!r} has no log" if service else "there are no logs"
        raise ConfigError(f"{what} in {folder.shown(stack.logs)}; there are: {', '.join(there) or 'none'}")
    return chosen


def _latest(tail: Tail, count: int) -> list[str]:
    """The last lines before those that `tail` will read."""
    try:
        with tail.path.open("rb") as file:
            begin = file.seek(max(0, tail.offset - _LATEST_BYTES))
            whole = file.read(tail.offset - begin).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return whole[-count:] if count > 0 else []


def _new(tails: Mapping[str, Tail]) -> Iterator[tuple[str, str]]:
    found = [(_at(line), name, line) for name, tail in tails.items() for line in tail.lines()]
    for _, name, line in sorted(found, key=lambda each: each[0]):
        yield name, line


def _at(line: str) -> str:
    """When the line was written; lines that do not say so come first."""
    if found := _SUPERVISORD.fullmatch(line):
        return _utc(found)
    start = line.find('"timestamp"')
    return line[start + 12 : start + 42].strip(' :"') if start >= 0 else ""


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text) if isinstance(value, str) and (not text or " " in text) else text


def _color(name: str) -> str:
    order = ("core", "worker", "gateway", "emulator", "supervisord")
    kind = name.partition("-")[0]
    return _COLORS[order.index(kind) if kind in order else len(order)]
