"""Queues that throttle, do half of a batch, repeat, shuffle, delay and forget (faults.md 27, 28, 30–33)."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from core.domain import events as e
from tests import fault_actions as a
from tests.api import CANARY, story
from tests.cloud import DEAD, JOBS, REPLIES
from tests.crash.queue_attacks import Counting, OnceEach, name
from tests.e2e import invariants
from tests.eventually import until
from tests.fault_cloud import Action, Call, FaultyCloud, Reply, Rule
from tests.fault_proxy import TcpProxy
from tests.stack import Stack

VISIBILITY_S = 3
QUEUES = JOBS, REPLIES
WORKERS = {"worker-0", "worker-1"}
SENDS = ("SendMessageBatch", "DeleteMessageBatch", "ReceiveMessage", "ChangeMessageVisibilityBatch")


@pytest.fixture(scope="module")
def cloud() -> Iterator[FaultyCloud]:
    with FaultyCloud(seed=27) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def line() -> Iterator[TcpProxy]:
    """Before core."""
    with TcpProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(cloud: FaultyCloud, line: TcpProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        tmp_path_factory.mktemp("queue"),
        workers=2,
        visibility_s=VISIBILITY_S,
        env={
            "AWS_ENDPOINT_URL": cloud.url,
            "DARKROOM_CORE_TARGET": f"127.0.0.1:{line.port}",
            "DARKROOM_CORE_DEAD_LETTERS_S": "2",
        },
    )
    cloud.target, line.target = stack.emulator_port, stack.core_port
    for worker in stack.workers:
        worker.env["AWS_SDK_UA_APP_ID"] = worker.name
    with stack:
        yield stack
        invariants.check(stack)


def submitted(stack: Stack, count: int, **fields: object) -> list[str]:
    return stack.client().submit_many([{"n": 2, "seed": k, **fields} for k in range(count // 2)])


@contextmanager
def applied(cloud: FaultyCloud, *rules: Rule) -> Iterator[None]:
    """Under these rules, until each has been applied at least once: polls go on when nothing else does."""
    with cloud.faulty(*rules):
        yield
        until(lambda: all(rule.hits for rule in rules), 30, what=f"{[(rule.operation, rule.hits) for rule in rules]}")


def a_third(action: Action) -> list[Rule]:
    """Of deletions and receives, and half of what is sent; the first jobs and replies in both tries of the library."""
    first = [Rule("SendMessageBatch", action, times=4, where=each) for each in QUEUES]
    return [*first, *(Rule(each, action, share=share) for each, share in zip(SENDS, (0.5, 0.3, 0.3), strict=False))]


@pytest.mark.parametrize(
    ("status", "code"), [(503, "ServiceUnavailable"), (400, "RequestThrottled")], ids=["5xx", "throttled"]
)
def test_27_a_third_of_all_queue_calls_is_refused(stack: Stack, cloud: FaultyCloud, status: int, code: str) -> None:
    """What was refused is sent again, by whoever sent it: each image is started once."""
    with applied(cloud, *a_third(a.refused(status, code))):
        ids = submitted(stack, 30)
        stack.client().succeeded(ids)
    invariants.check(stack)
    starts = [(line.stream, line.event.index) for line in log_of(stack, ids) if isinstance(line.event, e.ImageStarted)]
    assert len(starts) == len(set(starts)) == 30, starts


@pytest.mark.parametrize("action", [a.answer_lost, a.answer_cut], ids=["lost", "cut"])
def test_27_a_third_of_all_answers_is_lost(stack: Stack, cloud: FaultyCloud, action: Action) -> None:
    """What was sent may be sent again, what was received comes again when its visibility ends."""
    with applied(cloud, *a_third(action)):
        stack.client().succeeded(submitted(stack, 30))
    invariants.check(stack)


def test_28_only_the_failed_entries_of_a_batch_are_sent_again(stack: Stack, cloud: FaultyCloud) -> None:
    """For jobs and for replies: every message is accepted by the queue once, the failed ones at a later try."""
    counting = Counting(times=12)
    with applied(cloud, Rule("SendMessageBatch", counting)):
        ids = submitted(stack, 40)
        stack.client().succeeded(ids)
    mine = {each: count for each, count in counting.accepted.items() if each[1] in ids}
    assert len(counting.failed) >= 12, counting.failed
    assert set(counting.failed) <= set(mine), "given up"
    assert set(mine.values()) == {1}, {each: count for each, count in mine.items() if count > 1}
    invariants.check(stack)


def test_28_entries_of_a_deletion_that_failed_are_deleted_again(stack: Stack, cloud: FaultyCloud) -> None:
    """By a worker before it lets go of them: none of them comes again."""
    before = came_again(stack)
    action = a.some_failed(3)
    first = [Rule("DeleteMessageBatch", action, times=2, where=each) for each in QUEUES]  # there may be few
    with applied(cloud, *first, Rule("DeleteMessageBatch", action, share=0.5)):
        stack.client().succeeded(submitted(stack, 20))
    invariants.check(stack)
    assert came_again(stack) == before


def test_27_28_heartbeats_are_refused_lost_and_half_done(stack: Stack, cloud: FaultyCloud) -> None:
    """For about a visibility timeout; the image is rendered for two, by the worker that began it."""
    actions = a.refused(), a.answer_lost, a.some_failed(10)
    with applied(cloud, *(Rule("ChangeMessageVisibilityBatch", each, times=3) for each in actions)):
        made = stack.client().submit(model="slow", num_inference_steps=120, seed=27)["id"]
        stack.client().succeeded([made])
    assert len(attempts(stack, [made])) == 1
    invariants.check(stack)


def came_again(stack: Stack) -> float:
    """Messages that came after their image was answered: to the same worker, or to one that core had to tell."""
    names = 'duplicates_total{kind="settled"}', 'dropped_total{state="waiting"}'
    told = [stack.metrics(port) for port in stack.worker_admins]
    return sum(metrics.get(f"darkroom_worker_{name}", 0) for metrics in told for name in names)


def test_30_each_message_comes_up_to_five_times_late_and_out_of_order(stack: Stack, cloud: FaultyCloud) -> None:
    """Jobs and replies: copies on the queue, and deliveries repeated with the same receipt."""
    rules = Rule("SendMessageBatch", a.multiplied(most=5, delay_s=4)), Rule("ReceiveMessage", a.Replayed(), share=0.5)
    with applied(cloud, *rules):
        ids = submitted(stack, 40)
        stack.client().succeeded(ids)
    invariants.check(stack)
    kinds = Counter(line.type for line in log_of(stack, ids))
    assert kinds["image.published"] == kinds["image.rendered"] == 40, kinds


def log_of(stack: Stack, ids: Sequence[str]) -> list[invariants.Line]:
    """What the log tells of these generations."""
    return [line for line in invariants.read_log(stack) if line.stream in ids]


def attempts(stack: Stack, ids: Sequence[str]) -> list[str]:
    """Who started images of these generations."""
    return [line.event.worker_id for line in log_of(stack, ids) if isinstance(line.event, e.ImageStarted)]


@contextmanager
def gone_to_the_other(
    stack: Stack, cloud: FaultyCloud, steps: int, *more: Rule, cut: TcpProxy | None = None
) -> Iterator[str]:
    """An image that one worker renders while the other has received it too, as nothing keeps it hidden.

    `steps`: of this image alone, and many, so that it is still being rendered then. `cut`: the line
    to core, broken for as long.
    """
    with ExitStack() as faults:
        once = OnceEach(steps)
        rules = (Rule("ChangeMessageVisibilityBatch", a.said_done), Rule("ReceiveMessage", once))
        faults.enter_context(applied(cloud, *rules, *more))
        until(lambda: once.polled == WORKERS, 30, what="both poll under these rules")
        made = stack.client().submit(model="slow", num_inference_steps=steps)["id"]
        if cut is not None:
            faults.enter_context(cut.faulty(refuse=True))
            cut.cut()
        until(lambda: once.served == WORKERS, 30, what="both have received it")
        yield made


def test_31_heartbeats_without_effect_and_core_tells_the_second_worker(stack: Stack, cloud: FaultyCloud) -> None:
    """Asked by the second worker, core says that somebody has the image in hand: one attempt."""
    with gone_to_the_other(stack, cloud, 150) as made:
        stack.client().succeeded([made])
    assert len(attempts(stack, [made])) == 1
    invariants.check(stack)


def test_31_heartbeats_without_effect_and_nobody_to_ask(stack: Stack, cloud: FaultyCloud, line: TcpProxy) -> None:
    """While core cannot be asked both workers render: two attempts, of which one is accepted.

    Nothing can be published meanwhile: after the end of its generation a picture would be refused anyway.
    """
    before = rendered(stack)
    with gone_to_the_other(stack, cloud, 149, Rule("CopyObject", a.lost), cut=line) as made:
        until(lambda: sum(rendered(stack).values()) == sum(before.values()) + 2, 30, what="both have rendered")
    stack.client().succeeded([made])
    assert set(attempts(stack, [made])) == WORKERS
    assert rendered(stack) - before == {"recorded": 1, "late": 1}
    invariants.check(stack)


def rendered(stack: Stack) -> Counter[str]:
    """Reports of pictures, by what core has made of them."""
    metrics = stack.metrics(stack.core_admin)
    name = 'darkroom_core_replies_total{{kind="rendered",outcome="{}"}}'
    return Counter({each: int(metrics.get(name.format(each), 0)) for each in ("recorded", "late")})


def test_32_receipts_that_are_invalid_when_they_are_deleted(stack: Stack, cloud: FaultyCloud) -> None:
    """Nothing is deleted for a while, and the log says so: what comes again is known, and changes nothing."""
    with applied(cloud, Rule("DeleteMessageBatch", a.receipts_invalid(), times=10)):
        ids = submitted(stack, 20)
        stack.client().succeeded(ids)
    invariants.check(stack)
    assert len(attempts(stack, ids)) == 20
    assert any("delete.stale_receipts" in process.output() for process in (stack.core, *stack.workers))


def test_33_dead_letters_after_their_generation_has_ended(stack: Stack, cloud: FaultyCloud) -> None:
    """Core takes the jobs off, the operator sends the reply back, what nobody can read stays; nothing changes."""
    sent: list[bytes] = []

    async def overheard(call: Call) -> Reply:
        sent.extend(a.bodies(call))
        return await call.forward()

    with applied(cloud, Rule("SendMessageBatch", overheard)):
        [made] = stack.client().submit_many([{"n": 3, "seed": 33}])
        done = stack.client().ended(made)
    mine = [body for body in sent if name(body)[1] == made]
    jobs = [body for body in mine if name(body)[0] == "ImageJob"]
    assert len(jobs) == 3
    reply = next(body for body in mine if name(body)[0] == "ImageRendered")
    for body in (*jobs, reply, b"rubbish"):
        stack.cloud.put(DEAD, body)
    told = until(lambda: left_to_people(stack, f"ImageRendered {made}/"), 40, what="core takes the jobs off")
    assert CANARY not in told
    seen: set[str] = set()

    def sent_back() -> bool:  # core hides letters for a second now and then, each at its own time
        seen.update(re.findall(r"[1-9]\d* (sent back|unreadable)", dead_letters(stack, "send-back")))
        return seen == {"sent back", "unreadable"}

    until(sent_back, 20, what="the reply is sent back, the rubbish is not")
    until(lambda: "1 letter: 1 discarded, 1 unreadable" in dead_letters(stack, "discard"), 20)
    until(lambda: stack.cloud.waiting(JOBS) + stack.cloud.waiting(REPLIES) == 0, 20, what="all is taken")
    assert story(stack.client().get(made)) == story(done)
    assert len(attempts(stack, [made])) == 3


def dead_letters(stack: Stack, action: str) -> str:
    return stack.command("core", "dead-letters", action)


def left_to_people(stack: Stack, *which: str) -> str:
    """What is told of the dead letters: these, something unreadable, and no job."""
    told = dead_letters(stack, "list")
    assert all(each in told for each in (*which, "unreadable: ")), told
    assert " job " not in told
    return told
