"""What follows from replies once they are durable: metrics, liveness of workers, deletion of late objects."""

from collections.abc import Sequence
from typing import Protocol

from core.domain.transaction import Result
from core.metrics import Metrics
from core.results.object_cleanup import ObjectCleanup
from core.results.reply_commands import Reply, kind
from core.runtime.worker_reports import Progress, Workers
from schema import fast


class LateObjects(Protocol):
    """Deletes the objects of erased generations."""

    async def again(self, generation_ids: Sequence[str]) -> None:
        """Schedule another deletion of the objects of these. Durable when it returns. Raises Retryable."""


class ReplyEffects:
    """`temp_cleanup` deletes the temporary objects of attempts that lost."""

    def __init__(
        self,
        *,
        progress: Progress,
        workers: Workers,
        temp_cleanup: ObjectCleanup,
        late: LateObjects,
        metrics: Metrics,
    ) -> None:
        self._progress = progress
        self._workers = workers
        self._temp_cleanup = temp_cleanup
        self._late = late
        self._metrics = metrics

    async def follow(self, replies: Sequence[Reply], results: Sequence[Result]) -> None:
        """Act on replies and the results of their orders. Raises Retryable when a deletion cannot be made durable."""
        for reply, result in zip(replies, results, strict=True):
            self._follow(reply, result)
        # A late reply about an erased generation: its upload may have finished after the objects were deleted.
        await self._late.again([each.state.id for each in results if each.state is not None and each.state.erased])

    def _follow(self, reply: Reply, result: Result) -> None:
        outcome = "unknown" if result.state is None else "recorded" if result.changed else "late"
        self._metrics.replies.labels(kind(reply), outcome).inc()
        ref = (reply.image.generation_id, reply.image.index)
        if isinstance(reply, fast.ImageStarted):
            if result.changed:
                self._progress.started(ref, reply.worker_id, reply.batch_size)
        else:
            self._workers.saw(reply.worker_id)
        if isinstance(reply, fast.ImageRendered) and not result.changed and result.state is not None:
            images = result.state.images
            won = images[ref[1]].rendered if ref[1] < len(images) else None
            if won is None or won.attempt_id != reply.attempt_id:
                self._temp_cleanup.add(reply.temp_key)
