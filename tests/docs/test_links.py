"""Every link between the project's texts leads to a file, and to a heading of it; every module they name exists."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, texts

_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(\s*([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//")
_MODULE = re.compile(r"`((?:gateway|core|worker|schema|infra|loadtests|tests)/[\w/]+\.py)(?:::[^`]*)?`")
_POINTER = re.compile(r"((?:[\w-]+/)*[\w-]+\.md), ([A-Z][^\"\n]+)\"")
HISTORY = ("CHANGELOG.md", "loadtests/RESULTS.md")
"""Texts about past states, which name modules that have since moved."""


def links(path: Path) -> Iterator[str]:
    for groups in _LINK.findall(_CODE.sub("", path.read_text("utf-8"))):
        target = next(filter(None, groups))
        if not _ELSEWHERE.match(target):
            yield target


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, no punctuation, hyphens for spaces, a number for repeats."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for title in _HEADING.findall(re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
        seen[slug] += 1
    return found


def problem(path: Path, target: str) -> str | None:
    """Why a relative link of `path` leads nowhere, or None."""
    file, _, anchor = target.partition("#")
    there = (path.parent / file).resolve() if file else path
    if not there.is_relative_to(ROOT) or not there.exists():
        return "no such file"
    if anchor and (there.suffix != ".md" or anchor not in anchors(there)):
        return "no such heading"
    return None


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    wrong = {target: reason for target in links(path) if (reason := problem(path, target))}
    assert not wrong


def test_the_texts_are_joined_by_links() -> None:
    """The check above sees something: these texts are reached from others."""
    reached = {
        (path.parent / target.partition("#")[0]).resolve().relative_to(ROOT).as_posix()
        for path in texts()
        for target in links(path)
        if not target.startswith("#")
    }
    assert {"ARCHITECTURE.md", "docs/runbook.md", "docs/queue-contract.md", "docs/decisions/README.md"} <= reached


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[a](nowhere.md)", "no such file"),
        ("[a](../../etc/passwd)", "no such file"),
        ("[a](other.md#nothing)", "no such heading"),
        ("[a](#here-it-is)", "no such heading"),
        ('<img src="nothing.png">', "no such file"),
        ("[a](other.md#whats-here-core-readyz-1)", None),
        ("`[a](nowhere.md)` [a](https://example.org/#x) [a](mailto:a@example.org)", None),
    ],
)
def test_a_link_that_leads_nowhere_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str | None
) -> None:
    monkeypatch.setattr("tests.docs.test_links.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# What's here: `core`, /readyz\n## What's here: core /readyz\n")
    path = tmp_path / "text.md"
    path.write_text(f"# Text\n{text}\n")
    assert [problem(path, target) for target in links(path)] == ([] if "example.org" in text else [reason])


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_that_a_text_names_exists(path: Path) -> None:
    named = set(_MODULE.findall(path.read_text("utf-8"))) if str(path.relative_to(ROOT)) not in HISTORY else set()
    assert not {name for name in named if not (ROOT / name).is_file()}


def test_the_section_that_a_message_names_exists() -> None:
    """Refusals of the services end in "docs/runbook.md, When …": the beginning of a heading there."""
    named = {
        (path, file, title)
        for top in ("gateway", "core", "worker", "infra")
        for path in (ROOT / top).rglob("*.py")
        for file, title in _POINTER.findall(path.read_text("utf-8"))
    }
    assert len({title for _, _, title in named}) > 2
    headings = {file: _HEADING.findall((ROOT / file).read_text("utf-8")) for file in {file for _, file, _ in named}}
    assert not {each for each in named if not any(title.startswith(each[2]) for title in headings[each[1]])}
