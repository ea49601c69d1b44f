"""The window over random histories: nothing is held twice, nothing is forgotten, no receipt goes astray."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from worker.engines.contract import RenderJob
from worker.holding.types import MAX_RECEIPTS, Held, ImageId, Job, State
from worker.holding.window import Offer, Window

images = st.integers(0, 4)


def job(number: int, dispatch: int, *, solo: bool = False) -> Job:
    image = ImageId(generation_id=f"g{number}", index=0)
    render = RenderJob(
        id=str(image), model="m", width=64, height=64, num_inference_steps=1, guidance_scale=1.0, seed=1, prompt="p"
    )
    return Job(image=image, dispatch=dispatch, render=render, output_format=1, solo=solo)


class Histories(RuleBasedStateMachine):
    """A model beside it: for each image, the receipts that are out and the dispatches settled."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window()
        self.out: dict[str, set[str]] = {}
        self.undeleted: list[tuple[Held, set[str]]] = []
        self.settled: set[tuple[str, int]] = set()
        self.messages = 0

    @rule(number=images, dispatch=st.integers(1, 3), solo=st.booleans())
    def arrive(self, number: int, dispatch: int, solo: bool) -> None:
        self.messages += 1
        receipt = f"r{self.messages}"
        offered = job(number, dispatch, solo=solo)
        before = self.window.get(offered.render.id)
        running = before is not None and before.state is not State.WAITING
        was = before.job if before else None
        offer = self.window.offer(offered, ("k",), message_id=f"m{self.messages}", receipt=receipt, now_s=1.0)
        key = offered.render.id
        if (key, dispatch) in self.settled:
            assert offer is Offer.SETTLED
            return
        receipts = self.out.setdefault(key, set())
        if before is None:
            assert offer is Offer.HELD
        elif len(receipts) >= MAX_RECEIPTS:
            assert offer is Offer.SURPLUS
            return
        else:
            assert offer is Offer.ATTACHED
            assert was is not None
            newest = offered if dispatch > was.dispatch else was
            assert before.job == (was if running else replace(newest, solo=solo or was.solo))
        receipts.add(receipt)

    @rule(number=images, state=st.sampled_from([State.STARTED, State.RUNNING, State.FINISHING]))
    def go_on(self, number: int, state: State) -> None:
        held = self.window.get(f"g{number}/0")
        if held is not None:
            self.window.move(held, state)

    @rule(number=images)
    def settle(self, number: int) -> None:
        held = self.window.get(f"g{number}/0")
        if held is not None:
            self.settled.add((held.id, held.job.dispatch))
            self.window.settle(held, picture=True)
            assert held.state is State.SETTLED
            self.undeleted.append((held, self.out.pop(held.id)))

    @rule(place=st.integers(0, 5))
    def delete(self, place: int) -> None:
        if place < len(self.undeleted):
            held, _ = self.undeleted.pop(place)
            self.window.settle(held, picture=True)  # once more: changes nothing
            self.window.release(held)
            assert held.state is State.GONE

    @rule(number=images)
    def lose_a_receipt(self, number: int) -> None:
        held = self.window.get(f"g{number}/0")
        if held is None or not held.receipts:
            return
        message_id, receipt = next(iter(held.receipts.items()))
        self.window.lost(held, message_id, "an older receipt")
        assert held.receipts[message_id] == receipt  # the message has come again since: that one counts
        waiting = held.state is State.WAITING
        self.window.lost(held, message_id, receipt)
        self.out[held.id].discard(receipt)
        if waiting and not self.out[held.id]:
            del self.out[held.id]

    @invariant()
    def every_receipt_that_is_out_is_kept_alive(self) -> None:
        kept: dict[int, set[str]] = {held.order: set() for held in self.window.held()}
        for held, _, receipt in self.window.receipts():
            kept[held.order].add(receipt)
        out = [(self.window.get(key), receipts) for key, receipts in self.out.items()]
        assert kept == {held.order: receipts for held, receipts in [*out, *self.undeleted] if held is not None}

    @invariant()
    def waiting_busy_and_undeleted_are_all(self) -> None:
        everything: list[Any] = self.window.held()
        assert len(self.window.waiting()) + len(self.window.busy()) + len(self.undeleted) == len(everything)
        assert self.window.behind_count() + len(self.window.upcoming()) <= len(everything)
        assert self.window.waiting_count() == len(self.window.waiting())


TestHistories = Histories.TestCase
