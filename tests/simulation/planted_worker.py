"""Bugs of the worker; `planted` says what for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import worker.engines.emulated
import worker.output.uploader
from tests.simulation.planted import Plant, background, bug
from worker import messages as words
from worker.engines.emulated import EmulatedEngine
from worker.gpu.still_wanted import StillWantedCheck
from worker.holding.types import Uploaded
from worker.holding.window import Window
from worker.output.call_batching import CallBatcher
from worker.output.delivery import Delivery
from worker.output.settling import Settler


@bug
def the_worker_deletes_before_it_replies(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def settle(self: Any, item: Any) -> Any:
            await self._deletions.submit_all(list(self._held(item).receipts.values()))
            return await good(self, item)

        return settle

    plant(Settler, "settle", make)


@bug
def a_failure_answers_for_newer_dispatches(plant: Plant) -> None:
    """It did: core had sent the image again, and heard of the older dispatch only."""

    def make(good: Any) -> Any:
        def settle(self: Any, held: Any, *, picture: bool) -> Any:
            return good(self, held, picture=True)

        return settle

    plant(Window, "settle", make)


@bug
def the_gpu_does_not_wait_for_started(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def started(self: Any, batch: Any) -> None:
            background(good(self, batch))

        return started

    plant(Settler, "started", make)


@bug
def the_worker_ignores_failed_entries(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def init(self: Any, context: Any, name: str, flush: Any) -> None:
            async def careless(items: Sequence[Any]) -> list[bool]:
                await flush(items)
                return [True] * len(items)

            good(self, context, name, careless)

        return init

    plant(CallBatcher, "__init__", make)


@bug
def the_worker_renders_what_nobody_wants(plant: Plant) -> None:
    async def keep(*_: Any) -> None:
        pass

    plant(StillWantedCheck, "_drop", lambda _: keep)


@bug
def pictures_are_swapped_within_a_batch(plant: Plant) -> None:
    def make(good: Any) -> Any:
        def step(self: Any, report: Any) -> Any:
            stepped = good(self, report)
            done = list(stepped.finished)
            turned = [replace(each, result=other.result) for each, other in zip(done, done[1:] + done[:1], strict=True)]
            return replace(stepped, finished=turned)

        return step

    plant(EmulatedEngine, "step", make)


@bug
def the_seed_is_not_the_asked_one(plant: Plant) -> None:
    def make(good: Any) -> Any:
        return lambda generation_id, index, seed, *size: good(generation_id, index, seed & ~1, *size)

    plant(worker.engines.emulated, "draw", make)


@bug
def the_worker_replies_without_uploading(plant: Plant) -> None:
    def make(_: Any) -> Any:
        async def uploaded(self: Any, encoded: Any) -> None:
            await self._settle.put(
                Uploaded(
                    held=encoded.held,
                    origin=encoded.origin,
                    key=words.temp_key(encoded.held),
                    sha256=encoded.sha256,
                    size_bytes=len(encoded.data),
                    encode_s=encoded.encode_s,
                    upload_s=0.0,
                )
            )

        return uploaded

    plant(Delivery, "_run_upload", make)


@bug
def the_worker_tries_an_upload_once(plant: Plant) -> None:
    def make(good: Any) -> Any:
        async def once(call: Any, **named: Any) -> Any:
            return await good(call, **{**named, "attempts": 1})

        return once

    plant(worker.output.uploader, "retry", make)
