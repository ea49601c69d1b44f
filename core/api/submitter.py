"""The submit call: each item is decided on its own, and the accepted ones are durable before the answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from core.api.reader import Reader
from core.api.submission import SubmissionOrders
from core.domain.state import Generation
from core.domain.transaction import Order, Result
from core.metrics import Metrics
from core.runtime.prompt_cache import PromptCache
from core.runtime.writer import Writer
from schema import fast, limits, pb, validate

_QUEUED = int(pb.GenerationStatus.QUEUED)
_IMAGE_QUEUED = int(pb.ImageStatus.QUEUED)
_ACCEPTED = int(pb.SubmitOutcome.ACCEPTED)
_REPLAYED = int(pb.SubmitOutcome.REPLAYED)


class Submitter:
    """`reader` makes the view of the generation that a repeated request is answered with."""

    def __init__(
        self, writer: Writer, submissions: SubmissionOrders, prompts: PromptCache, reader: Reader, metrics: Metrics
    ) -> None:
        self._writer = writer
        self._submissions = submissions
        self._prompts = prompts
        self._reader = reader
        self._metrics = metrics

    async def submit(
        self, items: Sequence[fast.SubmitItem], default: fast.GenerationSpec | None
    ) -> list[fast.SubmitResult]:
        """One answer per item, in order. Work is charged in images of `default`. Raises Retryable."""
        self._submissions.compare_with(default)
        answers: dict[int, fast.SubmitResult] = {}
        orders: dict[int, Order] = {}
        with self._submissions.spans() as spans:
            for index, item in enumerate(items):
                try:
                    validate.submit_item(item)
                except validate.Invalid as invalid:
                    answers[index] = self._submissions.invalid(invalid)
                else:
                    orders[index] = self._submissions.order(item, spans)
            results = dict(zip(orders, await self._writer.carry_out(list(orders.values())), strict=True))
        for index, result in results.items():
            if result.changed and result.state is not None:
                self._remember(orders[index])
                answers[index] = self._accepted(items[index], result.state)
            elif result.refusal is not None:
                answers[index] = self._submissions.refused(result.refusal)
        await self._answer_repeated(results, answers)
        self._count(answers.values())
        return [answers[index] for index in range(len(items))]

    def _remember(self, order: Order) -> None:
        if order.prompt is not None:
            self._prompts.put(order.generation_id, order.prompt.prompts)

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
            backlog_position=self._reader.position(state),
        )
        return fast.SubmitResult(outcome=_ACCEPTED, generation=shown)

    async def _answer_repeated(self, results: Mapping[int, Result], answers: dict[int, fast.SubmitResult]) -> None:
        """An item that is neither accepted nor refused repeats a request: answer with that request's generation."""
        firsts = {
            index: result.state
            for index, result in results.items()
            if index not in answers and result.state is not None
        }
        if firsts:
            for index, shown in zip(firsts, await self._reader.views(list(firsts.values())), strict=True):
                answers[index] = fast.SubmitResult(outcome=_REPLAYED, generation=shown)

    def _count(self, answers: Iterable[fast.SubmitResult]) -> None:
        for outcome, times in Counter(answer.outcome for answer in answers).items():
            self._metrics.submissions.labels(str(pb.SubmitOutcome(outcome).name).lower()).inc(times)


def _queued_images(seed: int, n: int) -> list[fast.ImageView]:
    return [
        fast.ImageView(index=index, status=_IMAGE_QUEUED, seed=(seed + index) % limits.SEED_MODULUS)
        for index in range(n)
    ]
