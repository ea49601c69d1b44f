"""A simulated queue: at least once, in no promised order, with every fault a queue service may show."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.retry import Missing
from infra.sqs import Received
from tests.simulation import poison
from tests.simulation.net import Net
from tests.simulation.protocol import Rules
from tests.simulation.world import World

MAX_RECEIVES = 30


class Sent(Protocol):
    """A message as core and workers hand it over."""

    @property
    def body(self) -> bytes: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Message:
    number: int
    body: bytes
    attributes: dict[str, str]
    sent_at_ms: int
    visible_s: float
    receipt: str = ""
    receives: int = 0


@dataclass(slots=True, eq=False)
class _Poll:
    answer: "asyncio.Future[list[Received]]"
    limit: int
    visibility_s: int
    until_s: float


class SimQueue:
    """`dead` takes what was received too often. `told_lost` hears of every body that no reader will see."""

    def __init__(
        self,
        name: str,
        world: World,
        net: Net,
        *,
        dead: "SimQueue | None" = None,
        protocol: Rules | None = None,
        told_lost: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.exists = True
        self._world = world
        self._net = net
        self._dice = world.dice(f"queue.{name}")
        self._dead = dead
        self._protocol = protocol
        self._told_lost = told_lost
        self._messages: dict[int, _Message] = {}
        self._polls: list[_Poll] = []
        self._made = 0

    def __len__(self) -> int:
        return len(self._messages)

    async def send(self, messages: Sequence[Sent]) -> list[bool]:
        """True where accepted."""
        parts = [(each.body, dict(each.attributes)) for each in messages]
        sender = self._world.loop.acting()
        return await self._net.call(self.name, "send", lambda: self._accept(parts, sender))

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> list[Received]:
        """A long poll."""
        answer: asyncio.Future[list[Received]] = self._world.loop.create_future()
        self._world.reach(f"{self.name}.receive")
        poll = _Poll(answer, min(limit, 10), visibility_s, self._world.loop.time() + wait_s)
        self._net.later(self._net.delay_s(self.name), lambda: self._begin(poll))
        return await answer

    async def delete(self, receipts: Sequence[str]) -> list[bool]:
        """True: gone."""
        wanted = list(receipts)
        reader = self._world.loop.acting()
        return await self._net.call(self.name, "delete", lambda: self._delete(wanted, reader))

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> list[bool]:
        """False: the receipt is stale."""
        wanted = list(receipts)
        return await self._net.call(self.name, "extend", lambda: self._extend(wanted, visibility_s))

    def purge(self) -> int:
        """Lose everything; how much that was."""
        gone = list(self._messages.values())
        self._messages.clear()
        for message in gone:
            self._told_lost(message.body)
        return len(gone)

    def expose(self) -> int:
        """Show what is being worked on to others; how much that was."""
        hidden = [each for each in self._messages.values() if each.visible_s > self._world.loop.time()]
        for message in hidden:
            message.visible_s = self._world.loop.time()
        self._serve()
        return len(hidden)

    def give_up(self, wanted: Callable[[bytes], bool]) -> int:
        """Move what is `wanted` to the dead-letter queue, as if it had shown itself too often; how much that was."""
        gone = [each for each in self._messages.values() if wanted(each.body)]
        for message in gone:
            del self._messages[message.number]
            if self._dead is not None:
                self._dead._store(message.body, message.attributes, 0.0)
                self._dead._serve()
        return len(gone)

    def _require(self) -> None:
        if not self.exists:
            raise Missing(f"{self.name}: no such queue")

    def _accept(self, parts: Sequence[tuple[bytes, dict[str, str]]], sender: str) -> list[bool]:
        self._require()
        accepted = [self._accept_one(body, attributes) for body, attributes in parts]
        for (body, _), taken in zip(parts, accepted, strict=True):
            if taken and self._protocol is not None:
                self._protocol.accepted(body, sender)
        self._serve()
        return accepted

    def _chance(self, fault: str, probability: float) -> bool:
        if not probability or self._dice.random() >= probability:
            return False
        self._world.faults[fault] += 1
        self._world.note(f"{self.name} {fault}")
        return True

    def _accept_one(self, body: bytes, attributes: dict[str, str]) -> bool:
        weather = self._world.weather[self.name]
        if self._chance("partial", weather.refuse):
            return False
        if self._chance("loss", weather.lose):
            self._told_lost(body)
            return True
        if self._chance("corrupt", weather.corrupt):
            self._told_lost(body)
            place = self._dice.randrange(len(body))
            body = body[:place] + bytes((body[place] ^ 1 << self._dice.randrange(8),)) + body[place + 1 :]
        copies = self._dice.randint(2, 5) if self._chance("duplicate", weather.duplicate) else 1
        for _ in range(copies):
            delay_s = 0.0
            if weather.delay_s and self._chance("delay", 0.5):
                delay_s = self._dice.random() * weather.delay_s
            self._store(body, attributes, delay_s)
        return True

    def _store(self, body: bytes, attributes: dict[str, str], delay_s: float) -> None:
        self._made += 1
        now_s = self._world.loop.time()
        self._messages[self._made] = _Message(
            number=self._made,
            body=body,
            attributes=attributes,
            sent_at_ms=self._world.wall_ms(),
            visible_s=now_s + delay_s,
        )
        if delay_s:
            self._net.later(delay_s, self._serve)

    def _begin(self, poll: _Poll) -> None:
        refused = self._net.refused(self.name, "receive")
        if refused is None and not self.exists:
            refused = Missing(f"{self.name}: no such queue")
        if refused is not None:
            self._net.reply(self.name, "receive", poll.answer, refused)
            return
        self._polls.append(poll)
        self._serve()
        if poll in self._polls:
            self._net.later(max(0.0, poll.until_s - self._world.loop.time()), lambda: self._end(poll))

    def _end(self, poll: _Poll) -> None:
        if poll in self._polls:
            self._polls.remove(poll)
            self._net.reply(self.name, "receive", poll.answer, [])

    def _serve(self) -> None:
        """Hand what is visible to those who wait."""
        for poll in list(self._polls):
            refused = self._net.refused(self.name, "receive")
            taken: list[Received] = [] if refused else self._deliver(poll)
            if refused is not None or taken:
                self._polls.remove(poll)
                self._net.reply(self.name, "receive", poll.answer, refused or taken)

    def _deliver(self, poll: _Poll) -> list[Received]:
        now_s = self._world.loop.time()
        visible = [each for each in self._messages.values() if each.visible_s <= now_s]
        if self._world.weather[self.name].shuffled and len(visible) > 1:
            self._dice.shuffle(visible)
            self._world.faults["reorder"] += 1
        taken: list[Received] = []
        for message in visible:
            if message.receives >= MAX_RECEIVES and self._dead is not None:
                del self._messages[message.number]
                if not poison.reigns(self._world.faults):
                    self._world.violate(f"{self.name} has handed out a message {MAX_RECEIVES} times")
                self._dead._store(message.body, message.attributes, 0.0)
            elif len(taken) < poll.limit:
                taken.append(self._hand_out(message, poll.visibility_s))
        return taken

    def _hand_out(self, message: _Message, visibility_s: int) -> Received:
        message.receives += 1
        message.receipt = f"{self.name}:{message.number}:{message.receives}"
        message.visible_s = self._world.loop.time() + visibility_s
        self._net.later(visibility_s, self._serve)
        return Received(
            message_id=f"{self.name}:{message.number}",
            receipt=message.receipt,
            body=message.body,
            attributes=dict(message.attributes),
            receive_count=message.receives,
            sent_at_ms=message.sent_at_ms,
        )

    def _find(self, receipt: str) -> _Message | None:
        message = self._messages.get(int(receipt.split(":")[1]))
        return message if message is not None and message.receipt == receipt else None

    def _delete(self, receipts: Sequence[str], reader: str) -> list[bool]:
        self._require()
        weather = self._world.weather[self.name]
        answers = []
        for receipt in receipts:
            refused = self._chance("partial", weather.refuse)
            message = self._find(receipt)
            if message is not None and not refused:
                del self._messages[message.number]
                if self._protocol is not None:
                    self._protocol.deleted(message.body, reader)
            answers.append(not refused)
        return answers

    def _extend(self, receipts: Sequence[str], visibility_s: int) -> list[bool]:
        self._require()
        found = [self._find(receipt) for receipt in receipts]
        for message in found:
            if message is not None:
                message.visible_s = self._world.loop.time() + visibility_s
                self._net.later(visibility_s, self._serve)
        return [message is not None for message in found]

    async def ensure(self) -> None:
        """Make it, if it is missing."""
        await self._net.call(self.name, "ensure", self._ensure)

    def _ensure(self) -> None:
        self.exists = True
