"""Answers that are no picture: what they say of the image, and what of the server. The clock is turned by hand."""

import pytest

from worker.engines.http.calls import Denied, Unreachable, _retry_after_s
from worker.engines.http.judge import MOST_S, OUTAGE_S, STRANGERS, WITNESS_S, WITNESSES_OF_ONE_PICTURE, Judge, Ruling

FORBIDDEN = Denied("the model server answered 403")
BUSY = Unreachable("the model server answered 503")
LONG = Unreachable("the model server answered 429", retry_after_s=3_600.0)
BROKE = Unreachable("ServerDisconnectedError", suspect=True)
GONE = Unreachable("ClientConnectorError", gone=True)
Bad = Denied | Unreachable


class Server:
    """A judge, and what the server answers to which request; any other gets a picture."""

    def __init__(self, **answers: Bad) -> None:
        self.now_s = 100.0
        self.judge = Judge(clock=lambda: self.now_s)
        self.answers: dict[str, Bad] = dict(answers)
        self.all_requests: Bad | None = None
        self.asked: list[list[str]] = []

    def round(self, *job_ids: str) -> Ruling:
        """One group asked for, as the engine does."""
        asked, _ = self.judge.to_ask(job_ids)
        self.asked.append(list(asked))
        outcomes = {each: bad for each in asked if (bad := self.all_requests or self.answers.get(each)) is not None}
        pictures = [each for each in asked if each not in outcomes]
        ruling = self.judge.rule(outcomes, asked=len(asked), answered=len(pictures))
        for each in pictures:
            self.judge.pictured()
            self.judge.gone(each)
        for each in (*ruling.failed, *ruling.to_check):
            self.judge.gone(each)
        return ruling


@pytest.mark.parametrize("answer", [FORBIDDEN, LONG], ids=["403", "long"])
def test_what_is_refused_alone_twice_beside_pictures_fails_with_the_status(answer: Bad) -> None:
    server = Server(bad=answer)
    first = server.round("a", "bad", "b")
    assert not first.away
    server.now_s += MOST_S + 1
    server.round("c")
    alone = server.round("bad")
    assert list(alone.later) == ["bad"]
    server.now_s += MOST_S + 1
    server.round("d")
    ruling = server.round("bad")
    assert {job: (each.why, each.final) for job, each in ruling.to_check.items()} == {"bad": (answer.why, True)}


def test_mates_are_asked_for_before_suspects() -> None:
    server = Server(bad=FORBIDDEN)
    server.round("a", "bad", "b")
    server.round("bad", "c", "d")
    assert server.asked == [["a", "bad", "b"], ["c", "d"]]


def test_who_has_to_wait_is_given_back_and_nobody_else() -> None:
    server = Server(bad=LONG)
    server.round("a", "bad")
    server.now_s += MOST_S / 2
    asked, early = server.judge.to_ask(["bad", "b"])
    assert (list(asked), dict(early)) == (["b"], {"bad": LONG.why})
    server.now_s += MOST_S
    assert list(server.judge.to_ask(["bad"])[0]) == ["bad"], "bounded, whatever the server says"


@pytest.mark.parametrize("answer", [FORBIDDEN, BUSY, LONG, GONE], ids=["403", "503", "long", "gone"])
def test_an_outage_blames_nobody(answer: Bad) -> None:
    server = Server()
    server.all_requests = answer
    for _ in range(20):
        ruling = server.round("a", "b", "c")
        assert not ruling.failed
        assert not ruling.to_check
        assert ruling.away is not None or len(server.asked[-1]) <= 1
        server.now_s += 10.0
    server.all_requests = None
    server.now_s += OUTAGE_S + MOST_S
    assert server.round("a") == Ruling()


def test_a_refused_connection_is_an_outage_at_once_and_a_long_retry_after_its_pause() -> None:
    server = Server()
    server.all_requests = GONE
    assert server.round("a").away is not None
    server.all_requests = LONG
    away = server.round("b", "c").away
    assert away is not None
    assert away.pause_s == MOST_S


def test_without_a_picture_a_few_in_a_row_make_an_outage_and_others_come_first_after_it() -> None:
    bad = [f"bad{number}" for number in range(STRANGERS)]
    server = Server(**dict.fromkeys(bad, FORBIDDEN))
    rulings = [server.round(each) for each in bad]
    assert [ruling.away is not None for ruling in rulings] == [False] * (STRANGERS - 1) + [True]
    server.now_s += 5.0
    server.round(*bad, "good")
    assert server.asked[-1] == ["good"]


