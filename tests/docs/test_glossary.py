"""Each term of docs/glossary.md is used in the code as it is spelled there, and has one line."""

import re
from collections import Counter
from functools import cache

import pytest

from tests.docs.blocks import ROOT

_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = [
    (term.strip(), re.findall(r"`([^`]+)`", spellings), meaning.strip())
    for term, spellings, meaning in _ROW.findall((ROOT / "docs/glossary.md").read_text("utf-8"))
    if term.strip() not in ("term", "--")
]
CODE = ("gateway", "core", "worker", "schema/darkroom", "infra")


@cache
def code() -> frozenset[str]:
    """Every word of the services' own code and contracts, and every dotted pair of words, as event names are."""
    paths = [path for top in CODE for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".proto", ".sql")]
    words = {word for path in paths for word in re.findall(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?", path.read_text("utf-8"))}
    return frozenset(words | {part for word in words for part in word.split(".")})


@pytest.mark.parametrize(("term", "spellings"), [row[:2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_code_uses_the_term(term: str, spellings: list[str]) -> None:
    assert spellings, f"{term} has no spelling"
    assert not set(spellings) - code()


def test_each_term_and_each_spelling_has_one_line_in_order() -> None:
    terms = [term for term, _, _ in ROWS]
    assert len(terms) > 40
    assert terms == sorted(set(terms))
    assert not [word for word, count in Counter(word for _, words, _ in ROWS for word in words).items() if count > 1]


def test_a_word_that_the_code_does_not_know_is_found() -> None:
    assert "Heartbeat" in code()
    assert "generation.erased" in code()
    assert "Heartbeats_of_nobody" not in code()
