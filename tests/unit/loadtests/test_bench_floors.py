"""The end of each benchmark: what was missed is named, and the exit code agrees."""

import json

import pytest

from loadtests.bench import floors

FLOORS: floors.Floors = {"idle": ("<=", 2.0), "part.ratio": (">=", 0.98)}


def test_a_floor_is_met_at_its_bound_and_missed_beyond() -> None:
    assert floors.missed({"idle": 2.0, "part": {"ratio": 0.98}}, FLOORS) == []
    assert floors.missed({"idle": 2.1, "part": {"ratio": 0.97}}, FLOORS) == [
        "idle <= 2 missed: 2.1",
        "part.ratio >= 0.98 missed: 0.97",
    ]


def test_whole_numbers_are_judged_too() -> None:
    assert floors.missed({"idle": 3}, FLOORS) == ["idle <= 2 missed: 3"]
    assert floors.missed({"idle": 2}, FLOORS) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert floors.missed({}, FLOORS) == []
    assert floors.missed({"part": {}}, FLOORS) == []


def test_no_number_meets_no_floor() -> None:
    assert floors.missed({"idle": float("nan"), "part": {"ratio": "much"}}, FLOORS) == [
        "idle <= 2 missed: nan",
        "part.ratio >= 0.98 missed: much",
    ]


@pytest.mark.parametrize("short", [[], ["idle <= 2 missed: 3"]])
def test_the_last_line_is_json_and_the_exit_code_agrees(short: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert floors.ended({"bench": "one"}, short) == bool(short)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"bench": "one", "missed": short}
