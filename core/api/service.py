"""What gateways and workers may ask of core: submit, get, list, cancel, erase, still wanted, models.

Speaks the messages of the core API and knows nothing of the transport. Changes go through the writer; questions
about open generations are answered from memory, about ended ones from the projection.
"""

import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.api.cursor import BadCursor, cursor_of, position_of
from core.api.submission import Admission
from core.api.views import view
from core.api.waiters import Waiters
from core.dispatch.dispatcher import Dispatcher
from core.domain import commands as c
from core.domain.events import Cause, Prompts
from core.domain.projection import Rows, project
from core.domain.state import Generation
from core.domain.transaction import Change, Order, Result
from core.erasure.eraser import Eraser
from core.metrics import Metrics
from core.ports import Projection
from core.runtime.model_reports import ModelReports
from core.runtime.prompt_cache import PromptCache
from core.runtime.worker_reports import Held, Progress
from core.runtime.writer import Writer
from infra.retry import Retryable
from schema import fast, limits, pb, validate

LIST_LOOKS: Final = 10_000
"""Generations that one page of a list looks at; its cursor goes on from there. Measured, on two busy cores: 11 to 18 ms
where a tenant's rows lie together, 32 to 87 ms where each fiftieth is its own; meanwhile other questions wait.
"""

_QUEUED = pb.GenerationStatus(pb.GenerationStatus.QUEUED)
_IMAGE_QUEUED = pb.ImageStatus(pb.ImageStatus.QUEUED)
_ACCEPTED = pb.SubmitOutcome(pb.SubmitOutcome.ACCEPTED)
_REPLAYED = pb.SubmitOutcome(pb.SubmitOutcome.REPLAYED)


class NotFound(Exception):
    """No such generation, or another tenant's: nobody is told which."""


