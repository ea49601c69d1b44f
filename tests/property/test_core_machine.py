"""Core's rules with queues around them, as a state machine that hypothesis drives and shrinks.

What may happen next is `tests.simulation.small`'s to say: messages late, in any order and again, attempts that fail,
cancel, expiry, and crashes after which only the log is left. It checks every promise after each step; here more goes
wrong at once than all orders of could be gone through.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.simulation.small import Small, State
from tests.simulation.small_core import SmallCore

_SMALL = Small(SmallCore())  # what was decided once stays decided, over all examples


class Queues(RuleBasedStateMachine):
    state: State | None = None

    @initialize(
        images=st.integers(1, 4), crashes=st.integers(0, 4), repeats=st.integers(0, 5), failures=st.integers(0, 5)
    )
    def request(self, images: int, crashes: int, repeats: int, failures: int) -> None:
        self.state = _SMALL.begin(images, crashes, repeats, failures)

    @precondition(lambda self: self.state is not None and not _SMALL.over(self.state))
    @rule(which=st.integers(0, 99))
    def something_happens(self, which: int) -> None:
        assert self.state is not None
        steps = [(name, after) for name, after in _SMALL.steps(self.state) if name not in {"cancel", "expire"}]
        _, self.state = steps[which % len(steps)]

    @precondition(lambda self: self.state is not None and not _SMALL.over(self.state))
    @rule(wanted=st.sampled_from(["cancel", "expire"]))
    def somebody_ends_it(self, wanted: str) -> None:
        assert self.state is not None
        self.state = dict(_SMALL.steps(self.state)).get(wanted, self.state)

    @precondition(lambda self: self.state is not None and _SMALL.over(self.state))
    @rule()
    def late_words_change_nothing(self) -> None:
        assert self.state is not None
        _SMALL.settle(self.state)

    def teardown(self) -> None:
        """Whatever has happened, it comes to its end, once, if it is let."""
        while self.state is not None and not _SMALL.over(self.state):
            _, self.state = _SMALL.steps(self.state)[0]
        if self.state is not None:
            _SMALL.settle(self.state)


Queues.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestQueues = Queues.TestCase
