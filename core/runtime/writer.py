"""The only writer of events: all commands go through here, in one order, many of them in one commit (group commit).

While one transaction is being made durable, the next commands queue up and form the next one. Each command is
decided on top of the ones before it; callers are answered and listeners called only once it is durable. The states of
open generations are in memory, and only the writer changes them. When the disk is full, the callers of that transaction
get an error and nothing changes; a broken log or a second writer ends the service without answering its callers.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from core.context import Context
from core.domain import commands as c
from core.domain import events as e
from core.domain.shares import Caps, UsageByTenant
from core.domain.state import Generation, fold
from core.domain.transaction import Change, DurableListener, Order, PendingTransaction, Result
from core.errors import LogFull, LogHeld
from core.ports import WriterLog
from core.runtime.stall_detector import StallDetector
from infra.retry import Retryable

_log = structlog.get_logger()

Listener = Callable[[Sequence[Change]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterBounds:
    """`commands`: how many close a transaction (the orders of one call are never split); `waiting`: calls that may
    queue up, beyond which `carry_out` blocks; `ended`: ended generations that are kept in memory.
    """

    commands: int = 256
    waiting: int = 1_000
    ended: int = 2_000


@dataclass(slots=True)
class _Work:
    orders: Sequence[Order]
    done: "asyncio.Future[list[Result]]"


class Writer:
    """Owns the states of open generations. `durable` is called with the events of each durable transaction."""

    def __init__(
        self,
        log: WriterLog,
        context: Context,
        *,
        caps: Caps,
        bounds: WriterBounds | None = None,
        durable: DurableListener = lambda *_: None,
    ) -> None:
        self._log = log
        self._context = context
        self._metrics = context.metrics
        self._caps = caps
        self._bounds = bounds or WriterBounds()
        self._durable = durable
        self._queue: asyncio.Queue[_Work] = asyncio.Queue(self._bounds.waiting)
        self._open: dict[str, Generation] = {}
        self._ended: OrderedDict[str, Generation] = OrderedDict()
        self._listeners: list[Listener] = []
        self._watch = StallDetector()
        self._refused = ""
        self.usage = UsageByTenant()

    @property
    def trouble(self) -> str:
        """Why core is not ready: the log refused the last write, or the present one takes long. Empty otherwise."""
        return self._watch.trouble or self._refused

    @property
    def open(self) -> Mapping[str, Generation]:
        """The open generations, in the order in which they were requested."""
        return self._open

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return not self._watch.busy and self._queue.empty()

    def remembered(self, generation_id: str) -> Generation | None:
        """The state of a generation that is open, or that is still in memory after its end."""
        return self._open.get(generation_id) or self._ended.get(generation_id)

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every durable change, at once and in order; it must not block or raise."""
        self._listeners.append(listener)

    async def load(self) -> int:
        """Read the open generations from the log, and return the latest running time in their events (ms)."""
        latest_ms = 0
        async for history in self._log.open_streams():
            first = history[0]
            state = fold(first.generation_id, [(each.event, each.at_ms) for each in history])
            self._open[state.id] = state
            latest_ms = max(latest_ms, *(each.running_ms for each in history))
        self.usage = UsageByTenant.of((state.tenant, state.usage) for state in self._open.values())
        return latest_ms

    def announce_loaded(self) -> None:
        """Call the listeners with all open generations, as if they had just been requested."""
        self._announce([(None, state) for state in self._open.values()])

    async def carry_out(self, orders: Sequence[Order]) -> list[Result]:
        """The result of each order, in sequence, once the transaction is durable. Raises Retryable when nothing was
        written. Cancelling the caller does not cancel its orders.
        """
        if not orders:
            return []
        work = _Work(orders, asyncio.get_running_loop().create_future())
        await self._queue.put(work)
        return await asyncio.shield(work.done)

    async def carry_out_unannounced(self, orders: Sequence[Order]) -> list[Result]:
        """As `carry_out`, but without calling the listeners. Only before `run` and `announce_loaded`."""
        work = _Work(orders, asyncio.get_running_loop().create_future())
        listeners, self._listeners = self._listeners, []
        try:
            await self._write([work])
        finally:
            self._listeners = listeners
        return await work.done

    def note_save(self, error: Retryable | None) -> None:
        """Note the outcome of a write outside of transactions (the running time): it shows if the log accepts writes.

        A core that is not ready gets no work, so without it no write would show that the log has recovered.
        """
        self._refused = "" if error is None else _trouble(error)

    async def run(self) -> None:
        """Write what is queued. Raises LogBroken or VersionConflict; a cancellation waits for the end of the append."""
        while True:
            works = await self._take()
            with self._watch.running():
                await self._write(works)

    async def _take(self) -> list[_Work]:
        works = [await self._queue.get()]
        count = len(works[0].orders)
        while count < self._bounds.commands and not self._queue.empty():
            works.append(self._queue.get_nowait())
            count += len(works[-1].orders)
        return works

    async def _write(self, works: Sequence[_Work]) -> None:
        pending = PendingTransaction(now=self._context.now(), usage=self.usage, caps=self._caps)
        try:
            await self._load([order for work in works for order in work.orders], pending)
            results = [[pending.decide(order) for order in work.orders] for work in works]
            if pending.size:
                await self._append(pending)
        except Retryable as error:
            self._refuse(works, error)
            return
        changes = pending.changes()
        if changes:
            self._refused = ""
            self._remember(changes)
            pending.commit(self._durable)
        for verdict, times in pending.admissions().items():
            self._metrics.admissions.labels(verdict).inc(times)
        for work, result in zip(works, results, strict=True):
            if not work.done.done():
                work.done.set_result(result)
        if changes:
            self._announce(changes)  # before any caller resumes: `set_result` only schedules the waiters

    async def _append(self, pending: PendingTransaction) -> None:
        transaction = pending.transaction()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ended = asyncio.Event()

        async def whole() -> None:
            try:
                await self._log.append(transaction)
            finally:
                ended.set()

        try:
            await asyncio.shield(whole())
        except asyncio.CancelledError:
            await ended.wait()  # an append is never cancelled (`ports.EventLog`)
            raise
        self._metrics.commit_s.observe(loop.time() - begun)
        self._metrics.commits.observe(pending.size)
        for kind, count in pending.events_by_class().items():
            self._metrics.events.labels(e.TYPES[kind]).inc(count)

    def _refuse(self, works: Sequence[_Work], error: Retryable) -> None:
        """Nothing was written: leave memory as it is, and raise for these callers, who may try again."""
        self._refused = _trouble(error)
        _log.error("log.refused", reason=self._refused)
        self._metrics.log_refusals.inc()
        for work in works:
            if not work.done.done():
                work.done.set_exception(type(error)(*error.args))

    async def _load(self, orders: Sequence[Order], pending: PendingTransaction) -> None:
        """Load into the transaction the states and idempotency keys that its orders are decided against."""
        unknown: dict[str, None] = {}
        wanted: set[tuple[str, str]] = set()
        for order in orders:
            state = pending.before[order.generation_id] = self.remembered(order.generation_id)
            if state is None:
                unknown[order.generation_id] = None
            if order.idempotency is not None and isinstance(order.command, c.Request):
                wanted.add((order.command.tenant, order.idempotency.key))
        if wanted:
            pending.keys.update(await self._log.keys(sorted(wanted), pending.now.running_ms))
            for row in pending.keys.values():
                first = pending.before[row.generation_id] = self.remembered(row.generation_id)
                if first is None:
                    unknown[row.generation_id] = None
        if unknown:
            for known in await self._log.known(list(unknown)):
                pending.before[known] = await self._read(known)

    async def _read(self, generation_id: str) -> Generation | None:
        history = await self._log.stream(generation_id)
        if not history:
            return None
        state = fold(generation_id, [(each.event, each.at_ms) for each in history])
        self._keep_ended(state)
        return state

    def _remember(self, changes: Sequence[Change]) -> None:
        for _, after in changes:
            if after.open:
                self._open[after.id] = after
            else:
                self._open.pop(after.id, None)
                self._keep_ended(after)

    def _keep_ended(self, state: Generation) -> None:
        self._ended[state.id] = state
        self._ended.move_to_end(state.id)
        while len(self._ended) > self._bounds.ended:
            self._ended.popitem(last=False)

    def _announce(self, changes: Sequence[Change]) -> None:
        for listener in self._listeners:
            listener(changes)


def _trouble(error: Retryable) -> str:
    match error:
        case LogFull():
            return "log: disk full"
        case LogHeld():
            return "log: held by a reader"
        case _:
            return "log: busy"
