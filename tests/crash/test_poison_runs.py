"""Poison in a batch through a whole stack, again and again: its mates never notice (faults.md 39 to 41)."""

from collections.abc import Iterator

import pytest

from core.domain import events as e
from tests.api import Body
from tests.crash import poison_runs
from tests.crash.poison_runs import PoisonStack
from tests.e2e import invariants

RUNS = 20
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoisonStack]:
    with PoisonStack(tmp_path_factory.mktemp("poison"), images=poison_runs.TOGETHER * RUNS) as running:
        yield running


def test_rows_39_to_41_poison_among_seven_mates_fails_alone_for_its_reason(stack: PoisonStack) -> None:
    """Four runs of each kind: raises, gives NaN, does not fit into memory, kills the engine's process, hangs."""
    figures, wrong = poison_runs.run(stack, RUNS, seed=39, deadline_s=240)
    assert not wrong, (wrong, figures)
    assert figures["worker_restarts"] == 0


def test_row_40_what_does_not_fit_together_is_made_in_smaller_batches(stack: PoisonStack) -> None:
    """Out of memory at eight and at four, and not at three: all succeed. Out of memory even alone: that one fails."""
    size: Body = {"width": 72, "height": 320, "num_inference_steps": poison_runs.STEPS}
    stack.warm_up([(72, 320)])
    crowd: list[Body] = [size | {"prompt": "crowded 3"}] * 7
    *fits, big = stack.submitted_together([*crowd, size | {"prompt": "memory"}])
    ends = stack.ends([*fits, big], 60)
    assert {ends[each]["status"] for each in fits} == {"succeeded"}
    assert ends[big]["status"] == "failed"
    events = [line.event for line in invariants.read_log(stack) if line.stream == big]
    assert [each.failure for each in events if isinstance(each, e.ImageFailed)] == [e.Failure.OUT_OF_MEMORY]
    strikes = stack.strikes()  # under the id of whichever culprit the engine came upon first
    sizes = {each: [len(together) for together in strikes.get(each, ())] for each in [*fits, big]}
    struck = {size for found in sizes.values() for size in found}
    largest = max(struck)  # 8, or what the policy has seated by the step times of a busy machine
    assert largest > 4, sizes
    if largest > 6:  # half of it does not fit either
        assert 4 in struck, sizes
    invariants.check(stack)
