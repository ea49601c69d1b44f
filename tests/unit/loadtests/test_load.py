"""The command line of the load test, and what it makes of its figures."""

import json
from pathlib import Path

import pytest

from loadtests import load
from loadtests.summary import Figures, Summary, percentile

FIGURES = {
    "seconds": 10.0,
    "times_ms": {"to accepted": [float(each) for each in range(1, 101)], "to pictures (polling)": [5.0, 7.0]},
    "calls": {"GET picture": [12, 2], "POST cancel": [3, 0]},
    "errors": [],
    "exceptions": [],
}


def test_another_machine_is_loaded_only_on_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.main(["--host", "http://192.0.2.1:8080", "--key", "dk_x"])
    assert "--allow-remote" in capsys.readouterr().err


def test_a_given_host_needs_a_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_LOAD_KEY", raising=False)
    with pytest.raises(SystemExit):
        load.main(["--host", "http://127.0.0.1:1"])
    assert "gateway keys create" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--time", "soon"], ["--time", ""], ["--users", "0"], ["--tags", "none"]])
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        load.main(arguments)
    assert refused.value.code == 2


def test_the_line_holds_rates_and_percentiles() -> None:
    line = Summary(Figures.model_validate(FIGURES)).line()
    assert line["accepted"] == 100
    assert line["accepted_per_s"] == 10.0
    assert line["pictures"] == 10
    assert line["completed"] == 2
    assert line["accepted_ms"] == {"p50": 51.0, "p95": 96.0, "p99": 100.0}
    assert line["failures"] == 0


def test_failures_and_errors_of_the_scenario_count_and_are_told(tmp_path: Path) -> None:
    broken = {**FIGURES, "errors": [[4, "GET image link", "answered 503"]], "exceptions": ["KeyError: 'x'"]}
    (tmp_path / "figures.json").write_text(json.dumps(broken))
    summary = Summary.read(tmp_path / "figures.json")
    assert summary.failures == 5
    text = summary.text(users=3, report=tmp_path / "report.html")
    assert "4 × GET image link: answered 503" in text
    assert "KeyError" in text


def test_a_run_without_figures_has_no_percentiles() -> None:
    empty = Summary(Figures.model_validate({**FIGURES, "times_ms": {}}))
    assert empty.accepted == 0
    assert empty.line()["accepted_ms"] == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    assert percentile([], 0.5) == 0.0
