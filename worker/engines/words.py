"""Foreign text that will stand in facts, logs and messages, made harmless once, where it comes in."""

import re

_OTHER = re.compile(r"[^ -~]")


def printable(text: str, most: int) -> str:
    """At most `most` characters of printable ASCII; "?" stands for every other one."""
    return _OTHER.sub("?", text[:most])
