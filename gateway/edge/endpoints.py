"""Suggests the documented path that is closest to an unknown one. Pure; the suggestion repeats nothing of the path."""

import difflib
import re
from collections.abc import Sequence

_SAMPLE = re.compile(r"\{[^}]+\}")
_ID_LIKE = re.compile(r"\bgen_[0-9a-z]+|(?<=/)[0-9]+(?=/|$)")
_LIKENESS = 0.6
_MAX_CHARS = 200


class Endpoints:
    """The documented paths, such as `/v1/generations/{generation_id}`."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._patterns = [(path, _pattern(path)) for path in self._paths]

    def closest(self, path: str) -> str | None:
        """The documented path that was probably meant; None if none is close."""
        asked = re.sub(r"/+", "/", "/" + path[:_MAX_CHARS].lower()).rstrip("/") or "/"
        asked = re.sub(r"^(/v1)+(?=/|$)", "/v1", asked)
        # As it is, with /v1 added, and without a prefix before /v1.
        for candidate in (asked, f"/v1{asked}", re.sub(r"^/[^/]+(?=/v1/)", "", asked)):
            for template, pattern in self._patterns:
                if pattern.fullmatch(candidate):
                    return template
        asked = _ID_LIKE.sub("x", asked)
        known = {_SAMPLE.sub("x", each): each for each in self._paths}
        found = difflib.get_close_matches(asked, known, n=1, cutoff=_LIKENESS)
        return known[found[0]] if found else None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(re.escape(part) for part in _SAMPLE.split(path)))
