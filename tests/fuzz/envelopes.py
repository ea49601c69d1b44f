"""Mutants through both consumers' own path: unseal, decode, validate, and what core and a worker make of the message.

An accepted reply goes on to core's decision and to the bytes of its events, which is where it would stop core.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from core.domain.decide import Now
from core.domain.shares import UsageByTenant, caps
from core.domain.state import Generation, apply, begin
from core.domain.transaction import Order, PendingTransaction
from core.log.codec import decode, encode
from core.results import reply_commands
from schema import fast, messages
from tests.core_events import NOON_MS, dispatched, requested, spec
from tests.fuzz.domain import outside
from tests.fuzz.mutate import spoil
from tests.fuzz.originals import ORIGINALS
from tests.fuzz.wire import sound
from worker.messages import parse

_KINDS: dict[Any, str] = {
    fast.ImageJob: "job.image",
    fast.ImageStarted: "reply.started",
    fast.ImageRendered: "reply.rendered",
    fast.ImageAttemptFailed: "reply.attempt_failed",
}


@dataclass
class Report:
    """What became of the mutants.

    `changed`: accepted, and not the bytes of an original. `outside_domain`: accepted against the rules. `stops`: raised
    what is no refusal.
    """

    mutants: int = 0
    resealed: int = 0
    accepted: int = 0
    changed: int = 0
    outside_domain: int = 0
    stops: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    per_s: float = 0.0


def run(mutants: int, seed: int) -> Report:
    """Every other mutant is sealed anew."""
    dice, report = Random(f"envelopes/{seed}"), Report()
    originals = [messages.encode(each) for each in ORIGINALS]
    state = _waiting()
    begun = time.perf_counter()
    for number in range(mutants):
        original = originals[number // 2 % len(originals)]
        body = spoil(dice, original, number // (2 * len(originals)), resealed=bool(number % 2))
        report.resealed += number % 2
        _feed(report, state, body, changed=body not in originals)
    report.mutants = mutants
    report.per_s = round(mutants / (time.perf_counter() - begun), 1)
    return report


def _feed(report: Report, state: Generation, body: bytes, *, changed: bool) -> None:
    try:
        message = _consume(state, body)
    except messages.BadMessage as error:
        report.refusals[_reason(str(error))] += 1
        return
    except Exception as error:  # noqa: BLE001  (whatever it is, a consumer would have stopped)
        report.stops += 1
        report.examples.append(f"stop {error!r}: {body.hex()}")
        return
    report.accepted += 1
    report.changed += changed
    wrong = _wrong(body, message)
    if wrong:
        report.outside_domain += 1
        report.examples.append(f"outside {wrong}: {body.hex()}")


def _consume(state: Generation, body: bytes) -> Any:
    """As a worker's receiver takes a job, and core's consumer a reply. Raises BadMessage for what is quarantined."""
    message = messages.decode(body)
    if isinstance(message, fast.ImageJob):
        parse(body, {}, suspect=False)
        return message
    match message:
        case fast.ImageStarted():
            command: Any = reply_commands.started(message, 1_000)
        case fast.ImageRendered():
            command = reply_commands.misfit(message, state.spec) or reply_commands.rendered(message, "token")
        case _:
            command = reply_commands.attempt_failed(message)
    generation_id = message.image.generation_id
    now = Now(at_ms=NOON_MS, running_ms=1)
    pending = PendingTransaction(now=now, usage=UsageByTenant(), caps=caps(10), before={generation_id: state})
    pending.decide(Order(generation_id, command))
    for entry in pending.transaction().entries:
        assert decode(encode(entry.event)) == entry.event, "the log would hold something else"
    return message


def _wrong(body: bytes, message: Any) -> list[str]:
    envelope = sound(body)
    if envelope is None:
        return ["envelope"]
    name, version, _ = envelope
    if (name, version) != (_KINDS[type(message)], 1):
        return ["type or version"]
    return outside(name, message)


def _reason(refusal: str) -> str:
    """Without the numbers in it."""
    first, *rest = refusal.split()
    return "says another length" if first == "says" else " ".join((first, *rest[:1]))


def _waiting() -> Generation:
    """A generation whose ten images are all on the queue."""
    state = begin("gen_01", requested(spec=spec(n=10)))
    for index in range(10):
        state = apply(state, dispatched(index), NOON_MS)
    return state
