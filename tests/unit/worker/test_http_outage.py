"""A model server that answers nobody: whom it says something about, and how long it may last."""

import pytest

from worker.engines.http_calls import Unreachable
from worker.engines.http_outage import Outage
from worker.errors import LoadFailed

BUSY = Unreachable("HTTP 503")
BROKE = Unreachable("ServerDisconnectedError", suspect=True)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make(clock: Clock, *, draw: float = 1.0) -> Outage:
    return Outage(limit_s=60.0, clock=clock, rng=lambda: draw)


def test_an_overloaded_server_blames_nobody_and_is_asked_later_and_later() -> None:
    clock = Clock()
    outage = make(clock)
    waits = []
    for _ in range(8):
        assert outage.learn({"a": BUSY}, answered=0) == ""
        waits.append(outage.wait_s()[0])
        clock.now_s += 1.0
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_its_time_is_up_and_begins_anew_with_the_first_answer() -> None:
    clock = Clock()
    outage = make(clock)
    outage.learn({"a": BUSY}, answered=0)
    clock.now_s += 59.0
    outage.learn({"a": BUSY}, answered=0)
    assert outage.wait_s() == (1.0, 1.0)
    outage.learn({"a": BUSY}, answered=1)
    assert not outage.lasts
    outage.learn({"a": BUSY}, answered=0)
    clock.now_s += 61.0
    with pytest.raises(LoadFailed, match="HTTP 503"):
        outage.wait_s()


def test_those_a_server_broke_on_are_asked_alone_until_the_culprits_are_known() -> None:
    """Two that break it together must not stop each worker in turn."""
    clock = Clock()
    outage = make(clock)
    left = ["a", "bad", "b", "worse"]
    blamed = []
    rounds = 0
    while left:
        rounds += 1
        asked = outage.to_ask(left)
        broken = {"bad", "worse"} & set(asked)
        unanswered = dict.fromkeys(asked, BROKE) if broken else {}
        culprit = outage.learn(unanswered, answered=len(asked) - len(unanswered))
        if culprit:
            blamed.append(culprit)
        for each in [culprit] if culprit else [] if broken else asked:
            left.remove(each)
            outage.gone(each)
        if outage.lasts:
            clock.now_s += 50.0
            outage.wait_s()  # a new suspect's time: it does not run out
    assert (blamed, rounds) == (["bad", "worse"], 7)


def test_an_outage_in_the_middle_of_a_request_is_one_strike_and_forgotten_with_the_picture() -> None:
    outage = make(Clock())
    assert outage.learn({"a": BROKE}, answered=0) == ""
    assert outage.learn({"a": BUSY}, answered=0) == ""
    outage.gone("a")
    assert outage.learn({"a": BROKE}, answered=0) == ""
    assert outage.learn({"a": BROKE}, answered=0) == "a"
