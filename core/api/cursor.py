"""A position in a list as the opaque text that clients send back. Pure."""

import base64


class BadCursor(ValueError):
    """Not a cursor of ours. The text follows the field's name in a message."""


def cursor_of(position: int) -> str:
    """The cursor that continues from a log position; empty for 0."""
    return base64.urlsafe_b64encode(f"p{position}".encode()).decode("ascii").rstrip("=") if position else ""


def position_of(cursor: str) -> int:
    """The log position; 0 for an empty cursor. Raises BadCursor."""
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position = int(text[1:]) if text.startswith("p") and text[1:].isdecimal() else 0
    except ValueError:
        position = 0
    if not 0 < position < 2**62 or cursor_of(position) != cursor:
        raise BadCursor("is not one of ours")
    return position
