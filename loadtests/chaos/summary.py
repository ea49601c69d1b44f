"""What a run came to: one JSON line, a verdict, and a few lines for people. Pure."""

from collections.abc import Iterator, Mapping

from loadtests.chaos.run import Order, Outcome


def line(order: Order, outcome: Outcome) -> dict[str, object]:
    """The figures, as printed last."""
    ledger, found, done = outcome.ledger, outcome.found, outcome.done
    return {
        "accepted": len(ledger.told),
        "succeeded": ledger.count("succeeded"),
        "cancelled": ledger.count("cancelled"),
        "failed": found.failed,
        "lost": found.lost,
        "stuck": max(found.stuck, len(ledger.open)),
        "double": found.double + ledger.doubles,
        "wrong": found.wrong + ledger.wrong.total(),
        "pictures": ledger.pictures,
        "kills": done.kills.total(),
        "stops": done.stops.total(),
        "faults": done.faults.total(),
        **outcome.recovery.figures(),
        "seed": order.seed,
        "minutes": round(order.asked.seconds / 60, 2),
        "rate": order.rate,
        "visibility_s": order.asked.visibility_s,
        "quiet_after_s": outcome.quiet_after_s,
        "retries": ledger.retries,
        "strays": found.strays,
        "killed": dict(done.kills),
        "stopped": dict(done.stops),
        "weather": dict(done.faults),
        "spoilt": dict(outcome.spoilt),
        "ended_by_themselves": dict(outcome.deaths),
    }


def passed(figures: Mapping[str, object]) -> bool:
    """Nothing lost, stuck, double, failed or wrong, and something was accepted at all."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int)}
    whole = numbers["accepted"] == numbers["succeeded"] + numbers["cancelled"] > 0
    return whole and not any(numbers[name] for name in ("failed", "lost", "stuck", "double", "wrong"))


def text(outcome: Outcome) -> Iterator[str]:
    """What is worth a look, for people."""
    for reason, times in outcome.ledger.wrong.most_common():
        yield f"wrong, {times} times: {reason}"
    yield from outcome.found.examples
    for name, times in outcome.deaths.most_common():
        yield f"ended by itself, {times} times: {name}"
    for name, times in outcome.cries.most_common(20):
        yield f"logged as an error, {times} times: {name}"
