"""Bugs around models that some workers, or all, cannot use; `planted` says what for."""

import asyncio
from typing import Any

from core.domain.commands import Verdict
from core.runtime.model_reports import ModelReports
from tests.simulation.planted import Plant, bug
from worker.gpu.models.model_pool import ModelPool


@bug
def refusals_of_broken_workers_count(plant: Plant) -> None:
    plant(ModelReports, "_broken", lambda _: lambda *_: Verdict.COUNT)


@bug
def a_model_fails_while_one_worker_could(plant: Plant) -> None:
    plant(ModelReports, "_broken", lambda _: lambda *_: Verdict.FINAL)


@bug
def a_model_that_is_broken_everywhere_is_waited_for(plant: Plant) -> None:
    plant(ModelReports, "_broken", lambda _: lambda *_: Verdict.ELSEWHERE)


@bug
def workers_that_do_not_list_a_model_have_a_say(plant: Plant) -> None:
    plant(ModelReports, "_foreign", lambda _: lambda *_: Verdict.COUNT)


@bug
def one_broken_model_stops_all(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def load(self: Any, engine: Any, **named: Any) -> Any:
            if await good(self, engine, **named) is not None:
                await asyncio.sleep(1.0)
                await load(self, engine, **named)

        return load

    plant(ModelPool, "load", make)
