"""A whole worker whose model is on a foreign server: overloaded, misnamed, away, broken by a picture, refusing one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from schema import fast, pb
from tests.eventually import eventually
from tests.images_standin import Seen, standin
from tests.unit.worker.rig import MODEL, Rig, job, running, send_again, some
from worker.engines.base import Bounds
from worker.engines.emulated import EmulatedEngine
from worker.engines.http.calls import ModelServer, Patience
from worker.engines.http.engine import HttpEngine

F = pb.AttemptFailure
LOCAL = "local"


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Rig, Seen]]:
    """The remote model is the default one; a local one is served beside it. What is given back is sent again."""
    with standin() as (base, seen):
        engine = HttpEngine(
            MODEL,
            ModelServer(base=base),
            patience=Patience(timeout_s=30.0, attempts=2, first_wait_s=0.01, beat_s=0.05),
            rng=lambda: 0.1,
        )
        local = EmulatedEngine(model=LOCAL, step_s=0.001, alpha=0.3, max_batch=4, bounds=Bounds.square(512))
        rig = Rig(cast("Any", engine), drain_s=20.0, models_loaded=2)
        rig.rebuild(engines={MODEL: engine, LOCAL: local})
        try:
            async with running(rig), asyncio.TaskGroup() as group:
                sending = group.create_task(send_again(rig))
                yield rig, seen
                sending.cancel()
        finally:
            await asyncio.to_thread(engine.unload)


def forbidden(name: str, prompt: str) -> fast.ImageJob:
    made = job(name)
    made.prompts.prompt = prompt
    return made


def final(rig: Rig) -> dict[str, int]:
    """Failures that are not to be sent again."""
    return {name: failure for name, failure in rig.failed().items() if failure != F.MODEL_AWAY}


@pytest.mark.parametrize("status", [503, 404, 403, 401])
@pytest.mark.asyncio
async def test_a_server_that_answers_nobody_is_out_alone_and_loses_no_picture(status: int) -> None:
    async with serving() as (rig, seen):
        seen.answer = status
        await rig.send(*some(range(3)))
        await eventually(lambda: len(rig.failed()) == 3, 60, what="all three are given back")
        await rig.send(*(job(f"l{number}", model=LOCAL) for number in range(20)))
        await eventually(lambda: len(rig.rendered()) == 20, 30, what="the local model goes on")
        assert rig.worker.health.reasons() == []
        seen.answer = 0
        await eventually(lambda: len(rig.rendered()) == 23, 60)
        await rig.idle()
        assert not final(rig)


@pytest.mark.asyncio
async def test_a_server_that_is_gone_is_out_alone_and_found_again() -> None:
    async with serving() as (rig, seen):
        seen.healthy = False
        await rig.send(*some(range(3)), *(job(f"l{number}", model=LOCAL) for number in range(20)))
        await eventually(lambda: len(rig.rendered()) == 20, 30)
        seen.healthy = True
        await eventually(lambda: len(rig.rendered()) == 23, 60)
        assert not final(rig)


@pytest.mark.parametrize("prompt", ["fault:status=403", "fault:status=451", "fault:redirect", "fault:later=3600"])
@pytest.mark.asyncio
async def test_what_is_refused_for_one_prompt_fails_alone_and_all_others_are_rendered(prompt: str) -> None:
    async with serving() as (rig, seen):
        await rig.send(*some(range(8)), forbidden("bad", prompt), *some(range(8, 16)))
        await eventually(lambda: len(rig.rendered()) == 16, 60)
        if "later" in prompt:  # bounded by a minute: here it is only seen to wait alone
            assert rig.failed() == {"gbad": F.MODEL_AWAY}
            return
        await eventually(lambda: "gbad" in final(rig), 60)
        status = prompt.removeprefix("fault:").removeprefix("status=").replace("redirect", "302")
        (said,) = [each for each in rig.of(fast.ImageAttemptFailed) if int(each.failure) == F.REFUSED]
        assert said.detail == f"the model server answered {status}"
        assert seen.bodies


@pytest.mark.asyncio
async def test_more_forbidden_prompts_than_a_batch_holds_stop_nobody() -> None:
    """They come first, and no picture has been given yet."""
    async with serving() as (rig, _):
        await rig.send(*(forbidden(f"bad{number}", "fault:status=403") for number in range(12)))
        await eventually(lambda: len(rig.failed()) == 12, 60)
        await rig.send(*some(range(12)))
        await eventually(lambda: len(rig.rendered()) == 12, 120)


@pytest.mark.asyncio
async def test_a_picture_that_breaks_the_connection_fails_alone() -> None:
    async with serving() as (rig, _):
        await rig.send(*some(range(3)), forbidden("bad", "fault:reset"))
        await eventually(lambda: len(rig.rendered()) == 3 and bool(final(rig)), 60)
        assert final(rig) == {"gbad": int(F.BAD_OUTPUT)}
        await rig.idle()
