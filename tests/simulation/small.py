"""One generation in the small: its images, core, workers and queues as a value, and every step that may come next.

The rules are production's: `core.domain.transaction` decides each command, `core.log.codec` keeps each event,
`core.domain.decide` says what may be sent. Around them is the least that can go wrong: messages that come late, in any
order and again, attempts that fail, a publisher in two steps, a core that dies between any two of its own. What a
worker does core sees by its replies alone, which may be as late as they like: so a job is answered when it is sent, and
heard of when it is heard of. Images are interchangeable: states that differ only in which image is which are one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from core.domain.decide import may_dispatch
from core.domain.state import Ending, Phase
from tests.simulation.small_core import RUNNING_MS, Answer, SmallCore

Reply = tuple[str, int, int]  # what, attempt, dispatch


class Slot(NamedTuple):
    """One image: `image` is its number with the core, the rest is in the world around.

    `sent`: the dispatch that core has sent and not yet recorded. `replies`: what is still to be heard. `copied`: the
    picture lies in the public bucket, which only this life of core knows.
    """

    image: int
    sent: int = 0
    replies: tuple[Reply, ...] = ()
    copied: bool = False
    attempts: int = 0


class State(NamedTuple):
    """`shell`: the generation without its images. `told`: what the client heard of its cancel: 1 yes, 2 too late.

    `late`: how often all rechecks have passed. `crashes`, `repeats`, `failures`: how many more there may be.
    """

    shell: int
    slots: tuple[Slot, ...]
    told: int = 0
    late: int = 0
    crashes: int = 0
    repeats: int = 0
    failures: int = 0


Step = tuple[str, State]
Local = tuple[str, Slot, "Reply | None", int, int]
"""A step of one image: its name, what is around it afterwards, what core hears, repeats and failures it uses up."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Small:
    """`steps` of a state; `core` keeps the rules, and checks each event as it happens."""

    def __init__(self, core: SmallCore) -> None:
        self.core = core
        self._local: dict[tuple[Slot, bool, bool, int], list[Local]] = {}

    def begin(self, images: int, crashes: int, repeats: int, failures: int) -> State:
        """A generation that has just been requested, and how much may go wrong with it."""
        shell, each = self.core.begin(images)
        slots = tuple(Slot(image=image) for image in each)
        return State(shell, slots, crashes=crashes, repeats=repeats, failures=failures)

    def over(self, state: State) -> bool:
        """Whether the generation has ended."""
        return self.core.ending(state.shell) is not Ending.OPEN

    def steps(self, state: State) -> list[Step]:
        """Everything that may come next for an open generation. Raises Broken when nothing can."""
        found = [
            self._step(state, place, each) for place in range(len(state.slots)) for each in self._own(state, place)
        ]
        if not found:
            if state.late == len(RUNNING_MS) - 1:
                raise Broken("nothing more can happen, and it has not ended")
            found = [("recheck", state._replace(late=state.late + 1))]
        return [*found, *self._whole_steps(state)]

    def settle(self, state: State) -> None:
        """What is still under way when a generation has ended must change nothing. Raises Broken."""
        for place, slot in enumerate(state.slots):
            late = [*slot.replies, ("published", 0, 0)]
            late += [("dispatch", 0, slot.sent)] if slot.sent else []
            for reply in late:
                self._expect_nothing(state, place, reply)
        self._expect_nothing(state, 0, ("expire", 0, 0))
        answer = self._ask(state, 0, ("cancel", 0, 0))
        if answer.changed or answer.refused is (self.core.ending(state.shell) is Ending.CANCELLED):
            raise Broken("a cancel after the end is not told how it ended")
        self._truth(state)

    def _expect_nothing(self, state: State, place: int, reply: Reply) -> None:
        if self._ask(state, place, reply).changed:
            raise Broken(f"{reply} changes a generation that has ended")

    def _ask(self, state: State, place: int, reply: Reply) -> Answer:
        images = tuple(slot.image for slot in state.slots)
        return self.core.carry_out(state.shell, images, place, reply, state.late)

    def _truth(self, state: State) -> None:
        """Who was told that a cancel holds has a cancelled generation; who was told otherwise has not."""
        cancelled = self.core.ending(state.shell) is Ending.CANCELLED
        if (state.told == 1) != cancelled and (state.told or cancelled):
            raise Broken(f"the client was told {state.told} of its cancel, and it is {self.core.ending(state.shell)}")

    def _step(self, state: State, place: int, local: Local) -> Step:
        name, slot, heard, repeats, failures = local
        slots, shell = list(state.slots), state.shell
        slots[place] = slot
        if heard is not None:
            answer = self._ask(state, place, heard)
            shell = answer.shell
            slots[place] = self._decided(Slot(answer.image, *slot[1:]))
        slots.sort()
        after = State(
            shell,
            tuple(slots),
            state.told,
            state.late,
            state.crashes,
            state.repeats - repeats,
            state.failures - failures,
        )
        self._truth(after)
        return name, after

    def _own(self, state: State, place: int) -> list[Local]:
        slot = state.slots[place]
        key = (slot, bool(state.repeats), bool(state.failures), state.late)
        if key not in self._local:
            self._local[key] = [
                each
                for each in self._image_steps(slot, RUNNING_MS[state.late])
                if each[3] <= state.repeats and each[4] <= state.failures
            ]
        return self._local[key]

    def _decided(self, slot: Slot) -> Slot:
        """Once an image is decided nothing that workers say of it counts any more: asked once, and left out."""
        image = self.core.image(slot.image)
        if not image.decided or not slot.replies:
            return slot
        for reply in slot.replies:
            if self.core.heeded(slot.image, reply):
                raise Broken(f"{reply} counts although the image is decided")
        return Slot(slot.image, slot.sent, (), slot.copied, slot.attempts)

    def _image_steps(self, slot: Slot, running_ms: int) -> Iterator[Local]:
        image = self.core.image(slot.image)
        if not slot.sent and may_dispatch(image, running_ms):
            sent = slot._replace(sent=image.dispatches + 1)
            yield "send", _attempted(sent, "rendered"), None, 0, 0
            yield "send what fails", _attempted(sent, "failed"), None, 0, 1
            yield "send, and two workers get it", _attempted(_attempted(sent, "rendered"), "rendered"), None, 1, 0
        if slot.sent:
            yield "record", slot._replace(sent=0), ("dispatch", 0, slot.sent), 0, 0
        if image.phase is Phase.RENDERED and not slot.copied:
            yield "copy", slot._replace(copied=True), None, 0, 0
        if image.phase is Phase.RENDERED and slot.copied:
            yield "publish", slot, ("published", 0, 0), 0, 0
        for reply in dict.fromkeys(slot.replies):
            yield f"hear {reply[0]}", slot._replace(replies=_without(slot.replies, reply)), reply, 0, 0
            yield f"hear {reply[0]}, and it comes again", slot, reply, 1, 0

    def _whole_steps(self, state: State) -> Iterator[Step]:
        if not state.told:
            answer = self._ask(state, 0, ("cancel", 0, 0))
            if answer.refused:
                self._only_when_decided(state)
            asked = state._replace(shell=answer.shell, told=2 if answer.refused else 1)
            self._truth(asked)
            yield "cancel", asked
        answer = self._ask(state, 0, ("expire", 0, 0))
        if answer.changed:
            yield "expire", state._replace(shell=answer.shell)
        else:
            self._only_when_decided(state)
        if state.crashes:
            slots = tuple(sorted(each._replace(sent=0, copied=False) for each in state.slots))
            yield "crash", state._replace(slots=slots, crashes=state.crashes - 1)

    def _only_when_decided(self, state: State) -> None:
        if not all(self.core.image(slot.image).decided for slot in state.slots):
            raise Broken("cancel or expiry is refused while an image is undecided")


def _attempted(slot: Slot, outcome: str) -> Slot:
    """A worker has taken the job that was sent: what it will be heard to say, some time."""
    number = slot.attempts + 1
    said = (("started", number, slot.sent), (outcome, number, slot.sent))
    return slot._replace(attempts=number, replies=tuple(sorted((*slot.replies, *said))))


def _without(some: tuple[Reply, ...], one: Reply) -> tuple[Reply, ...]:
    left = list(some)
    left.remove(one)
    return tuple(left)
