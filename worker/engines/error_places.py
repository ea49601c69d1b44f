"""What is logged of an error that a model raised: where it came from, and its text, which may hold a prompt."""

import traceback
from typing import Final

_INNERMOST: Final = 6
_LONGEST: Final = 2_000


def places(error: BaseException) -> list[str]:
    """The innermost places as "file.py:line"."""
    frames = traceback.extract_tb(error.__traceback__)[-_INNERMOST:]
    return [f"{each.filename.rsplit('/', 2)[-1]}:{each.lineno}" for each in frames]


def text(error: BaseException) -> str:
    """Its text, for the field `error_text` alone, which is logged only where `log_model_errors` asks for it."""
    try:
        return str(error)[:_LONGEST]
    except Exception as broken:  # noqa: BLE001  (a library's class may raise anything)
        return f"({type(broken).__name__} while its text was made)"
