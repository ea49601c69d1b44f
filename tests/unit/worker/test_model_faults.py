"""Why a model is out, in one line that clients may see, and when it is tried again."""

import pytest

from worker.engines.errors import EngineAway, LoadFailed, ModelAway
from worker.gpu.models.model_faults import (
    BROKEN_AFTER_S,
    BROKEN_AFTER_TRIES,
    MAX_LOADS,
    ModelFault,
    fault_after,
    one_line,
    trouble_of,
)
from worker.holding.types import ModelState

BROKEN, AWAY = ModelState.BROKEN, ModelState.AWAY


def after(
    error: Exception, times: int, *, every_s: float = 0.0, took_s: float = 0.0, remote: bool = False
) -> ModelFault:
    fault: ModelFault | None = None
    for number in range(times):
        fault = fault_after(
            fault,
            trouble_of(error),
            now_s=number * every_s,
            took_s=took_s,
            draw=0.5,
            remote=remote,
            longest_away_s=60.0,
        )
    assert fault is not None
    return fault


def test_a_load_that_fails_three_times_is_broken_and_then_tried_later_and_later() -> None:
    error = LoadFailed("half a file")
    states = [after(error, times).state for times in range(1, 6)]
    assert states == [AWAY] * (MAX_LOADS - 1) + [BROKEN] * 3
    pauses = [after(error, times).until_s for times in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[1] < 10, "the third attempt is within seconds"
    assert pauses[-1] <= 1_800


def test_a_load_that_takes_long_leaves_the_others_twice_as_long() -> None:
    assert after(ModelAway("its time was up"), 1, took_s=600.0).until_s >= 1_200


def test_what_is_away_for_ever_is_broken_in_the_end_unless_it_is_a_server() -> None:
    error, every_s = ModelAway("ended by SIGSEGV"), BROKEN_AFTER_S / (BROKEN_AFTER_TRIES - 1)
    assert after(error, BROKEN_AFTER_TRIES - 1, every_s=every_s).state is AWAY
    assert after(error, BROKEN_AFTER_TRIES, every_s=every_s).state is BROKEN
    assert after(error, 100, every_s=every_s, remote=True).state is AWAY
    assert after(error, 100).state is AWAY, "a moment is not long"


def test_a_server_says_itself_when_it_is_to_be_asked_again() -> None:
    assert after(EngineAway("HTTP 503", pause_s=45.0), 1, remote=True).until_s >= 45.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("folder /srv/models/secret/x: half a file", "folder …x: half a file"),
        ("/srv/a/b/unet/model.safetensors is cut off", "unet/model.safetensors is cut off"),
        ("two\nlines\tand \x1b[31mcolour", "two lines and [31mcolour"),
        ("unet/config.json lacks a name", "unet/config.json lacks a name"),
        ("see https://host/a/b/c for more", "see https://host/a/b/c for more"),
        ("it is a " + "long " * 100, "it is a " + "long " * 38 + "…"),
    ],
)
def test_reasons_are_one_line_without_the_folders_above(text: str, reason: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert "\n" not in line
    if "…x" in reason:
        assert line == "folder secret/x: half a file"
    elif "long" in reason:
        assert line.endswith("…")
    else:
        assert line == reason
