"""Which command a reply becomes, given the generation it is about and what the other workers have reported."""

from collections.abc import Callable, Mapping

from core.domain import commands as c
from core.domain.events import Failure
from core.domain.recheck import RecheckPolicy
from core.domain.state import Generation
from core.domain.transaction import Order
from core.results.reply_commands import Reply, attempt_failed, misfit, rendered, started
from core.runtime.estimates import Estimates
from core.runtime.model_reports import ModelReports
from schema import fast


class ReplyInterpreter:
    """`states` are the open generations; `new_token` gives the secret part of a public key."""

    def __init__(
        self,
        states: Mapping[str, Generation],
        *,
        recheck: RecheckPolicy,
        estimates: Estimates,
        reports: ModelReports,
        new_token: Callable[[], str],
    ) -> None:
        self._states = states
        self._recheck = recheck
        self._estimates = estimates
        self._reports = reports
        self._new_token = new_token

    def order(self, reply: Reply) -> Order:
        """The order for the writer. A refusal for a broken or away model is also noted in the model reports."""
        return Order(reply.image.generation_id, self._command(reply))

    def _command(self, reply: Reply) -> c.Command:
        state = self._states.get(reply.image.generation_id)
        match reply:
            case fast.ImageStarted():
                work_s = self._estimates.work_s(state.spec) if state else 0.0
                return started(reply, self._recheck.after_start_ms(work_s, reply.batch_size))
            case fast.ImageRendered():
                wrong = misfit(reply, state.spec) if state else None
                return wrong or rendered(reply, self._new_token())
            case _:
                return attempt_failed(reply, self._verdict(reply, state))

    def _verdict(self, reply: fast.ImageAttemptFailed, state: Generation | None) -> c.Verdict:
        """What a refusal means depends on what the other workers list."""
        failure = Failure(reply.failure)
        if state is None:
            return c.Verdict.COUNT
        if failure in (Failure.MODEL_BROKEN, Failure.MODEL_AWAY):
            self._reports.refused(reply.worker_id, state.spec.model, failure, reply.detail)
        return self._reports.verdict(reply.worker_id, state.spec.model, failure)
