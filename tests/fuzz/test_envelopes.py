"""Row 36: garbage, cut at every byte, wrong digest, later schema, nonsense under a right digest; nothing gets through.

`just fuzz --mutants 1000000 --seed S` is the same at length.
"""

from typing import Any

import pytest

from schema import messages, validate
from schema.envelope import unseal
from tests.fuzz.domain import outside
from tests.fuzz.envelopes import Report, run
from tests.fuzz.originals import ORIGINALS
from tests.fuzz.wire import join, seal, sound, split

MUTANTS = 10_000


def test_row_36_no_mutant_is_accepted_outside_the_domain_and_none_stops_a_consumer() -> None:
    report = run(MUTANTS, seed=36)
    assert report.examples == []
    assert (report.outside_domain, report.stops) == (0, 0)
    assert report.resealed == MUTANTS / 2
    assert report.changed > MUTANTS / 50, "hardly any mutant is one that a validator has to think about"
    assert len(report.refusals) > 30, "mutants are refused for too few reasons"


@pytest.mark.parametrize("message", ORIGINALS)
def test_the_domain_written_down_twice_holds_every_good_message(message: Any) -> None:
    sealed = messages.encode(message)
    envelope = unseal(sealed)
    assert sound(sealed) == (envelope.type, envelope.version, envelope.payload)
    assert outside(envelope.type, message) == []
    assert seal(envelope.type.encode(), 1, join(split(envelope.payload))) == sealed


def reported(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, careless: Any) -> Report:
    monkeypatch.setattr(target, name, careless)
    return run(MUTANTS, seed=36)


@pytest.mark.parametrize("name", ["identifier", "whole", "text", "finite", "side"])
def test_a_validator_without_one_of_its_rules_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = reported(monkeypatch, validate, name, lambda *_, **__: None)
    assert report.outside_domain or report.stops


def test_a_reader_that_does_not_look_at_the_digest_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(data: bytes) -> Any:
        name_end = 5 + data[4]
        return unseal(seal(data[5:name_end], 1, data[name_end + 22 :]))

    assert reported(monkeypatch, messages, "unseal", careless).outside_domain
