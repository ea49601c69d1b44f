"""One transaction being decided: orders on top of each other, nothing written yet. Pure; the writer uses it.

Adds to `decide` what concerns more than one generation: repeated submissions (by generation id, then by
idempotency key and body) and admission by the caps on unfinished work.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from core.domain import commands as c
from core.domain import events as e
from core.domain.decide import Now, Refused, decide
from core.domain.projection import project
from core.domain.records import Entry, KeyRow, PromptRow, Transaction
from core.domain.shares import NOTHING, Books, Caps, Sheet, TooMuch, Usage
from core.domain.state import Generation, apply, begin

KEY_KEPT_MS = 24 * 3600 * 1000


class KeyConflict(Refused):
    """The idempotency key was used with another body."""


class BacklogFull(Refused):
    """There is no room for so much more work of this tenant: `too_much` says which bound it has met."""

    def __init__(self, too_much: TooMuch) -> None:
        super().__init__(too_much.bound.name)
        self.too_much = too_much


class IdTaken(Refused):
    """The generation id belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """An idempotency key and the digest of the body it came with."""

    key: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """A command for one generation. A Request comes with its prompts, and with a key where the client gave one."""

    generation_id: str
    command: c.Command
    prompt: PromptRow | None = None
    claim: KeyClaim | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an order: the state after it (of the first generation, for a repeated request), or why not."""

    state: Generation | None
    changed: bool = False
    refusal: Refused | None = None


Durable = Callable[[Sequence[Entry], Callable[[str], Generation | None]], None]
"""Hears of events that have become durable, and can look up the generations they belong to."""

Change = tuple[Generation | None, Generation]
"""A generation before (None: new) and after."""


def not_before(state: Generation | None, now: Now) -> Now:
    """`now` for the next event of a stream: the wall clock may have stepped back since the last one, the stream's
    times never do. The generation waits at its latest time until the clock has passed it.
    """
    if state is None or now.at_ms >= state.latest_at_ms:
        return now
    return replace(now, at_ms=state.latest_at_ms)


@dataclass(slots=True)
class Draft:
    """The transaction so far. The writer puts in `before` and `keys` what the log already holds."""

    now: Now
    books: Books
    caps: Caps
    before: dict[str, Generation | None] = field(default_factory=dict)
    keys: dict[tuple[str, str], KeyRow] = field(default_factory=dict)
    _after: dict[str, Generation] = field(default_factory=dict)
    _entries: list[Entry] = field(default_factory=list)
    _prompts: list[PromptRow] = field(default_factory=list)
    _new_keys: list[KeyRow] = field(default_factory=list)
    _erased: list[str] = field(default_factory=list)
    _verdicts: Counter[str] = field(default_factory=Counter)
    _sheet: Sheet = field(init=False)

    def __post_init__(self) -> None:
        self._sheet = Sheet(self.books)

    @property
    def size(self) -> int:
        """How many events it holds."""
        return len(self._entries)

    def decide(self, order: Order) -> Result:
        """Decide one order on top of those before it."""
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
        """Each generation that changed, once."""
        return [(self.before[each], state) for each, state in self._after.items()]

    def transaction(self) -> Transaction:
        """What to write."""
        return Transaction(
            entries=self._entries,
            rows=[project(state) for state in self._after.values()],
            prompts=self._prompts,
            keys=self._new_keys,
            erased=self._erased,
        )

    def tell(self, durable: Durable) -> None:
        """Tell `durable` of the events, and of the generations as they are after them."""
        durable(self._entries, self._after.get)

    def post(self) -> None:
        """The transaction is durable: enter what it has charged and given back."""
        self._sheet.post()

    def verdicts(self) -> Counter[str]:
        """How many requests were admitted on which ground, or met which bound; repeats are not judged."""
        return self._verdicts

    def tally(self) -> Counter[type]:
        """How many events of each class."""
        return Counter(type(entry.event) for entry in self._entries)

    def _state(self, generation_id: str) -> Generation | None:
        return self._after.get(generation_id) or self.before[generation_id]

    def _repeated(self, order: Order, request: c.Request, state: Generation | None) -> Generation | None:
        """The generation that this request repeats, if any. Raises Refused when it cannot be accepted."""
        if state is not None:
            if state.tenant != request.tenant:
                raise IdTaken
            return state
        row = self.keys.get((request.tenant, order.claim.key)) if order.claim else None
        if order.claim is not None and row is not None:
            if row.body_sha256 != order.claim.body_sha256:
                raise KeyConflict
            return self._state(row.generation_id)
        self._admit(request)
        return None

    def _admit(self, request: c.Request) -> None:
        """Repeats never come here: what was accepted once is charged once."""
        wanted = Usage(request.charge * request.spec.n, request.spec.n)
        match self._sheet.judge(self.caps, request.tenant, wanted):
            case TooMuch() as refused:
                self._verdicts[f"{refused.bound.name.lower()}_full"] += 1
                raise BacklogFull(refused)
            case ground:
                self._verdicts[ground] += 1

    def _apply(self, order: Order, state: Generation | None, events: Sequence[e.Event], now: Now) -> Generation:
        after = state
        for event in events:
            if after is None:
                assert isinstance(event, e.GenerationRequested)  # noqa: S101  (decide begins a stream so)
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
        self._sheet.change(after.tenant, after.usage - (state.usage if state else NOTHING))
        self._after[after.id] = after
        return after

    def _note_request(self, order: Order, event: e.GenerationRequested) -> None:
        if order.prompt is not None:
            self._prompts.append(order.prompt)
        if order.claim is not None:
            row = KeyRow(
                tenant=event.tenant,
                key=order.claim.key,
                generation_id=order.generation_id,
                body_sha256=order.claim.body_sha256,
                expires_at_running_ms=self.now.running_ms + KEY_KEPT_MS,
            )
            self.keys[event.tenant, order.claim.key] = row
            self._new_keys.append(row)
