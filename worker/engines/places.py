"""Where an error came from, without its text, which may hold a prompt."""

import traceback
from typing import Final

_INNERMOST: Final = 6


def places(error: BaseException) -> list[str]:
    """The innermost places as "file.py:line"."""
    frames = traceback.extract_tb(error.__traceback__)[-_INNERMOST:]
    return [f"{each.filename.rsplit('/', 2)[-1]}:{each.lineno}" for each in frames]
