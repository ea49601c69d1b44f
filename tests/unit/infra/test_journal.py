"""Lines that are logged often: the same as structlog's, at an eighth of the price."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from infra import telemetry
from infra.journal import Journal, direct
from infra.settings import Settings


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    direct(None)
    structlog.reset_defaults()


def set_up(**settings: object) -> io.StringIO:
    stream = io.StringIO()
    telemetry.set_up("darkroom-test", Settings.model_validate(settings), stream=stream)
    return stream


def test_a_line_has_the_keys_and_the_form_of_any_other() -> None:
    stream = set_up()
    journal = Journal("request.answered", "route", "status", "ms", "tenant")
    journal('/v1/"ü', 202, 1.5, "alice")
    structlog.get_logger().info("request.answered", route='/v1/"ü', status=202, ms=1.5, tenant="alice")
    cheap, usual = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert cheap.keys() == usual.keys()
    times = [each.pop("timestamp") for each in (cheap, usual)]
    assert cheap == usual
    assert len(times[0]) == len(times[1])
    assert times[0] <= times[1]


def test_what_is_empty_is_left_out() -> None:
    stream = set_up()
    Journal("image.done", "index", "worker", "reason")(0, "", None)
    line = json.loads(stream.getvalue())
    assert line["index"] == 0
    assert not {"worker", "reason"} & line.keys()


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_higher_level_silences_it(level: str) -> None:
    stream = set_up(log_level=level)
    Journal("request.answered", "status")(200)
    assert stream.getvalue() == ""


def test_people_at_a_terminal_get_readable_lines() -> None:
    stream = set_up(log_format="console")
    Journal("request.answered", "status", "tenant")(200, None)
    assert "request.answered" in stream.getvalue()
    assert "status=200" in stream.getvalue()
    assert "tenant" not in stream.getvalue()


class FullDisk(io.StringIO):
    """Takes nothing while `full`."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_lines_that_could_not_be_written_are_counted_in_the_next() -> None:
    stream = FullDisk()
    telemetry.set_up("darkroom-test", Settings(), stream=stream)
    journal = Journal("request.answered", "status")
    stream.full = True
    journal(200)
    journal(201)
    stream.full = False
    journal(202)
    journal(203)
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["log_lines_missed"] == 2
    assert "log_lines_missed" not in second


@pytest.mark.parametrize(("asked", "shown"), [(True, 1), (False, 0)])
def test_the_text_of_a_models_error_is_logged_only_where_that_is_asked_for(asked: bool, shown: int) -> None:
    stream = set_up(log_model_errors=asked)
    structlog.get_logger().warning("model.raised", error="ValueError", error_text="cannot draw a canary")
    assert "model.raised" in stream.getvalue()
    assert stream.getvalue().count("canary") == shown