def test_beside_a_witness_the_retry_after_of_one_prompt_is_no_pause_of_the_model() -> None:
    """It is the last of a few strangers in a row: the model is tried again soon, for others."""
    bad = [f"bad{number}" for number in range(STRANGERS)]
    server = Server(**dict.fromkeys(bad, FORBIDDEN) | {bad[-1]: LONG})
    server.round("good")
    away = [server.round(each).away for each in bad][-1]
    assert away is not None
    assert away.pause_s == 0.0
    assert server.judge.to_ask([bad[-1], "good"]) == (["good"], {bad[-1]: LONG.why})


def test_nor_is_it_where_convictions_have_used_the_witness_up() -> None:
    server = Server()
    server.round("good")
    server.all_requests = FORBIDDEN
    for number in range(WITNESSES_OF_ONE_PICTURE):
        while not server.round(f"a{number}").to_check:
            server.now_s += MOST_S
    server.all_requests = LONG
    away = next(away for number in range(9) if (away := server.round(f"b{number}").away) is not None)
    assert away.pause_s == 0.0


def test_without_a_witness_it_is_one() -> None:
    server = Server()
    server.all_requests = LONG
    away = [server.round(f"a{number}").away for number in range(STRANGERS)][-1]
    assert away is not None
    assert away.pause_s == MOST_S


def test_a_key_that_expires_costs_a_few_images_and_then_it_is_an_outage() -> None:
    server = Server()
    server.round("good")
    server.all_requests = FORBIDDEN
    failed: list[str] = []
    for number in range(30):
        for _ in range(2):
            ruling = server.round(f"g{number}")
            failed += ruling.to_check
            server.now_s += 3.0
    assert len(failed) == WITNESSES_OF_ONE_PICTURE


def test_a_witness_is_forgotten_after_ten_minutes() -> None:
    server = Server(bad=FORBIDDEN)
    server.round("good")
    server.now_s += WITNESS_S + 1
    for _ in range(2):
        assert not server.round("bad").to_check
        server.now_s += 10.0


@pytest.mark.parametrize("answer", [FORBIDDEN, LONG], ids=["403", "long"])
def test_without_any_witness_it_ends_all_the_same(answer: Bad) -> None:
    server = Server(bad=answer)
    began_s, rounds = server.now_s, 0
    while not (ruling := server.round("bad")).failed:
        rounds += 1
        server.now_s += 70.0
        assert rounds < 30
    assert ruling.failed["bad"].final
    assert rounds >= 4
    assert server.now_s - began_s >= 600.0


def test_a_busy_server_never_fails_an_image() -> None:
    server = Server(bad=BUSY)
    for _ in range(50):
        server.round("good")
        ruling = server.round("bad")
        assert not ruling.failed
        assert not ruling.to_check
        server.now_s += MOST_S + 1


def test_an_account_that_is_over_its_rate_fails_no_image() -> None:
    """The server has given a picture a moment ago; a long Retry-After since says nothing about who is asked for."""
    server = Server()
    server.round("good")
    server.all_requests = LONG
    for _ in range(2):
        assert not server.round("a").to_check
        server.now_s += MOST_S + 1


def test_those_a_server_broke_on_are_asked_alone_until_the_culprits_are_known() -> None:
    """Two that break it together must not stop each worker in turn."""
    server = Server(bad=BROKE, worse=BROKE)
    left = ["a", "bad", "b", "worse"]
    blamed: list[str] = []
    for _ in range(12):
        ruling = server.round(*left)
        blamed += ruling.failed
        asked = server.asked[-1]
        left = [each for each in left if each not in ruling.failed and (each not in asked or each in server.answers)]
        server.now_s += 5.0
    assert (sorted(blamed), left) == (["bad", "worse"], [])


def test_an_outage_in_the_middle_of_a_request_is_one_strike_and_forgotten_with_the_picture() -> None:
    server = Server(a=BROKE)
    assert not server.round("a").failed
    del server.answers["a"]
    server.now_s += 5.0
    server.round("a")
    server.answers["a"] = BROKE
    assert not server.round("a").failed
    server.now_s += 5.0
    assert server.round("a").failed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "9" * 400}, 999_999.0),
        ({"Retry-After": "Mon, 30 Nov 2026 10:01:00 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"}, 60.0),
        ({"Retry-After": "Mon, 30 Nov 2026 09:00:00 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"Retry-After": "Mon, 30 Nov 2026 10:01:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_time(headers: dict[str, str], seconds: float) -> None:
    assert _retry_after_s(headers) == seconds


def test_what_is_remembered_is_bounded() -> None:
    server = Server()
    server.all_requests = BROKE
    for number in range(3_000):
        server.round(f"g{number}")
        server.now_s += 0.01
    assert len(server.judge._records) <= 1_024
