"""Silences diffusers and transformers below error level, where both log parts of prompts. While a model is loaded, the
tensors that transformers reports as missing go to the caller.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Final

MAX_ERROR_CHARS: Final = 300
_MISSING = re.compile(r"^\s*(\S+)\s*\|\s*(?:MISSING|MISMATCH)", re.MULTILINE)
_KIND = re.compile(r"(\w+) LOAD REPORT")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[dict[str, Sequence[str]]]:
    """Silences the libraries for good. Until the end of the block the mapping collects, by class, the names of tensors
    that were missing in a file or had another shape: transformers 5.23 reports these only by a warning
    (tests/unit/worker/test_model_folders.py fails when that changes).
    """
    import transformers  # noqa: PLC0415  (heavy)

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    import diffusers  # noqa: PLC0415  (heavy; and noisy if imported before that)

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    missing: dict[str, Sequence[str]] = {}
    logger = logging.getLogger("transformers.modeling_utils")
    level, propagates = logger.level, logger.propagate
    listener = _Reports(missing)
    logger.addHandler(listener)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield missing
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates
        logger.setLevel(level)


def one_line(error: BaseException) -> str:
    """An error of a library as one line of at most MAX_ERROR_CHARS characters, its kind first."""
    text = " ".join(_COLOURS.sub("", str(error)).split())
    return f"{type(error).__name__}: {text}"[:MAX_ERROR_CHARS].removesuffix(": ")


class _Reports(logging.Handler):
    def __init__(self, missing: dict[str, Sequence[str]]) -> None:
        super().__init__(logging.WARNING)
        self._missing = missing

    def emit(self, record: logging.LogRecord) -> None:
        text = _COLOURS.sub("", record.getMessage())
        names = _MISSING.findall(text)
        if names:
            kind = _KIND.search(text)
            self._missing[kind[1] if kind else "a part"] = names
