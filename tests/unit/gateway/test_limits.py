"""Rate rules: buckets, their headers, their bounded table, their file; and over HTTP."""

from pathlib import Path

import pytest
from grpclib import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.access.rate_limits import Limits, Rule, RulesFileError, load_rules, source_of
from gateway.errors import RateLimited
from tests.unit.gateway.harness import UNKNOWN, Answer, rig

RULES = """
[[rules]]
name = "submissions-per-key"
by = "key"
operations = ["createGeneration"]
rate_per_s = 0.5
burst = 3

[[rules]]
name = "all-per-source"
by = "source"
rate_per_s = 0.01
burst = 8
"""


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def rule(name: str = "r", *, burst: int = 3, rate_per_s: float = 0.5, operations: list[str] | None = None) -> Rule:
    return Rule(name=name, by="key", burst=burst, rate_per_s=rate_per_s, operations=operations)


def limits(clock: Clock, *rules: Rule, max_buckets: int = 100) -> tuple[Limits, list[str]]:
    refused: list[str] = []
    return Limits(rules, now=clock, on_refusal=refused.append, max_buckets=max_buckets), refused


def test_a_burst_passes_then_the_rate_holds() -> None:
    clock = Clock()
    table, refused = limits(clock, rule())
    left = [table.check_key("op", "k")["RateLimit"] for _ in range(3)]
    assert left == ['"r";r=2;t=2', '"r";r=1;t=4', '"r";r=0;t=6']
    with pytest.raises(RateLimited) as caught:
        table.check_key("op", "k")
    assert caught.value.retry_after_s == 2
    assert caught.value.headers == {"RateLimit": '"r";r=0;t=6', "RateLimit-Policy": '"r";q=3;w=6'}
    assert refused == ["r"]
    clock.now += 2
    table.check_key("op", "k")
    with pytest.raises(RateLimited):
        table.check_key("op", "k")


def test_keys_have_buckets_of_their_own_and_rules_their_operations() -> None:
    table, _ = limits(Clock(), rule(burst=1, operations=["a"]))
    table.check_key("a", "one")
    table.check_key("a", "two")
    assert table.check_key("b", "one") == {}
    with pytest.raises(RateLimited):
        table.check_key("a", "one")


def test_a_request_that_one_rule_refuses_takes_nothing_from_another() -> None:
    clock = Clock()
    table, refused = limits(clock, rule("wide", burst=10), rule("narrow", burst=1))
    table.check_key("op", "k")
    for _ in range(20):
        with pytest.raises(RateLimited):
            table.check_key("op", "k")
    clock.now += 2
    assert table.check_key("op", "k")["RateLimit"].startswith('"wide";r=9')
    assert set(refused) == {"narrow"}


def test_the_table_is_bounded_and_forgets_who_was_idle_longest() -> None:
    table, _ = limits(Clock(), rule(burst=1), max_buckets=3)
    for subject in ("a", "b", "c", "d"):
        table.check_key("op", subject)
    assert len(table) == 3
    table.check_key("op", "a")  # forgotten, so full again
    with pytest.raises(RateLimited):
        table.check_key("op", "d")


@relaxed
@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.floats(0.1, 5))
def test_no_span_of_time_lets_more_through_than_burst_and_rate(pauses: list[float], burst: int, rate: float) -> None:
    clock = Clock()
    table, _ = limits(clock, rule(burst=burst, rate_per_s=rate))
    passed: list[float] = []
    for pause in pauses:
        clock.now += pause
        try:
            table.check_key("op", "k")
            passed.append(clock.now)
        except RateLimited:
            pass
    for start in range(len(passed)):
        for end in range(start, len(passed)):
            assert end - start + 1 <= burst + (passed[end] - passed[start]) * rate + 1e-6


def test_sources_are_addresses_and_the_64_of_ipv6() -> None:
    assert source_of("192.0.2.7") == "192.0.2.7"
    assert source_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert source_of("fe80::1%eth0") == "fe80::/64"
    assert source_of("") == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("rules = 7", "rules"),
        ("[[rules]]\nname = 'a'", "by"),
        ("[[rules]]\nname='a'\nby='key'\nrate_per_s=0\nburst=1", "rate_per_s"),
        ("[[rules]]\nname='a'\nby='key'\nrate_per_s=1\nburst=1\nx=1", "x"),
        ("[[rules]]\nname='a'\nby='key'\nrate_per_s=1\nburst=1\noperations=['nope']", "nope"),
        ("[[rules]]\nname='a'\nby='key'\nrate_per_s=1\nburst=1\n" * 2, "duplicate rule name"),
        ("[[rules", "rules"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RulesFileError, match=word):
        load_rules(path, ["createGeneration"])


@pytest.mark.asyncio
async def test_over_http_each_answer_tells_and_the_fourth_submission_waits(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    async with rig(tmp_path, tenants=("a", "b"), gateway_rules_file=path) as gateway:
        answers = [await gateway.submit() for _ in range(4)]
        assert [answer.status for answer in answers] == [202, 202, 202, 429]
        own = '"submissions-per-key";r=2;t=2'
        assert answers[0].headers["RateLimit"] == f'"all-per-source";r=7;t=100, {own}'
        assert answers[3].problem(429)["error"]["type"] == "rate_limit_error"
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 2
        assert '"submissions-per-key"' in answers[3].headers["RateLimit-Policy"]
        assert len(gateway.core.stored) == 3
        other = gateway.keys["b"]
        statuses = [(await gateway.call("GET", "/v1/models", key=other)).status for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429], "the address has used its eight, whatever the key"
        assert (await gateway.call("GET", "/v1/models", key="dk_guess")).status == 429, "so guessing is limited too"
        assert (await gateway.call("GET", "/healthz")).status == 200


@pytest.mark.asyncio
async def test_an_answer_that_refuses_tells_the_limits_as_well(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES.replace("burst = 3", "burst = 5").replace("burst = 8", "burst = 100"))

    def left(answer: Answer) -> list[tuple[str, int]]:
        policies = [each.partition(";")[0].strip('" ') for each in answer.headers["RateLimit-Policy"].split(",")]
        found = [each.strip().split(";") for each in answer.headers["RateLimit"].split(",")]
        assert policies == [name.strip('"') for name, _, _ in found]
        return [(name.strip('"'), int(remaining.removeprefix("r="))) for name, remaining, _ in found]

    async with rig(tmp_path, gateway_rules_file=path) as gateway:
        wrong_key = await gateway.call("GET", "/v1/models", key="dk_guess")
        unknown = await gateway.call("GET", f"/v1/generations/{UNKNOWN}")
        invalid = await gateway.submit(width=100)
        assert [each.status for each in (wrong_key, unknown, invalid)] == [401, 404, 422]
        assert left(wrong_key) == [("all-per-source", 99)]
        assert left(unknown) == [("all-per-source", 98)]
        assert left(invalid) == [("all-per-source", 97), ("submissions-per-key", 4)]
        gateway.core.backlog_cap = 0
        full = await gateway.submit()
        gateway.core.refuse_with = Status.UNAVAILABLE
        down = await gateway.submit()
        assert [each.status for each in (full, down)] == [429, 503]
        assert [left(each)[1][1] for each in (full, down)] == [3, 2]
        gateway.core.refuse_with, gateway.core.backlog_cap = None, 9
        refused = [await gateway.submit() for _ in range(4)][-1]
        refused.problem(429)
        assert left(refused) == [("all-per-source", 91), ("submissions-per-key", 0)]
        assert "RateLimit" not in (await gateway.call("GET", "/healthz")).headers
        assert "RateLimit" not in (await gateway.call("GET", "/nowhere")).headers
