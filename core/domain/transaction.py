"""A transaction before it is written: each order is decided on top of those before it. Pure.

The writer fills and appends it. It adds to `decide` what concerns more than one generation: repeated submissions (by
generation id, then by idempotency key and body) and admission by the caps on unfinished work.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from core.domain import commands as c
from core.domain import events as e
from core.domain.decide import Now, Refused, decide
from core.domain.projection import project
from core.domain.records import Entry, KeyRow, PromptRow, Transaction
from core.domain.shares import NOTHING, Caps, PendingUsage, TooMuch, Usage, UsageByTenant
from core.domain.state import Generation, apply, begin

KEY_KEPT_MS: Final = 24 * 3600 * 1000
"""How long an idempotency key is kept, in running time."""


class KeyConflict(Refused):
    """The idempotency key was already used with a different body."""


class BacklogFull(Refused):
    """The request exceeds a bound on unfinished work: `too_much` says which one."""

    def __init__(self, too_much: TooMuch) -> None:
        super().__init__(too_much.bound.name)
        self.too_much = too_much


class IdTaken(Refused):
    """The generation id belongs to another tenant."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An idempotency key as a client sends it, with the digest of the request's body."""

    key: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """A command for one generation. A Request comes with its prompts, and with a key where the client gave one."""

    generation_id: str
    command: c.Command
    prompt: PromptRow | None = None
    idempotency: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an order. `state`: the state after it, which is the unchanged one after a refusal; for a repeated
    request, that of the generation requested first. `changed`: whether the order has added events.
    """

    state: Generation | None
    changed: bool = False
    refusal: Refused | None = None


DurableListener = Callable[[Sequence[Entry], Callable[[str], Generation | None]], None]
"""Called with the events of each durable transaction, and with a lookup of the generations they belong to."""

Change = tuple[Generation | None, Generation]
"""A generation before (None: new) and after."""


def not_before(state: Generation | None, now: Now) -> Now:
    """`now` for the next event of a stream, lifted to the stream's latest time.

    The wall clock may step back between two events. The times within a stream never do: they stay at the latest one
    until the clock has passed it.
    """
    if state is None or now.at_ms >= state.latest_at_ms:
        return now
    return replace(now, at_ms=state.latest_at_ms)


@dataclass(slots=True)
class PendingTransaction:
    """The transaction so far. `before` and `keys` are what the log already holds; the writer loads them first."""

    now: Now
    usage: UsageByTenant
    caps: Caps
    before: dict[str, Generation | None] = field(default_factory=dict)
    keys: dict[tuple[str, str], KeyRow] = field(default_factory=dict)
    _after: dict[str, Generation] = field(default_factory=dict)
    _entries: list[Entry] = field(default_factory=list)
    _prompts: list[PromptRow] = field(default_factory=list)
    _new_keys: list[KeyRow] = field(default_factory=list)
    _erased: list[str] = field(default_factory=list)
    _admissions: Counter[str] = field(default_factory=Counter)
    _pending_usage: PendingUsage = field(init=False)

    def __post_init__(self) -> None:
        self._pending_usage = PendingUsage(self.usage)

    @property
    def size(self) -> int:
        """The number of events."""
        return len(self._entries)

    def decide(self, order: Order) -> Result:
        """Decide one order on top of those before it. A refusal is part of the result and changes nothing."""
        state = self._state(order.generation_id)
        now = not_before(state, self.now)
        try:
            if isinstance(order.command, c.Request):
                first = self._repeated(order, order.command, state)
                if first is not None:
                    return Result(first)
            events = decide(state, order.command, now)
        except Refused as refusal:
            return Result(state, refusal=refusal)
        if not events:
            return Result(state)
        return Result(self._apply(order, state, events, now), changed=True)

    def changes(self) -> list[Change]:
        """Each changed generation once: its state before the transaction and after it."""
        return [(self.before[each], state) for each, state in self._after.items()]

    def transaction(self) -> Transaction:
        """What the log has to write."""
        return Transaction(
            entries=self._entries,
            rows=[project(state) for state in self._after.values()],
            prompts=self._prompts,
            keys=self._new_keys,
            erased=self._erased,
        )

    def commit(self, listener: DurableListener) -> None:
        """Make the changed usage final and call `listener` with the events. Only after the append has returned."""
        self._pending_usage.commit()
        listener(self._entries, self._after.get)

    def admissions(self) -> Counter[str]:
        """The number of new requests by ground of admission or bound of refusal. Repeated requests are not counted."""
        return self._admissions

    def events_by_class(self) -> Counter[type]:
        """The number of events of each class."""
        return Counter(type(entry.event) for entry in self._entries)

    def _state(self, generation_id: str) -> Generation | None:
        return self._after.get(generation_id) or self.before[generation_id]

    def _repeated(self, order: Order, request: c.Request, state: Generation | None) -> Generation | None:
        """The generation that this request repeats; None for a new one that is admitted. Raises Refused."""
        if state is not None:
            if state.tenant != request.tenant:
                raise IdTaken
            return state
        row = self.keys.get((request.tenant, order.idempotency.key)) if order.idempotency else None
        if order.idempotency is not None and row is not None:
            if row.body_sha256 != order.idempotency.body_sha256:
                raise KeyConflict
            return self._state(row.generation_id)
        self._admit(request)
        return None

    def _admit(self, request: c.Request) -> None:
        """Judge a new request, and count the outcome. Raises BacklogFull. A repeated request is charged already."""
        wanted = Usage(request.charge * request.spec.n, request.spec.n)
        match self._pending_usage.judge(self.caps, request.tenant, wanted):
            case TooMuch() as refused:
                self._admissions[f"{refused.bound.name.lower()}_full"] += 1
                raise BacklogFull(refused)
            case ground:
                self._admissions[ground] += 1

    def _apply(self, order: Order, state: Generation | None, events: Sequence[e.Event], now: Now) -> Generation:
        after = state
        for event in events:
            if after is None:
                assert isinstance(event, e.GenerationRequested)  # noqa: S101  (`decide` ensures it)
                after = begin(order.generation_id, event)
                self._note_request(order, event)
            else:
                after = apply(after, event, now.at_ms)
            if isinstance(event, e.GenerationErased):
                self._erased.append(after.id)
            entry = Entry(
                generation_id=after.id,
                version=after.version,
                at_ms=now.at_ms,
                running_ms=now.running_ms,
                event=event,
            )
            self._entries.append(entry)
        assert after is not None  # noqa: S101
        # Later orders of this transaction are judged by the usage after this one.
        self._pending_usage.change(after.tenant, after.usage - (state.usage if state else NOTHING))
        self._after[after.id] = after
        return after

    def _note_request(self, order: Order, event: e.GenerationRequested) -> None:
        if order.prompt is not None:
            self._prompts.append(order.prompt)
        if order.idempotency is not None:
            row = KeyRow(
                tenant=event.tenant,
                key=order.idempotency.key,
                generation_id=order.generation_id,
                body_sha256=order.idempotency.body_sha256,
                expires_at_running_ms=self.now.running_ms + KEY_KEPT_MS,
            )
            # A later order of this transaction may repeat the key; it must find this generation.
            self.keys[event.tenant, order.idempotency.key] = row
            self._new_keys.append(row)