class BadRequest(Exception):
    """The call itself is malformed; `field` says where."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")


@dataclass(frozen=True, slots=True)
class _Found:
    """A generation as a view needs it; `state` only while it is open."""

    rows: Rows
    state: Generation | None


class Service:
    """`max_waiters` bounds the calls that wait; beyond it, those of whoever has most are answered at once."""

    def __init__(
        self,
        writer: Writer,
        projection: Projection,
        *,
        admission: Admission,
        prompts: PromptCache,
        progress: Progress,
        reports: ModelReports,
        dispatcher: Dispatcher,
        eraser: Eraser,
        metrics: Metrics,
        max_waiters: int = 10_000,
    ) -> None:
        self._writer = writer
        self._projection = projection
        self._admission = admission
        self._prompts = prompts
        self._progress = progress
        self._reports = reports
        self._dispatcher = dispatcher
        self._eraser = eraser
        self._metrics = metrics
        self._waiters = Waiters(max_waiters)
        self._stopping = False
        metrics.waiters.set_function(self._waiters.__len__)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Wake who waits for an end."""
        for _, after in changes:
            if not after.open:
                self._waiters.ended(after.id)

    def stop(self) -> None:
        """Refuse submissions from now on, and let nobody wait."""
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
        self._admission.compare_with(default)
        answers: dict[int, fast.SubmitResult] = {}
        orders: list[Order] = []
        places: list[int] = []
        with self._admission.spans() as spans:
            for place, item in enumerate(items):
                try:
                    validate.submit_item(item)
                except validate.Invalid as invalid:
                    answers[place] = self._admission.invalid(invalid)
                    continue
                orders.append(self._admission.order(item, spans))
                places.append(place)
            results = await self._writer.carry_out(orders)
        replayed: list[int] = []
        for place, order, result in zip(places, orders, results, strict=True):
            if result.changed and result.state is not None:
                if order.prompt is not None:
                    self._prompts.put(order.generation_id, order.prompt.prompts)
                answers[place] = self._accepted(items[place], result.state)
            elif result.refusal is not None:
                answers[place] = self._admission.refused(result.refusal)
            else:
                replayed.append(place)
        if replayed:
            await self._show_first(replayed, dict(zip(places, results, strict=True)), answers)
        self._count(answers.values())
        return [answers[place] for place in range(len(items))]

    async def get(self, tenant: str, generation_id: str, wait_ms: int = 0) -> fast.GenerationView:
        """What the tenant may know of it, after waiting up to `wait_ms` for its end. Raises NotFound, BadRequest."""
        if wait_ms > limits.MAX_WAIT_MS:
            raise BadRequest("wait_ms", f"may be at most {limits.MAX_WAIT_MS}")
        state = self._writer.open.get(generation_id)
        if state is not None and state.tenant == tenant and wait_ms:
            await self._waiters.wait(tenant, generation_id, wait_ms / 1000)
        return await self._view(await self._find(tenant, generation_id))

    async def list(
        self, tenant: str, *, page_size: int, cursor: str, status: int
    ) -> tuple[Sequence[fast.GenerationView], str]:
        """A page of the tenant's generations, newest first, and the cursor of the next one, empty when this is the
        last. A page may hold fewer than asked for and not be the last. Raises BadRequest.
        """
        if not 0 <= page_size <= limits.MAX_LIST_PAGE:
            raise BadRequest("page_size", f"may be at most {limits.MAX_LIST_PAGE}")
        try:
            before = position_of(cursor)
        except BadCursor as error:
            raise BadRequest("cursor", str(error)) from None
        rows, more = await self._projection.page(
            tenant,
            before=before,
            limit=page_size or limits.MAX_LIST_PAGE,
            status=status,
            looks=LIST_LOOKS,
        )
        known = await self._prompts.of_any([each.generation.id for each in rows if not each.generation.erased])
        found = [_Found(each, self._writer.open.get(each.generation.id)) for each in rows]
        return [self._show(each, known) for each in found], cursor_of(more)

    async def erase(self, tenant: str, generation_id: str, *, operator: bool) -> tuple[bool, fast.GenerationView]:
        """Whether it is erased now, and its view. An operator may leave the tenant out. Raises NotFound, Retryable."""
        found = await self._find(tenant, generation_id, anybodys=operator and not tenant)
        if found.state is not None:
            return False, await self._view(found)
        if not found.rows.generation.erased:
            await self._eraser.erase([generation_id], Cause.OPERATOR if operator else Cause.TENANT)
        return True, await self._view(await self._find(found.rows.generation.tenant, generation_id))

    async def cancel(self, tenant: str, generation_id: str) -> tuple[bool, fast.GenerationView]:
        """Whether it is cancelled now, and its view. Raises NotFound, Retryable."""
        await self._find(tenant, generation_id)
        [result] = await self._writer.carry_out([Order(generation_id, c.Cancel())])
        return result.refusal is None, await self._view(await self._find(tenant, generation_id))

    def still_wanted(
        self, worker_id: str, held: Sequence[fast.HeldImage], models: Sequence[fast.ModelReport] = ()
    ) -> Sequence[bool]:
        """Which images the worker should keep; `models` is what it lists. Raises BadRequest."""
        if len(held) > limits.MAX_STILL_WANTED:
            raise BadRequest("held", f"may be at most {limits.MAX_STILL_WANTED}")
        if len(models) > limits.MAX_MODELS:
            raise BadRequest("models", f"may be at most {limits.MAX_MODELS}")
        try:
            validate.identifier("worker_id", worker_id)
            for each in models:
                validate.model_report(each)
        except validate.Invalid as invalid:
            raise BadRequest(invalid.field, invalid.reason) from None
        images = [
            Held((each.image.generation_id, each.image.index), each.running, each.step, each.dispatch) for each in held
        ]
        self._reports.report(worker_id, models)
        return self._progress.report(worker_id, images, self._dispatcher)

    def models(self) -> fast.ModelsReply:
        """What the workers that report have said of their models."""
        return fast.ModelsReply(
            models=self._reports.statuses(),
            complete=self._reports.complete,
            silent_workers=self._reports.silent(),
        )

    async def _find(self, tenant: str, generation_id: str, *, anybodys: bool = False) -> _Found:
        state = self._writer.remembered(generation_id)
        if state is not None:
            found = _Found(project(state), state if state.open else None)
        else:
            rows = (await self._projection.rows([generation_id], asker=tenant)).get(generation_id)
            if rows is None:
                raise NotFound
            found = _Found(rows, None)
        if not anybodys and not hmac.compare_digest(found.rows.generation.tenant.encode(), tenant.encode()):
            raise NotFound
        return found

    async def _view(self, found: _Found) -> fast.GenerationView:
        ids = [] if found.rows.generation.erased else [found.rows.generation.id]
        known = await (self._prompts.of_open(ids) if found.state else self._prompts.of_any(ids))
        return self._show(found, known)

    def _show(self, found: _Found, prompts: Mapping[str, Prompts]) -> fast.GenerationView:
        own = prompts.get(found.rows.generation.id)
        if found.state is None:
            return view(found.rows, own)
        position = self._dispatcher.position(found.state)
        return view(found.rows, own, self._progress.live(found.state, position))

    def _count(self, answers: Iterable[fast.SubmitResult]) -> None:
        for outcome, times in Counter(int(answer.outcome) for answer in answers).items():
            self._metrics.submissions.labels(str(pb.SubmitOutcome(outcome).name).lower()).inc(times)

    def _accepted(self, item: fast.SubmitItem, state: Generation) -> fast.SubmitResult:
        shown = fast.GenerationView(
            generation_id=item.generation_id,
            status=_QUEUED,
            version=1,
            spec=item.spec,
            prompts=item.prompts,
            priority=item.priority,
            ttl_s=item.ttl_s,
            requested_at_ms=state.requested_at_ms,
            images=_queued_images(item.spec.seed, item.spec.n),
            backlog_position=self._dispatcher.position(state),
        )
        return fast.SubmitResult(outcome=_ACCEPTED, generation=shown)

    async def _show_first(
        self, replayed: Sequence[int], results: Mapping[int, Result], answers: dict[int, fast.SubmitResult]
    ) -> None:
        """Fill in the first generations of repeated requests."""
        firsts = {place: state for place in replayed if (state := results[place].state) is not None}
        known = await self._prompts.of_any([state.id for state in firsts.values() if not state.erased])
        for place, decided in firsts.items():
            state = self._writer.remembered(decided.id) or decided
            found = _Found(project(state), state if state.open else None)
            answers[place] = fast.SubmitResult(outcome=_REPLAYED, generation=self._show(found, known))


def _queued_images(seed: int, n: int) -> "list[fast.ImageView]":
    return [
        fast.ImageView(index=index, status=_IMAGE_QUEUED, seed=(seed + index) % limits.SEED_MODULUS)
        for index in range(n)
    ]
