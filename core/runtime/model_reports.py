"""Which models the workers list, and in which state: their latest reports, kept in memory alone.

Workers report with every `StillWanted`. A report expires after `KEPT_S` of core's running time, so that neither a
stopped core nor a clock step loses one. Older workers, and those without access to core, report nothing: they are
*silent*, and may serve any model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from core.domain.commands import Verdict
from core.domain.events import Failure
from schema import fast, pb

KEPT_S: Final = 30.0
"""How long a report counts. Workers report every second."""

SETTLE_S: Final = 15.0
"""The time after a start of core by which every worker should have reported."""

_MAX_WORKERS: Final = 1_000
_MAX_SHOWN: Final = 8
_LOADING = int(pb.ModelState.LOADING)
_LOADED = int(pb.ModelState.LOADED)
_BROKEN = int(pb.ModelState.BROKEN)
_AWAY = int(pb.ModelState.AWAY)
_OUT = frozenset({_BROKEN, _AWAY})


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The last report of one worker. `models` by name."""

    at_ms: int
    models: Mapping[str, fast.ModelReport]


class SeenWorkers(Protocol):
    """The workers that have sent anything lately."""

    def ids(self) -> Sequence[str]: ...


class ModelReports:
    """The latest report of each worker. `now_ms` gives core's running time."""

    def __init__(self, workers: SeenWorkers, *, now_ms: Callable[[], int]) -> None:
        self._workers = workers
        self._now_ms = now_ms
        self._reports: dict[str, WorkerReport] = {}
        self._maybe_away: set[str] = set()  # a filter for `away`, which would otherwise scan all reports per image
        self._complete_at_ms = 0
        self._listeners: list[Callable[[str], None]] = []

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with each model that a worker can serve from now on and could not before."""
        self._listeners.append(listener)

    def begin(self) -> None:
        """Call at the start of core, before anything is judged."""
        self._complete_at_ms = self._now_ms() + int(SETTLE_S * 1000)

    @property
    def complete(self) -> bool:
        """Whether every worker has had the time to report since the start."""
        return self._now_ms() >= self._complete_at_ms

    def report(self, worker_id: str, models: Sequence[fast.ModelReport]) -> None:
        """Store the models that a worker lists, and call the listeners for those it can use and could not before.

        An empty list is ignored: it comes from a worker that does not report. So is a new worker beyond 1,000.
        """
        if not models:
            return
        before = self._reports.pop(worker_id, None)
        if before is None and len(self._reports) >= _MAX_WORKERS:
            return
        known = before.models if before is not None else {}
        self._reports[worker_id] = WorkerReport(self._now_ms(), {each.name: each for each in models})
        self._note_away(models)
        for each in models:
            if each.state not in _OUT and (each.name not in known or known[each.name].state in _OUT):
                for listener in self._listeners:
                    listener(each.name)

    def refused(self, worker_id: str, model: str, failure: Failure, reason: str) -> None:
        """Mark the model broken or away for a worker whose reply said so: the reply may be ahead of its report."""
        report = self._reports.get(worker_id)
        if report is None or model not in report.models or report.models[model].state in _OUT:
            return
        state = _BROKEN if failure is Failure.MODEL_BROKEN else _AWAY
        said = fast.ModelReport(name=model, state=state, reason=reason)
        self._reports[worker_id] = WorkerReport(report.at_ms, {**report.models, model: said})
        self._note_away([said])

    def away(self, model: str) -> bool:
        """Whether every report that lists the model has it away or broken, and at least one has it away.

        Its images then stay in the backlog until a worker can use it again.
        """
        if model not in self._maybe_away:
            return False
        states = self._states(model)
        if _AWAY not in states:
            self._maybe_away.discard(model)
        return _AWAY in states and all(state in _OUT for state in states)

    def verdict(self, worker_id: str, model: str, failure: Failure) -> Verdict:
        """What a worker's refusal means for the image."""
        match failure:
            case Failure.MODEL_BROKEN:
                return self._broken(worker_id, model)
            case Failure.UNSUPPORTED:
                return self._foreign(worker_id, model)
            case Failure.MODEL_AWAY:
                return Verdict.ELSEWHERE
            case _:
                return Verdict.COUNT

    def statuses(self) -> list[fast.ModelStatus]:
        """Every model that a live worker lists, by name."""
        by_name: dict[str, list[tuple[str, fast.ModelReport]]] = {}
        for worker_id, report in self._live().items():
            for name, said in report.models.items():
                by_name.setdefault(name, []).append((worker_id, said))
        return [_status(name, said) for name, said in sorted(by_name.items())]

    def silent(self) -> int:
        """The number of workers seen in the last minute that have no unexpired report."""
        live = self._live()
        return sum(each not in live for each in self._workers.ids())

    def _note_away(self, models: Sequence[fast.ModelReport]) -> None:
        self._maybe_away.update(each.name for each in models if each.state == _AWAY)

    def _broken(self, worker_id: str, model: str) -> Verdict:
        """FINAL when no other worker can serve the model: all that list it have it broken, and no worker is silent."""
        others = self._states(model, but=worker_id)
        if not self.complete or any(state != _BROKEN for state in others):
            return Verdict.ELSEWHERE
        live = self._live()
        known = worker_id in live
        silent = any(each not in live and each != worker_id for each in self._workers.ids())
        return Verdict.FINAL if known and not silent else Verdict.COUNT

    def _foreign(self, worker_id: str, model: str) -> Verdict:
        """A refusal by a worker that does not list the model does not count while another worker lists it, or while
        some may not have reported yet.
        """
        report = self._live().get(worker_id)
        if report is None or model in report.models:
            return Verdict.COUNT
        return Verdict.ELSEWHERE if not self.complete or self._states(model, but=worker_id) else Verdict.COUNT

    def _states(self, model: str, *, but: str = "") -> list[int]:
        return [
            report.models[model].state
            for worker_id, report in self._live().items()
            if worker_id != but and model in report.models
        ]

    def _live(self) -> Mapping[str, WorkerReport]:
        """Drop expired reports, and return the others, oldest first."""
        oldest_ms = self._now_ms() - int(KEPT_S * 1000)
        while self._reports and self._reports[first := next(iter(self._reports))].at_ms < oldest_ms:
            del self._reports[first]
        return self._reports


def _status(name: str, said: Sequence[tuple[str, fast.ModelReport]]) -> fast.ModelStatus:
    states = [each.state for _, each in said]
    out = [
        fast.ModelOut(worker_id=worker_id, state=each.state, reason=each.reason)
        for worker_id, each in said
        if each.state in _OUT
    ]
    able = next((each.capabilities for _, each in said if each.capabilities.guidance), fast.ModelCapabilities())
    return fast.ModelStatus(
        name=name,
        workers=len(said),
        loaded=states.count(_LOADED),
        loading=states.count(_LOADING),
        broken=states.count(_BROKEN),
        away=states.count(_AWAY),
        out=out[:_MAX_SHOWN],
        capabilities=able,
        revisions=sorted({each.revision for _, each in said if each.revision})[:_MAX_SHOWN],
    )
