"""Lines of `just logs`: one form and one clock, whoever wrote them."""

import re
import time
from collections.abc import Iterator

import pytest

from infra.local.logs import rendered


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_elsewhere")
def test_supervisords_lines_have_the_form_and_the_clock_of_the_others() -> None:
    line = rendered("supervisord", "2026-11-30 20:10:31,269 WARN exited: worker (exit status 1)", colors=False)
    other = '{"event": "core.lost", "level": "warning", "timestamp": "2026-11-30T11:10:31.269Z", "reason": "a b"}'
    assert line == "supervisord  11:10:31.269 warning  exited: worker (exit status 1)"
    assert rendered("gateway", other, colors=False) == "gateway      11:10:31.269 warning  core.lost  reason='a b'"


def test_what_has_no_form_is_shown_as_it_is() -> None:
    for line in ("2026-11-30 Traceback", "[1, 2]", "{half", ""):
        assert rendered("core", line, colors=False) == f"{'core':<12} {line}"


def test_colors_end_where_they_began() -> None:
    line = rendered("supervisord", "2026-11-30 20:10:31,269 CRIT gone", colors=True)
    assert re.findall(r"\033\[\d+m", line)[1::2] == ["\033[0m", "\033[0m"]
    assert "critical" in line
