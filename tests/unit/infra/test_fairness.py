"""Whoever holds less than its share is neither refused nor displaced, and is served in turn."""

import asyncio
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.fairness import FairSemaphore, Full, OwnerCounts, Permit, Permits, RoundRobinQueue
from tests.eventually import eventually

owners = st.sampled_from("abcdefg")


@given(
    limit=st.integers(1, 12),
    steps=st.lists(st.tuples(st.sampled_from(["take", "take", "take", "leave"]), owners), max_size=120),
)
@settings(max_examples=400)
def test_permits_keep_their_bound_and_each_owners_share(limit: int, steps: list[tuple[str, str]]) -> None:
    permits = Permits(limit)
    held: dict[str, list[Permit]] = {}

    def take(owner: str) -> bool:
        mine: list[Permit] = []

        def displaced() -> None:
            after = Counter({each: len(theirs) for each, theirs in held.items()})
            assert after[owner] * len(after | Counter({newcomer: 1})) > limit, "it had more than its share"
            held[owner].remove(mine[0])

        permit = permits.acquire(owner, displaced)
        if permit is not None:
            mine.append(permit)
            held.setdefault(owner, []).append(permit)
        return permit is not None

    for what, newcomer in steps:
        if what == "take":
            n = sum(bool(each) for each in held.values()) + (not held.get(newcomer))
            below = (len(held.get(newcomer, ())) + 1) * n <= limit
            let_in = take(newcomer)
            assert let_in or not below, "below its share nobody is refused"
            assert let_in or sum(map(len, held.values())) == limit, "and nobody while there is room"
        elif held.get(newcomer):
            held[newcomer].pop().release()
        held = {each: theirs for each, theirs in held.items() if theirs}
        assert len(permits) == sum(map(len, held.values())) <= limit


@given(changes=st.lists(st.tuples(owners, st.booleans()), max_size=100))
def test_the_heaviest_is_known_whatever_has_happened(changes: list[tuple[str, bool]]) -> None:
    tally, truth = OwnerCounts(), Counter[str]()
    for owner, more in changes:
        if more or truth[owner]:
            tally.change(owner, +1 if more else -1)
            truth[owner] += 1 if more else -1
        truth += Counter()
        assert (tally.total, tally.owners) == (truth.total(), len(truth))
        if truth:
            assert truth[tally.largest()] == max(truth.values())


@given(
    limit=st.integers(1, 10),
    steps=st.lists(st.one_of(owners, st.none()), max_size=120),
)
@settings(max_examples=400)
def test_a_queue_serves_each_owner_in_order_and_the_owners_in_turn(limit: int, steps: list[str | None]) -> None:
    queue: RoundRobinQueue[tuple[str, int]] = RoundRobinQueue(limit)
    lines: dict[str, deque[tuple[str, int]]] = {}
    since: Counter[str] = Counter()
    for number, owner in enumerate(steps):
        waiting = {each: line for each, line in lines.items() if line}
        if owner is None:
            if not waiting:
                with pytest.raises(IndexError):
                    queue.pop()
                continue
            served = queue.pop()
            assert served == lines[served[0]].popleft()
            since[served[0]] = 0
            since.update({each: 1 for each in waiting if each != served[0]})
            assert all(since[each] < len("abcdefg") for each in waiting), "nobody is passed over twice"
            continue
        n = len(waiting) + (owner not in waiting)
        try:
            displaced = queue.push(owner, (owner, number))
        except Full:
            assert len(queue) == limit
            assert (len(lines.get(owner, ())) + 1) * n > limit
            continue
        if displaced is not None:
            assert lines[displaced[0]].pop() == displaced
            assert (len(lines[displaced[0]]) + 1) * n > limit
        lines.setdefault(owner, deque()).append((owner, number))
        if not waiting.get(owner):
            since[owner] = 0
        assert len(queue) == sum(map(len, lines.values())) <= limit


@pytest.mark.asyncio
async def test_owners_are_served_in_turn_however_many_items_one_has() -> None:
    semaphore, served, go = FairSemaphore(1, waiting=100), list[str](), asyncio.Event()

    async def work(owner: str) -> None:
        async with semaphore.holding(owner):
            served.append(owner)
            await go.wait()

    async with asyncio.TaskGroup() as group:
        for owner in "aaaaaaaabbc":
            group.create_task(work(owner), name=owner)
        await eventually(lambda: semaphore.waiting == 10)
        go.set()
    assert served[:6] == ["a", "a", "b", "c", "a", "b"]
    assert len(served) == 11


@pytest.mark.asyncio
async def test_a_turn_that_is_given_up_goes_to_the_next_and_a_full_line_displaces_the_heaviest() -> None:
    semaphore, go = FairSemaphore(1, waiting=2), asyncio.Event()
    done: list[str] = []

    async def work(owner: str) -> None:
        try:
            async with semaphore.holding(owner):
                await go.wait()
                done.append(owner)
        except Full:
            done.append(f"{owner} is displaced")

    async with asyncio.TaskGroup() as group:
        first = group.create_task(work("first"), name="first")
        await eventually(lambda: not first.done() and semaphore._free == 0)
        ann = [group.create_task(work("ann"), name=f"{number}") for number in range(2)]
        await eventually(lambda: semaphore.waiting == 2)
        with pytest.raises(Full):
            await semaphore.acquire("ann")
        bob = group.create_task(work("bob"), name="bob")
        await eventually(lambda: done == ["ann is displaced"])
        ann[0].cancel()
        go.set()
        await bob
    assert sorted(done) == ["ann is displaced", "bob", "first"]
    async with asyncio.timeout(5), semaphore.holding("later"):
        pass
    assert semaphore._free == 1


@pytest.mark.asyncio
async def test_a_caller_cancelled_just_when_its_turn_has_come_loses_no_place() -> None:
    semaphore = FairSemaphore(1, waiting=2)
    await semaphore.acquire("a")
    waiting = asyncio.create_task(semaphore.acquire("b"), name="b")
    await eventually(lambda: semaphore.waiting == 1)
    semaphore.release()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert semaphore._free == 1
