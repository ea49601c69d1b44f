"""Shows a person how a start goes on, stage by stage: ticks and colours on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

_GREEN, _YELLOW, _DIM, _OFF = "\033[32m", "\033[33m", "\033[2m", "\033[0m"
_CLEAR = "\r\033[K"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_HEARTBEAT_S = 10.0
_COLUMNS = 80


class Progress:
    """Stages that end in any order. `out` is the terminal, a file or a pipe."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._terminal = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._colors = self._terminal and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()
        self._last_line = self._began
        self._drawn = 0
        self._live = False

    def done(self, stage: str, text: str = "") -> None:
        """The stage has ended well."""
        mark = self._painted(_GREEN, self._symbol("✓", "ok"))
        after = f"{self.seconds:.1f} s"
        self._line(f"{mark} {stage:<12}{self._painted(_DIM, f'{after:>8}')}{f'  {text}' if text else ''}")

    def note(self, text: str) -> None:
        """Prints something that the person should know and that ends no stage."""
        self._line(f"{self._painted(_YELLOW, '!')} {text}")

    def say(self, text: str) -> None:
        """A plain line."""
        self._line(text)

    def waiting(self, pending: Mapping[str, str]) -> None:
        """Shows the pending stages with their reasons. Call it often: off a terminal it prints a line every 10 s."""
        what = ", ".join(f"{stage} ({reason})" if reason else stage for stage, reason in pending.items())
        if self._terminal:
            self._draw(f"{self._symbol(_SPINNER[self._drawn % len(_SPINNER)], '.')} {what}  {self.seconds:.0f} s")
            self._drawn += 1
        elif time.monotonic() - self._last_line > _HEARTBEAT_S:
            self._line(f"waiting for {what}, {self.seconds:.0f} s")

    def close(self) -> None:
        """Leaves no half line behind."""
        if self._live:
            self._write(_CLEAR)
            self._live = False

    @property
    def seconds(self) -> float:
        """Seconds since this object was made."""
        return time.monotonic() - self._began

    def _line(self, text: str) -> None:
        self.close()
        self._write(text + "\n")
        self._last_line = time.monotonic()

    def _draw(self, text: str) -> None:
        try:
            columns = os.get_terminal_size(self._out.fileno()).columns or _COLUMNS
        except (OSError, ValueError):
            columns = _COLUMNS
        self._write(_CLEAR + text[: columns - 1])
        self._live = True

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _painted(self, color: str, text: str) -> str:
        return f"{color}{text}{_OFF}" if self._colors else text

    def _symbol(self, symbol: str, plain: str) -> str:
        """`plain` where the terminal's encoding, or no terminal, cannot show the symbol."""
        if not self._terminal:
            return plain
        try:
            symbol.encode(self._out.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return plain
        return symbol
