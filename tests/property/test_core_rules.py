"""Random commands in random order, as from a world that repeats, reorders and invents: the promises hold after each.

`Journey.do` checks each step: `core.domain.stream_check` over the whole stream (one end, nothing after it, published
once and only after rendered, versions without gaps), statuses that never go back, decided images that stay, mates
untouched, and that a command repeated at once changes nothing.
"""

from contextlib import suppress
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.domain import commands as c
from core.domain.decide import MAX_SOLO_STARTS, Refused, convicted, may_dispatch
from core.domain.events import Failure, ImageAttemptFailed, ImageDispatched, ImageStarted
from core.domain.state import Phase
from tests.unit.core.journey import Journey

indices = st.integers(0, 2)
attempts = st.sampled_from(["a", "b", "c", "d", "e"])
dispatches = st.integers(1, 6)
_CORES_OWN = (Failure.NONE, Failure.OBJECT_LOST, Failure.DEAD_LETTERED)
failures = st.sampled_from([failure for failure in Failure if failure not in _CORES_OWN])


verdicts = st.sampled_from(c.Verdict)


class Rules(RuleBasedStateMachine):
    @initialize(n=st.integers(1, 3), ttl_s=st.sampled_from([0, 1, 5]))
    def request(self, n: int, ttl_s: int) -> None:
        self.journey = Journey(n=n, ttl_s=ttl_s)
        self.reports: list[tuple[str, Failure, int, int]] = []
        self.journey.request()

    def known(self, index: int) -> bool:
        return index < self.journey.n

    @rule(ms=st.integers(1, 400))
    def time_passes(self, ms: int) -> None:
        self.journey.running_ms += ms

    @rule(index=indices)
    def dispatch(self, index: int) -> None:
        if not self.known(index):
            return
        image = self.journey.image(index)
        allowed = self.journey.open.open and may_dispatch(image, self.journey.running_ms)
        events = self.journey.dispatch(index)
        assert bool(events) == allowed
        if events:
            assert isinstance(events[0], ImageDispatched)
            assert events[0].dispatch == image.dispatches + 1
            assert image.solo_starts < MAX_SOLO_STARTS

    @rule(index=indices, attempt=attempts, dispatch=dispatches, solo=st.booleans())
    def start(self, index: int, attempt: str, dispatch: int, solo: bool) -> None:
        if self.known(index):
            self.journey.start(f"{attempt}{index}", index, dispatch, solo=solo)

    @rule(index=indices, attempt=attempts)
    def rendered(self, index: int, attempt: str) -> None:
        if self.known(index):
            self.journey.rendered(f"{attempt}{index}", index)

    @rule(index=indices, attempt=attempts, dispatch=dispatches, failure=failures, solo=st.booleans(), verdict=verdicts)
    def failed(self, index: int, attempt: str, dispatch: int, failure: Failure, solo: bool, verdict: c.Verdict) -> None:
        if self.known(index):
            before = self.journey.image(index)
            events = self.journey.failed(f"{attempt}{index}", failure, index, dispatch, solo=solo, verdict=verdict)
            after = self.journey.image(index)
            if events and verdict is c.Verdict.ELSEWHERE and failure is not Failure.REFUSED:
                assert after.phase is Phase.PENDING
                assert (after.refusals, after.suspect) == (before.refusals, before.suspect)
                assert after.solo_starts <= before.solo_starts

    @rule(index=indices, dispatch=dispatches)
    def dead_letter(self, index: int, dispatch: int) -> None:
        if not self.known(index):
            return
        image = self.journey.image(index)
        out = self.journey.open.open and image.phase is Phase.DISPATCHED and dispatch == image.dispatches
        assert bool(self.journey.dead_letter(index, dispatch)) == out
        if out:
            assert self.journey.image(index) == replace(image, phase=Phase.PENDING)

    @rule(index=indices, attempt=attempts)
    def published(self, index: int, attempt: str) -> None:
        if self.known(index):
            self.journey.published(f"{attempt}{index}", index)

    @rule(index=indices, attempt=attempts)
    def object_lost(self, index: int, attempt: str) -> None:
        if self.known(index):
            self.journey.lost(f"{attempt}{index}", index)

    @rule(index=indices, failure=failures)
    def an_honest_attempt_fails(self, index: int, failure: Failure) -> None:
        """Started from the newest message under a new id, and reported with the same; its report may come again."""
        if not self.known(index) or not self.journey.image(index).dispatches:
            return
        attempt = f"honest{len(self.journey.log)}"
        self.journey.start(attempt, index)
        again = (attempt, failure, index, self.journey.image(index).dispatches)
        self.journey.failed(*again)
        self.reports.append(again)

    @precondition(lambda self: bool(getattr(self, "reports", None)))
    @rule(which=st.integers(0, 3))
    def a_report_comes_again(self, which: int) -> None:
        self.journey.failed(*self.reports[-1 - which % len(self.reports)])

    @rule(index=indices)
    def publish_what_won(self, index: int) -> None:
        if self.known(index) and (winner := self.journey.image(index).rendered):
            self.journey.published(winner.attempt_id, index)

    @rule(index=indices)
    def lose_what_won(self, index: int) -> None:
        if self.known(index) and (winner := self.journey.image(index).rendered):
            self.journey.lost(winner.attempt_id, index)

    @rule(index=indices)
    def give_up(self, index: int) -> None:
        if not self.known(index):
            return
        image = self.journey.image(index)
        if self.journey.do(c.GiveUp(index=index)):
            assert convicted(image)
            assert len(self.alone(index)) >= MAX_SOLO_STARTS

    def alone(self, index: int) -> set[str]:
        """The attempts that ran alone without a picture, by what the log says."""
        events = [each.event for each in self.journey.log]
        return {
            each.attempt_id
            for each in events
            if isinstance(each, ImageStarted | ImageAttemptFailed) and each.solo and each.index == index
        }

    @rule(command=st.sampled_from([c.Cancel(), c.Expire(), c.Erase(), c.EraseAgain()]))
    def whole(self, command: c.Command) -> None:
        with suppress(Refused):
            self.journey.do(command)

    @rule()
    def request_again(self) -> None:
        assert self.journey.request() == ()

    @invariant()
    def the_state_is_what_the_log_says(self) -> None:
        if hasattr(self, "journey"):
            assert self.journey.open == self.journey.refolded()

    @invariant()
    def dispatches_and_failures_are_counted_once(self) -> None:
        if not hasattr(self, "journey"):
            return
        events = [each.event for each in self.journey.log]
        for image in self.journey.open.images:
            sent = [each for each in events if isinstance(each, ImageDispatched) and each.index == image.index]
            numbers = [each.dispatch for each in sent]
            assert numbers == sorted(set(numbers)), "a number was given twice"
            assert image.dispatches >= max([len(sent), *numbers])
            failed = [
                each.attempt_id
                for each in events
                if isinstance(each, ImageAttemptFailed) and each.index == image.index and each.failure not in _CORES_OWN
            ]
            assert len(failed) == len(set(failed))


Rules.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRules = Rules.TestCase
