"""Bugs of erasure; `planted` says what for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import core.erasure.retention
from core.erasure.eraser import Eraser
from core.erasure.object_deletions import ObjectDeletions
from core.erasure.retention import Keep
from core.ports import Deletion
from tests.simulation.log import SimLog
from tests.simulation.planted import Plant, bug
from tests.simulation.store import SimErasures


@bug
def an_erasure_leaves_the_prompt(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def append(self: Any, transaction: Any) -> None:
            await good(self, replace(transaction, erased=()))
            self._disk.content.to_delete |= {each: Deletion(generation_id=each) for each in transaction.erased}

        return append

    plant(SimLog, "append", make)


@bug
def deletions_are_known_to_one_life_of_core(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def run(self: Any) -> None:
            old = await self._log.deletions(2**50, 10_000)
            await self._log.write_deletions([], [each.generation_id for each in old])
            await good(self)

        return run

    plant(ObjectDeletions, "run", make)


@bug
def objects_are_deleted_once_and_not_looked_for_again(plant: Plant) -> None:
    async def never(*_: Any) -> None:
        pass

    async def done(self: Any, deletion: Any) -> None:
        await self._log.write_deletions([], [deletion.generation_id])

    plant(ObjectDeletions, "again", lambda _: never)
    plant(ObjectDeletions, "_plan", lambda _: done)


@bug
def an_older_log_brings_back_what_was_erased(plant: Plant) -> None:
    async def nothing(_: Any) -> None:
        pass

    plant(Eraser, "repeat_listed", lambda _: nothing)


@bug
def an_erasure_is_answered_before_it_is_listed(plant: Plant) -> None:
    async def nothing(*_: Any) -> None:
        pass

    plant(SimErasures, "note", lambda _: nothing)


@bug
def retention_goes_by_the_wall_alone(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def due(found: Sequence[Any], keep: Keep, *, at_ms: int, running_ms: int) -> list[str]:
            return list(good(found, keep, at_ms=at_ms, running_ms=2**50))

        return due

    def walk(good: Any) -> Any:
        async def ended(self: Any, *, after: int, until_running_ms: int, window: int) -> Any:
            return await good(self, after=after, until_running_ms=2**50 + 0 * until_running_ms, window=window)

        return ended

    plant(core.erasure.retention, "due", make)
    plant(SimLog, "ended", walk)


@bug
def retention_goes_by_running_time_alone(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def due(found: Sequence[Any], keep: Keep, *, at_ms: int, running_ms: int) -> list[str]:
            return list(good(found, keep, at_ms=2**50, running_ms=running_ms))

        return due

    plant(core.erasure.retention, "due", make)
