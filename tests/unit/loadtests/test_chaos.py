"""The pure parts of `just chaos`: the plan, the recovery times, and that each check finds what it looks for."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from loadtests.chaos import checks
from loadtests.chaos.ledger import Ledger
from loadtests.chaos.log import Story
from loadtests.chaos.plan import KILLS, WEATHERS, Asked, Fault, Kill, Stop, timetable
from loadtests.chaos.recovery import Recovery
from loadtests.checks import Accepted

WHOLE = ("generation.requested", "image.dispatched", "image.rendered", "image.published", "generation.succeeded")


def asked(**fields: object) -> Asked:
    return Asked(**({"seconds": 120.0, "kill_every_s": 4.0, "visibility_s": 5} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_two_minutes_hold_every_kind_whatever_the_seed(seed: int) -> None:
    actions = timetable(asked(loop_s=20.0), random.Random(seed))
    kills = [each for each in actions if isinstance(each, Kill)]
    assert {each.kind for each in kills} == set(KILLS)
    assert {each.weather for each in actions if isinstance(each, Fault)} == set(WEATHERS)
    assert all(each.for_s > 5 for each in actions if isinstance(each, Stop)), "shorter than the visibility timeout"
    assert [each.kind for each in kills if each.at_s > 100] == ["core"] * 10
    assert [each.at_s for each in actions] == sorted(each.at_s for each in actions)


def test_fifty_minutes_with_a_kill_every_five_seconds_are_six_hundred_kills() -> None:
    actions = timetable(asked(seconds=3000.0, kill_every_s=5.0), random.Random(1))
    assert sum(isinstance(each, Kill) for each in actions) == 600


def test_only_one_kind_is_killed_and_nothing_else_happens() -> None:
    actions = timetable(asked(only="core", kill_every_s=2.0), random.Random(1))
    assert {(type(each), getattr(each, "kind", "")) for each in actions} == {(Kill, "core")}
    assert len(actions) == 60


def test_the_same_seed_is_the_same_plan() -> None:
    first, second, other = (timetable(asked(), random.Random(seed)) for seed in (3, 3, 4))
    assert first == second != other


def test_recovery_is_from_a_kill_to_the_next_event_of_what_is_open() -> None:
    recovery = Recovery([500, 1_500, 9_000])
    recovery.add([1_000, 1_200, 4_000])  # open at 1,500 only: its next event comes 2.5 s later
    recovery.add([400, 600])  # open at 500
    recovery.add([2_000, 3_000])
    assert recovery.figures() == {
        "recovery_p50_s": 2.5,
        "recovery_p99_s": 2.5,
        "recovery_max_s": 2.5,
        "recoveries": 2,
    }


def test_nothing_open_at_any_kill_is_no_recovery() -> None:
    assert Recovery([1]).figures()["recoveries"] == 0


def looked_at(tmp_path: Path, *types: str, images: int = 1, told: str = "succeeded") -> checks.Findings:
    """What is found in a log that holds one generation with these events."""
    found = checks.Findings()
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.accept("alice", "key", Accepted(id="gen_1", asked={}, location=""))
        ledger.end("gen_1", told)
    story = Story(id="gen_1", events=[(version, name, version) for version, name in enumerate(types, 1)])
    checks.check_story(story, images, ledger, found)
    return found


def test_a_whole_story_gives_no_reason_to_complain(tmp_path: Path) -> None:
    assert looked_at(tmp_path, *WHOLE) == checks.Findings()


@pytest.mark.parametrize(
    ("types", "what"),
    [
        (WHOLE[:-1], "stuck"),
        ((*WHOLE[:-1], "image.published", WHOLE[-1]), "double"),
        ((*WHOLE, "generation.cancelled"), "double"),
        ((*WHOLE, "image.published"), "double"),
        ((*WHOLE[:3], "generation.failed"), "failed"),
        ((*WHOLE[:3], "generation.expired"), "failed"),
        ((*WHOLE[:3], "generation.succeeded"), "wrong"),
        ((*WHOLE, "image.started"), "wrong"),
        (WHOLE[1:], "wrong"),
        ((*WHOLE[:2], "generation.cancelled"), "wrong"),
    ],
    ids=lambda each: each if isinstance(each, str) else ",".join(name.partition(".")[2] for name in each),
)
def test_a_story_that_is_not_whole_is_found(tmp_path: Path, types: tuple[str, ...], what: str) -> None:
    found = looked_at(tmp_path, *types)
    assert getattr(found, what) > 0, found
    assert found.examples


def test_a_stream_that_nobody_was_answered_about_is_a_double(tmp_path: Path) -> None:
    found = checks.Findings()
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        pass
    checks.check_story(Story(id="gen_2", events=[(1, WHOLE[0], 1), (2, "generation.cancelled", 2)]), 1, ledger, found)
    assert found.double == 1


def test_the_ledger_counts_a_key_that_gave_two_generations(tmp_path: Path) -> None:
    first, second = (Accepted(id=name, asked={}, location="") for name in ("gen_1", "gen_2"))
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.accept("alice", "key", first)
        ledger.again(first, second)
        ledger.accept("bob", "other key", first)
    assert ledger.doubles == 1
    assert ledger.wrong.total() == 1
    assert ledger.open == ["gen_1"]


def test_a_prompt_in_a_log_line_is_found(tmp_path: Path) -> None:
    (tmp_path / "core.log").write_text("fine\na secret word\nX-Amz-Signature=1\n")
    (tmp_path / "emulator.log").write_text("GET /x?X-Amz-Signature=1\n")
    found = checks.Findings()
    checks.check_lines(tmp_path, ["secret"], found)
    assert found.wrong == 2


class Bucket:
    """Stands for the public bucket."""

    def __init__(self, objects: dict[str, int]) -> None:
        self._objects = objects

    def public(self) -> Iterator[tuple[str, int]]:
        return iter(self._objects.items())


def a_log(path: Path) -> Path:
    """As much of core's log as the checks of growth and bucket read."""
    with closing(sqlite.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE events (position INTEGER PRIMARY KEY, chain BLOB);"
            "CREATE TABLE images (public_key TEXT, size_bytes INTEGER);"
            "INSERT INTO events VALUES (1, x'01'), (2, x'02');"
            "INSERT INTO images VALUES ('a', 10), ('b', 20), ('', 0);"
        )
    return path


@pytest.mark.parametrize(
    ("objects", "lost", "wrong", "strays"),
    [
        ({"a": 10, "b": 20}, 0, 0, 0),
        ({"a": 10}, 1, 0, 0),
        ({"a": 10, "b": 7}, 0, 1, 0),
        ({"a": 10, "b": 20, "c": 1}, 0, 0, 1),
    ],
    ids=["as told", "one is gone", "one is cut", "one more"],
)
def test_the_bucket_is_held_against_the_log(
    tmp_path: Path, objects: dict[str, int], lost: int, wrong: int, strays: int
) -> None:
    found = checks.Findings()
    checks.check_bucket(a_log(tmp_path / "log"), Bucket(objects), found)
    assert (found.lost, found.wrong, found.strays) == (lost, wrong, strays)


@pytest.mark.parametrize(("chain", "wrong"), [(b"\x02", 0), (b"\x03", 1)], ids=["stands", "has changed"])
def test_what_stood_in_the_log_before_a_kill_stands_there_still(tmp_path: Path, chain: bytes, wrong: int) -> None:
    found = checks.Findings()
    checks.check_growth(a_log(tmp_path / "log"), [(1, b"\x01"), (2, chain)], found)
    assert found.wrong == wrong
