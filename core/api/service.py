"""The calls that gateways, workers and operators make: submit, get, list, cancel, erase, still wanted, models.

The service speaks the messages of the core API and knows nothing of the transport. The writer makes changes; the reader
answers queries.
"""

from collections.abc import Sequence

from core.api.cursor import BadCursor, cursor_of, position_of
from core.api.errors import BadRequest
from core.api.reader import Reader
from core.api.submitter import Submitter
from core.api.waiters import Waiters
from core.api.worker_calls import WorkerCalls
from core.domain import commands as c
from core.domain.events import Cause
from core.domain.transaction import Change, Order
from core.erasure.eraser import Eraser
from core.runtime.writer import Writer
from infra.retry import Retryable
from schema import fast, limits


class Service:
    """`waiters` bounds the calls that wait; when it is full, those of the tenant with most are answered early."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        submitter: Submitter,
        workers: WorkerCalls,
        eraser: Eraser,
        waiters: Waiters,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._submitter = submitter
        self._workers = workers
        self._eraser = eraser
        self._waiters = waiters
        self._stopping = False

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Wake the calls that wait for these generations to end."""
        for _, after in changes:
            if not after.open:
                self._waiters.ended(after.id)

    def stop(self) -> None:
        """Refuse submissions from now on, and answer the calls that wait."""
        self._stopping = True
        self._waiters.stop()

    async def submit(
        self, items: Sequence[fast.SubmitItem], default: fast.GenerationSpec | None = None
    ) -> list[fast.SubmitResult]:
        """Decide each item on its own; the accepted ones are durable. Work is charged in images of `default`, the
        gateway's default request. Raises BadRequest, Retryable.
        """
        if self._stopping:
            raise Retryable("core is stopping")
        if len(items) > limits.MAX_SUBMIT_ITEMS:
            raise BadRequest("items", f"may be at most {limits.MAX_SUBMIT_ITEMS}")
        return await self._submitter.submit(items, default)

    async def get(self, tenant: str, generation_id: str, wait_ms: int = 0) -> fast.GenerationView:
        """The tenant's view of a generation, after waiting up to `wait_ms` for its end. Raises NotFound, BadRequest,
        Retryable.
        """
        if wait_ms > limits.MAX_WAIT_MS:
            raise BadRequest("wait_ms", f"may be at most {limits.MAX_WAIT_MS}")
        state = self._writer.open.get(generation_id)
        # `wait` registers before its first await, so an end after this check is not missed.
        if state is not None and state.tenant == tenant and wait_ms:
            await self._waiters.wait(tenant, generation_id, wait_ms / 1000)
        return await self._reader.view(await self._reader.find(tenant, generation_id))

    async def list(
        self, tenant: str, *, page_size: int, cursor: str, status: int
    ) -> tuple[Sequence[fast.GenerationView], str]:
        """A page of the tenant's generations, newest first, and the cursor of the next page; the cursor is empty for
        the last page. Any page may hold fewer than `page_size`, or none. Raises BadRequest, Retryable.
        """
        if not 0 <= page_size <= limits.MAX_LIST_PAGE:
            raise BadRequest("page_size", f"may be at most {limits.MAX_LIST_PAGE}")
        try:
            before = position_of(cursor)
        except BadCursor as error:
            raise BadRequest("cursor", str(error)) from None
        shown, more = await self._reader.page(
            tenant, before=before, limit=page_size or limits.MAX_LIST_PAGE, status=status
        )
        return shown, cursor_of(more)

    async def erase(self, tenant: str, generation_id: str, *, operator: bool) -> tuple[bool, fast.GenerationView]:
        """Erase an ended generation; returns whether it is erased now (False while it is open), and its view.

        An operator may leave the tenant out. Raises NotFound, Retryable.
        """
        found = await self._reader.find(tenant, generation_id, any_tenant=operator and not tenant)
        if found.state is not None:
            return False, await self._reader.view(found)
        if not found.rows.generation.erased:
            await self._eraser.erase([generation_id], Cause.OPERATOR if operator else Cause.TENANT)
        owner = found.rows.generation.tenant
        return True, await self._reader.view(await self._reader.find(owner, generation_id))

    async def cancel(self, tenant: str, generation_id: str) -> tuple[bool, fast.GenerationView]:
        """Cancel a generation; returns whether it is cancelled now, and its view. Raises NotFound, Retryable."""
        await self._reader.find(tenant, generation_id)
        [result] = await self._writer.carry_out([Order(generation_id, c.Cancel())])
        return result.refusal is None, await self._reader.view(await self._reader.find(tenant, generation_id))

    def still_wanted(
        self, worker_id: str, held: Sequence[fast.HeldImage], models: Sequence[fast.ModelReport] = ()
    ) -> Sequence[bool]:
        """As `WorkerCalls.still_wanted`."""
        return self._workers.still_wanted(worker_id, held, models)

    def models(self) -> fast.ModelsReply:
        """As `WorkerCalls.models`."""
        return self._workers.models()
