"""A store that throttles, lies, loses answers and halves of pictures: nothing half is public (faults.md 43, 44)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import fault_actions as a
from tests.e2e import invariants
from tests.eventually import until
from tests.fault_cloud import Action, FaultyCloud, Rule
from tests.stack import Stack

COUNT = 12
CONDITION = "x-amz-copy-source-if-match"


@pytest.fixture(scope="module")
def cloud() -> Iterator[FaultyCloud]:
    with FaultyCloud(seed=43) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def stack(cloud: FaultyCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("store"), env={"AWS_ENDPOINT_URL": cloud.url}, visibility_s=15)
    cloud.target = stack.emulator_port
    with stack:
        yield stack
        invariants.check(stack)


@contextmanager
def works_through(stack: Stack, cloud: FaultyCloud, *rules: Rule, starts: int = COUNT) -> Iterator[None]:
    """`COUNT` images succeed under these rules, each of which was applied, in `starts` attempts (0: any number)."""
    before = len(invariants.starts(stack))
    with cloud.faulty(*rules):
        client = stack.client()
        ids = client.submit_many([{"n": 2, "seed": k} for k in range(COUNT // 2)])
        client.succeeded(ids)
        # Drafts are deleted after their images are published.
        until(lambda: all(rule.hits for rule in rules), 30, what=f"{[(rule.operation, rule.hits) for rule in rules]}")
    if starts:
        assert len(invariants.starts(stack)) - before == starts
    yield
    invariants.check(stack)


def half_of_both(action: Action) -> list[Rule]:
    return [Rule(each, action, share=0.5) for each in ("PutObject", "CopyObject")]


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(a.refused(503, "SlowDown"), id="slow-down"),
        pytest.param(a.lost, id="reset-before"),
        pytest.param(a.answer_lost, id="answer-lost"),
        pytest.param(a.answer_cut, id="answer-cut"),
    ],
)
def test_43_44_uploads_and_copies_are_repeated_until_they_are_whole(
    stack: Stack, cloud: FaultyCloud, action: Action
) -> None:
    """The image is rendered once, whatever its upload and its copy go through."""
    with works_through(stack, cloud, *half_of_both(action)):
        pass


def test_43_uploads_that_are_reset_at_a_third_of_their_body_are_repeated(stack: Stack, cloud: FaultyCloud) -> None:
    """Each picture's first one, and its second at the library's own repetition."""
    with works_through(stack, cloud, Rule("PutObject", a.lost, times=2 * COUNT, body_share=0.3)):
        pass


def test_43_a_copy_that_fails_inside_a_200_is_repeated(stack: Stack, cloud: FaultyCloud) -> None:
    with works_through(stack, cloud, Rule("CopyObject", a.error_in_200(), share=0.5)):
        pass


def test_43_half_a_picture_that_the_store_calls_whole_is_never_published(stack: Stack, cloud: FaultyCloud) -> None:
    """Its size gives it away: the decision is revoked, and the image is drawn again."""
    half = Rule("PutObject", a.half_stored, times=2)
    with works_through(stack, cloud, half, starts=COUNT + 2):
        pass


def test_43_half_a_copy_that_the_store_calls_whole_is_made_again(stack: Stack, cloud: FaultyCloud) -> None:
    with works_through(stack, cloud, Rule("CopyObject", a.half_copied, times=2)):
        pass


@pytest.mark.parametrize("ignored", [False, True], ids=["kept", "ignored"])
def test_44_a_draft_that_changes_before_its_copy_is_not_published(
    stack: Stack, cloud: FaultyCloud, ignored: bool
) -> None:
    """By a store that keeps the condition of a copy, and by one that ignores it: the image is drawn again."""
    altered = a.altered_first(a.without_header(CONDITION) if ignored else a.untouched)
    with works_through(stack, cloud, Rule("CopyObject", altered, times=2), starts=COUNT + 2):
        pass


def test_44_a_store_that_ignores_the_condition_of_a_copy(stack: Stack, cloud: FaultyCloud) -> None:
    with works_through(stack, cloud, Rule("CopyObject", a.without_header(CONDITION))):
        pass


def test_44_a_store_that_refuses_the_condition_of_a_copy(stack: Stack, cloud: FaultyCloud) -> None:
    """501 NotImplemented for a header it does not know: then without it, and the copy is looked at afterwards."""
    with works_through(stack, cloud, Rule("CopyObject", a.not_implemented_with(CONDITION))):
        pass


def test_44_a_store_without_digests_is_read_instead(stack: Stack, cloud: FaultyCloud) -> None:
    """Every draft is fetched and its digest computed; an answer that breaks off is fetched again."""
    rules = (Rule("HeadObject", a.without_digest), Rule("GetObject", a.answer_cut, share=0.5, where="darkroom-temp"))
    with works_through(stack, cloud, *rules):
        pass


def test_44_heads_and_deletes_may_fail_too(stack: Stack, cloud: FaultyCloud) -> None:
    rules = (
        Rule("HeadObject", a.refused(503, "SlowDown"), times=6),
        Rule("DeleteObjects", a.answer_lost, times=1),
    )
    with works_through(stack, cloud, *rules):
        pass
