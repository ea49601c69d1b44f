"""Bugs of core; `planted` says what for."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import core.domain.decide
import core.domain.projection
import core.domain.shares
import core.domain.transaction
import core.results.publisher
import core.results.reply_consumer
from core.assembly import Core
from core.domain import commands as c
from core.domain import events as e
from core.domain.shares import Bound, Ground, TooMuch, Usage, UsageByTenant
from core.domain.state import Generation, Phase
from core.results.publisher import Publisher
from core.results.reply_consumer import ReplyConsumer
from core.runtime.expiry import Expiry
from core.runtime.note_updater import NoteUpdater
from core.runtime.provisioning import Provisioning
from core.runtime.running_clock import RunningClock
from core.runtime.writer import Writer
from infra.retry import Retryable
from tests.simulation.log import SimLog
from tests.simulation.planted import Plant, background, bug, never_again
from tests.simulation.queues import SimQueue


@bug
def core_deletes_replies_before_it_records_them(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def handle(self: Any, received: Sequence[Any]) -> None:
            await self._queue.delete([each.receipt for each in received])
            await good(self, received)

        return handle

    plant(ReplyConsumer, "_handle", make)


@bug
def the_last_picture_wins(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def decide_image(image: Any, command: Any, now: Any) -> Any:
            if isinstance(command, c.RecordRendered):
                return (command.event,)
            return good(image, command, now)

        return decide_image

    plant(core.domain.decide, "_decide_image", make)


@bug
def the_publisher_copies_nothing(plant: Plant) -> None:
    def make(_: Any) -> Any:
        async def publish(self: Any, picture: Any, _delay: Any) -> None:
            await self._record(picture)

        return publish

    plant(Publisher, "_publish", make)


@bug
def the_publisher_trusts_the_draft(plant: Plant) -> None:
    async def none_wrong(*_: Any) -> str:
        return ""

    plant(Publisher, "_fault_of_temp", lambda _: none_wrong)
    plant(core.results.publisher, "_same", lambda _: lambda *_: True)


@bug
def the_publisher_does_not_resume(plant: Plant) -> None:
    def make(good: Any) -> Any:
        return lambda self, changes: good(self, [each for each in changes if each[0] is not None])

    plant(Publisher, "on_changes", make)


@bug
def core_forgets_the_open_ones_at_start(plant: Plant) -> None:
    plant(Writer, "announce_loaded", lambda _: lambda *_: None)


@bug
def the_log_answers_before_it_is_durable(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def append(self: Any, transaction: Any) -> None:
            background(good(self, transaction))

        return append

    plant(SimLog, "append", make)


@bug
def a_full_disk_is_taken_for_success(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def append(self: Any, transaction: Any) -> None:
            with contextlib.suppress(Retryable):
                await good(self, transaction)

        return append

    plant(Writer, "_append", make)


@bug
def outages_count_against_the_time_to_live(plant: Plant) -> None:
    plant(RunningClock, "now_ms", lambda _: lambda _: int(asyncio.get_running_loop().time() * 1_000))


def _decide(plant: Plant, kind: type, event: type) -> None:
    def make(good: Any) -> Any:
        def decide(state: Any, command: Any, now: Any) -> Any:
            return (event(),) if state is not None and isinstance(command, kind) else good(state, command, now)

        return decide

    plant(core.domain.transaction, "decide", make)


@bug
def a_cancel_always_wins(plant: Plant) -> None:
    _decide(plant, c.Cancel, e.GenerationCancelled)


@bug
def expiry_does_not_look(plant: Plant) -> None:
    def make(good: Any) -> Any:
        return lambda self, changes: good(self, [each for each in changes if each[1].open])

    plant(Expiry, "on_changes", make)
    _decide(plant, c.Expire, e.GenerationExpired)


@bug
def the_backlog_is_for_whoever_comes_first(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def judge(caps: Any, total: Any, own: Any, active: int, wanted: Any) -> Any:
            fits = total.charge + wanted.charge <= caps.charge
            return Ground.ROOM if fits else TooMuch(Bound.EVERYTHING, 1)

        return judge

    plant(core.domain.shares, "judge", make)


@bug
def what_was_cancelled_is_charged_on(plant: Plant) -> None:
    def usage(self: Any) -> Usage:
        images = sum(image.phase < Phase.PUBLISHED for image in self.images)
        return Usage(self.charge * images, images)

    plant(Generation, "usage", lambda _: property(usage))


@bug
def core_begins_each_life_with_empty_books(plant: Plant) -> None:
    plant(UsageByTenant, "of", lambda _: lambda _: UsageByTenant())


@bug
def idempotency_keys_are_ignored(plant: Plant) -> None:
    def make(good: Any) -> Any:
        return lambda self, order, request, state: good(self, replace(order, idempotency=None), request, state)

    plant(core.domain.transaction.PendingTransaction, "_repeated", make)


@bug
def the_status_follows_the_last_attempt(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def status_of(state: Any) -> int:
            waits = all(image.phase in {Phase.PENDING, Phase.DISPATCHED} for image in state.images)
            return 1 if state.open and waits else int(good(state))

        return status_of

    plant(core.domain.projection, "status_of", make)


@bug
def lost_objects_are_nobodys_business(plant: Plant) -> None:
    plant(core.domain.decide, "_object_lost", lambda _: lambda *_: ())


@bug
def deletions_do_nothing(plant: Plant) -> None:
    plant(SimQueue, "_delete", lambda _: lambda _, receipts, __: [True] * len(receipts))


@bug
def drafts_are_deleted_before_they_are_copied(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def on_changes(self: Any, changes: Any) -> None:
            good(self, changes)
            for _, after in changes:
                for image in after.images:
                    if image.rendered is not None:
                        self._temp_cleanup.add(image.rendered.temp_key)

        return on_changes

    plant(Publisher, "on_changes", make)


@bug
def published_copies_are_tidied_away(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def record(self: Any, picture: Any) -> None:
            await good(self, picture)
            self._public_cleanup.add(picture.public_key)

        return record

    plant(Publisher, "_record", make)


@bug
def one_start_alone_convicts(plant: Plant) -> None:
    plant(core.domain.decide, "MAX_SOLO_STARTS", lambda _: 1)


@bug
def core_hears_no_replies_after_an_error(plant: Plant) -> None:
    plant(core.results.reply_consumer, "Backoff", never_again)


@bug
def nobody_makes_the_queues_again(plant: Plant) -> None:
    async def nothing(*_: Any) -> None:
        pass

    plant(Provisioning, "ensure", lambda _: nothing)


@bug
def deadlines_follow_the_clock_on_the_wall(plant: Plant) -> None:
    walls: list[Any] = []

    def make(good: Any) -> Any:
        def init(self: Any, ports: Any, *others: Any, **named: Any) -> None:
            walls.append(ports.wall_ms)
            good(self, ports, *others, **named)

        return init

    plant(Core, "__init__", make)
    plant(RunningClock, "now_ms", lambda _: lambda _: walls[-1]())


@bug
def times_follow_the_clock_on_the_wall(plant: Plant) -> None:
    plant(core.domain.transaction, "not_before", lambda _: lambda _, now: now)


@bug
def a_new_log_takes_work_before_it_is_noted(plant: Plant) -> None:
    async def nothing(*_: Any) -> None:
        pass

    plant(NoteUpdater, "introduce", lambda _: nothing)
