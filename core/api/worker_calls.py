"""The workers' call, still wanted, and the gateways' query about models. Both are answered from memory."""

from collections.abc import Sequence

from core.api.errors import BadRequest
from core.runtime.model_reports import ModelReports
from core.runtime.worker_reports import Dispatching, Held, Progress
from schema import fast, limits, validate


class WorkerCalls:
    """Passes workers' reports on to progress, model reports and dispatch."""

    def __init__(self, progress: Progress, reports: ModelReports, dispatching: Dispatching) -> None:
        self._progress = progress
        self._reports = reports
        self._dispatching = dispatching

    def still_wanted(
        self, worker_id: str, held: Sequence[fast.HeldImage], models: Sequence[fast.ModelReport]
    ) -> Sequence[bool]:
        """For each held image, in order, whether to keep it; `models` are those the worker lists. Raises BadRequest."""
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
        return self._progress.report(worker_id, images, self._dispatching)

    def models(self) -> fast.ModelsReply:
        """The models that workers have reported, whether all had time to report, and how many workers are silent."""
        return fast.ModelsReply(
            models=self._reports.statuses(),
            complete=self._reports.complete,
            silent_workers=self._reports.silent(),
        )
