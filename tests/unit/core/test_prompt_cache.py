"""Prompts are in memory while their generation is open, and no longer."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest

from core.domain.events import Prompts
from core.domain.records import PromptRow
from core.domain.state import Ending, begin
from core.domain.transaction import Change
from core.ports import Projection
from core.runtime.prompt_cache import PromptCache
from tests.core_events import requested
from tests.eventually import eventually

pytestmark = pytest.mark.asyncio
CATS = Prompts(prompt="two cats", negative_prompt="")


class SlowLog:
    """Reads that last until `answer` is set."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.reads = 0

    async def prompts(self, generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
        self.reads += 1
        await self.answer.wait()
        return {each: PromptRow(generation_id=each, salt=b"", prompts=CATS) for each in generation_ids}


def rig() -> tuple[PromptCache, SlowLog]:
    log = SlowLog()
    return PromptCache(cast("Projection", log), kept=10), log


def ended(generation_id: str) -> Change:
    before = begin(generation_id, requested())
    return before, replace(before, ending=Ending.CANCELLED)


async def test_what_ends_while_it_is_read_is_not_kept() -> None:
    cache, log = rig()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(cache.of_open(["a", "b"]))
        second = group.create_task(cache.of_open(["b"]))
        await eventually(lambda: log.reads == 2)
        cache.on_changes([ended("a")])
        log.answer.set()
    assert first.result().keys() == {"a", "b"}
    assert second.result().keys() == {"b"}
    await cache.of_open(["b"])
    assert log.reads == 2, "b is open and in memory"
    await cache.of_open(["a"])
    assert log.reads == 3, "a has ended and is in memory no more"
