"""Bugs of what core sends, and of what the queue gives up; `planted` says what for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import core.dispatch.dispatcher
import core.domain.decide
from core.dispatch.dead_letter_consumer import DeadLetterConsumer
from core.dispatch.dispatcher import Dispatcher
from core.dispatch.in_flight import InFlight
from core.dispatch.job_message import JobSender
from core.domain.state import Phase
from core.runtime.worker_reports import Progress
from tests.simulation.planted import Plant, bug, never_again


class _AllTrue:
    """A queue whose refusals nobody reads."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def send(self, messages: Sequence[Any]) -> list[bool]:
        await self._queue.send(messages)
        return [True] * len(messages)


@bug
def core_ignores_failed_entries(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def init(self: Any, queue: Any, *others: Any) -> None:
            good(self, _AllTrue(queue), *others)

        return init

    plant(JobSender, "__init__", make)


@bug
def nothing_is_sent_again(plant: Plant) -> None:
    plant(InFlight, "due", lambda _: lambda *_: [])


@bug
def core_sends_no_jobs_after_an_error(plant: Plant) -> None:
    plant(core.dispatch.dispatcher, "Backoff", never_again)


@bug
def a_dispatch_is_recorded_before_it_is_sent(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def send(self: Any, batch: Any) -> Any:
            await self._record([self._dispatch(job, 0.0) for job in batch])
            return await good(self, batch)

        return send

    plant(Dispatcher, "_send", make)


@bug
def a_draining_core_watches_its_rechecks(plant: Plant) -> None:
    """It did: an overdue image made it spin until the end of the drain."""

    def make(good: Any) -> Any:
        async def rest(self: Any) -> None:
            stopping, self._stopping = self._stopping, False
            try:
                await good(self)
            finally:
                self._stopping = stopping or self._stopping

        return rest

    plant(Dispatcher, "_rest", make)


@bug
def a_dispatch_counts_though_its_attempt_is_over(plant: Plant) -> None:
    """It did: an image whose worker was quicker than the record of its dispatch was waited for."""

    def make(good: Any) -> Any:
        def dispatch(image: Any, command: Any, now: Any) -> Any:
            return good(image, replace(command, dispatch=image.dispatches + 1), now)

        return dispatch

    plant(core.domain.decide, "_dispatch", make)


@bug
def a_job_is_unwanted_until_its_dispatch_is_recorded(plant: Plant) -> None:
    """It was: whoever received it before that, while another had started it, threw it away."""

    def make(good: Any) -> Any:
        def wanted(self: Any, held: Any, worker_id: str, dispatching: Any) -> bool:
            return bool(good(self, replace(held, dispatch=1), worker_id, dispatching))

        return wanted

    plant(Progress, "_wanted", make)


@bug
def dead_letters_are_deleted_before_they_are_recorded(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def take(self: Any, letters: Any, jobs: Sequence[Any]) -> int:
            await self._queue.delete([each.received.receipt for each in jobs])
            return int(await good(self, letters, jobs))

        return take

    plant(DeadLetterConsumer, "_take", make)


@bug
def a_dead_letter_is_believed_about_what_was_begun(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def dead_letter(image: Any, command: Any) -> Any:
            known = image if image.decided else replace(image, phase=Phase.DISPATCHED)
            return good(known, command)

        return dead_letter

    plant(core.domain.decide, "_dead_letter", make)
