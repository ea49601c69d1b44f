"""How models are just now, as clients are told; core's word is kept for two seconds and may be missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpclib import Status

from gateway.bodies import responses
from gateway.errors import Unavailable
from gateway.served_models.reports import KEPT_S, ModelReports
from schema import fast, pb
from tests.eventually import eventually
from tests.unit.gateway.harness import Rig, rig
from worker.holding.types import ModelState as State


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as each:
        yield each


class Asked:
    """Core, as far as it is asked for its models."""

    def __init__(self, *models: fast.ModelStatus, complete: bool = True, silent: int = 0) -> None:
        self.reply = fast.ModelsReply(models=list(models), complete=complete, silent_workers=silent)
        self.times = 0
        self.away = False
        self.held: asyncio.Event | None = None

    async def models(self) -> fast.ModelsReply:
        self.times += 1
        if self.held is not None:
            await self.held.wait()
        if self.away:
            raise Unavailable
        return self.reply


class Clock:
    now_s = 10.0

    def __call__(self) -> float:
        return self.now_s


def status(**counts: int) -> fast.ModelStatus:
    out = [
        fast.ModelOut(worker_id="w", state=pb.ModelState(state), reason=f"is {name}")
        for name, state in (("broken", State.BROKEN), ("away", State.AWAY))
        for _ in range(counts.get(name, 0))
    ]
    return fast.ModelStatus(name="m", out=out, **counts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "state", "reason"),
    [
        ({"workers": 2, "loaded": 1, "broken": 1}, "available", "is broken"),
        ({"workers": 1}, "available", None),
        ({"workers": 2, "loading": 1, "broken": 1}, "loading", "is broken"),
        ({"workers": 2, "broken": 2}, "broken", "is broken"),
        ({"workers": 2, "broken": 1, "away": 1}, "away", "is away"),
        ({"workers": 1, "away": 1}, "away", "is away"),
    ],
)
@pytest.mark.asyncio
async def test_what_can_be_done_with_a_model(counts: dict[str, int], state: str, reason: str | None) -> None:
    shown = await ModelReports(Asked(status(**counts)).models, now=Clock()).state("m")
    assert (shown.state, shown.reason, shown.workers) == (state, reason, counts["workers"])


@pytest.mark.parametrize(
    ("complete", "silent", "state"), [(True, 0, "no_worker"), (False, 0, "unknown"), (True, 1, "unknown")]
)
@pytest.mark.asyncio
async def test_what_nobody_lists(complete: bool, silent: int, state: str) -> None:
    core = Asked(complete=complete, silent=silent)
    assert (await ModelReports(core.models, now=Clock()).state("m")).state == state


@pytest.mark.asyncio
async def test_core_is_asked_once_in_two_seconds_however_many_want_to_know() -> None:
    core, clock = Asked(status(workers=1)), Clock()
    core.held = asyncio.Event()
    served = ModelReports(core.models, now=clock)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(served.state("m")) for _ in range(50)]
        await eventually(lambda: core.times == 1)
        core.held.set()
    assert {each.result().state for each in asking} == {"available"}
    assert core.times == 1
    clock.now_s += KEPT_S / 2
    core.away = True
    assert (await served.state("m")).state == "available"
    clock.now_s += KEPT_S
    assert (await served.state("m")).state == "unknown", "an old word is no word"
    assert (core.times, (await served.state("m")).state, core.times) == (2, "unknown", 2), "and not asked again at once"


@pytest.mark.asyncio
async def test_what_a_client_asked_for_bounds_submissions_and_outlives_core() -> None:
    """One answer for both: without the background's own question."""
    can = fast.ModelCapabilities(guidance="none")
    core, clock = Asked(fast.ModelStatus(name="m", workers=1, capabilities=can)), Clock()
    served = ModelReports(core.models, now=clock)
    assert served.capabilities("m") is None
    await served.state("m")
    clock.now_s += KEPT_S
    core.away = True
    assert (await served.state("m")).state == "unknown"
    assert served.capabilities("m") == can


@pytest.mark.asyncio
async def test_what_the_background_has_asked_is_not_asked_for_a_client() -> None:
    core = Asked(status(workers=1))
    served = ModelReports(core.models, now=Clock())
    watching = asyncio.create_task(served.watch())
    await eventually(lambda: core.times == 1)
    assert {(await served.state("m")).state for _ in range(10)} == {"available"}
    assert core.times == 1
    watching.cancel()


@pytest.mark.asyncio
async def test_the_list_of_models_says_how_they_are(gateway: Rig) -> None:
    can = pb.ModelCapabilities(negative_prompt=True, guidance="cfg", guidance_off=1.0, size_factor=8)
    gateway.core.models_reply = pb.ModelsReply(
        complete=True,
        models=[pb.ModelStatus(name="small", workers=1, loaded=1, capabilities=can)],
    )
    models: list[responses.Model] = []

    async def heard() -> Any:
        models[:] = responses.ModelList.model_validate((await gateway.call("GET", "/v1/models")).body).data
        return models[0].state != "unknown"

    await eventually(heard, 10)
    assert [(model.id, model.state, model.workers) for model in models] == [
        ("small", "available", 1),
        ("other", "no_worker", 0),
    ]
    assert models[0].capabilities is not None
    assert models[0].capabilities.guidance == "cfg"
    assert models[1].capabilities is None


@pytest.mark.parametrize("refusal", [Status.UNAVAILABLE, Status.UNIMPLEMENTED, Status.INTERNAL])
@pytest.mark.asyncio
async def test_the_list_comes_all_the_same_when_core_does_not_say(gateway: Rig, refusal: Status) -> None:
    gateway.core.refuse_with = refusal
    models = responses.ModelList.model_validate((await gateway.call("GET", "/v1/models")).body).data
    assert {model.state for model in models} == {"unknown"}
