"""Each model's own bounds and schedulers, and integers however JSON writes them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.bodies import responses
from schema import pb, schedulers
from tests.eventually import eventually
from tests.unit.gateway.harness import BOUNDED, MODELS, PROMPT, Rig, rig

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, models_text=MODELS + BOUNDED) as each:
        yield each


async def raw(gateway: Rig, field: str, text: str, **headers: str) -> Any:
    """POST with `text` as it stands for the field's value."""
    body = f'{{"prompt": {json.dumps(PROMPT)}, "model": "other", "{field}": {text}}}'.encode()
    return await gateway.call("POST", "/v1/generations", body, headers)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("width", "256.0", 256),
        ("height", "2.56e2", 256),
        ("num_inference_steps", "1e2", 100),
        ("seed", "4294967295.0", 2**32 - 1),
        ("seed", "-0.0", 0),
        ("n", "2.0", 2),
        ("priority", "-3.0", -3),
        ("ttl_s", "6.048e5", 604_800),
    ],
)
async def test_a_number_without_a_fraction_is_an_integer(gateway: Rig, field: str, text: str, value: int) -> None:
    answer = await raw(gateway, field, text)
    assert answer.status == 202, answer.raw
    assert answer.body[field] == value
    assert isinstance(answer.body[field], int)


@pytest.mark.asyncio
@pytest.mark.parametrize("field", ["width", "height", "num_inference_steps", "seed", "n", "priority", "ttl_s"])
async def test_nothing_else_is_one(gateway: Rig, field: str) -> None:
    for text in ("64.5", "true", '"64"', "[64]", "{}", "1e400", "-1e400", "1e300", "4294967296.0", "64.00000001"):
        problem = (await raw(gateway, field, text)).problem(422)
        assert [error["field"] for error in problem["errors"]] == [field], (text, problem)


@pytest.mark.asyncio
async def test_one_idempotency_key_takes_both_ways_of_writing_an_integer(gateway: Rig) -> None:
    first = await raw(gateway, "width", "256", **{"Idempotency-Key": "once"})
    again = await raw(gateway, "width", "256.0", **{"Idempotency-Key": "once"})
    assert (again.status, again.body["id"]) == (202, first.body["id"])
    (await raw(gateway, "width", "264.0", **{"Idempotency-Key": "once"})).problem(422)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("num_inference_steps", 51, "at most 50"),
        ("num_inference_steps", 1, "at least 2"),
        ("guidance_scale", 2.5, "at most 2"),
        ("guidance_scale", 0.5, "at least 1"),
        ("width", 120, "at least 128"),
        ("width", 520, "at most 512"),
        ("height", 184, "at least 192"),
    ],
)
async def test_beyond_a_bound_of_the_model_is_refused(gateway: Rig, field: str, value: float, bound: str) -> None:
    problem = (
        await gateway.call("POST", "/v1/generations", {"prompt": PROMPT, "model": "bounded", field: value})
    ).problem(422)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert bound in problem["detail"]
    assert not gateway.core.stored


@pytest.mark.asyncio
async def test_on_the_bound_is_accepted_and_all_that_are_broken_are_named_at_once(gateway: Rig) -> None:
    most = {"num_inference_steps": 50, "guidance_scale": 2.0, "width": 512, "height": 512}
    least = {"num_inference_steps": 2, "guidance_scale": 1.0, "width": 128, "height": 192}
    for fields in (most, least):
        answer = await gateway.call("POST", "/v1/generations", {"prompt": PROMPT, "model": "bounded", **fields})
        assert answer.status == 202
    beyond: dict[str, Any] = {"num_inference_steps": 150, "guidance_scale": 9, "width": 64, "scheduler": "best"}
    problem = (await gateway.submit(model="bounded", **beyond)).problem(422)
    assert {error["field"] for error in problem["errors"]} == set(beyond)


@pytest.mark.asyncio
async def test_a_scheduler_reaches_core_and_stands_in_the_body(gateway: Rig) -> None:
    answer = await gateway.submit(model="bounded", scheduler="euler")
    assert (answer.status, answer.body["scheduler"]) == (202, "euler")
    item = next(iter(gateway.core.stored.values())).item
    assert item.spec.scheduler == "euler"
    assert (await gateway.call("GET", answer.headers["Location"])).body["scheduler"] == "euler"
    assert (await gateway.submit()).body["scheduler"] is None
    assert (await gateway.submit(scheduler=None)).body["scheduler"] is None


@pytest.mark.asyncio
async def test_a_scheduler_is_a_part_of_what_an_idempotency_key_stands_for(gateway: Rig) -> None:
    key = {"Idempotency-Key": "once"}
    await gateway.submit(key, scheduler="euler")
    (await gateway.submit(key, scheduler="ddim")).problem(422)
    (await gateway.submit(key)).problem(422)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["", "Euler", "EulerDiscreteScheduler", "best", "euler ", "../x", 7])
async def test_an_unknown_scheduler_is_refused_with_those_that_are_known(gateway: Rig, name: object) -> None:
    problem = (await gateway.submit(model="bounded", scheduler=name)).problem(422)
    assert problem["error"]["param"] == "scheduler"
    if isinstance(name, str):
        assert all(known in problem["detail"] for known in schedulers.NAMES)


@pytest.mark.asyncio
async def test_a_server_that_takes_no_scheduler_is_given_none(gateway: Rig) -> None:
    problem = (await gateway.submit(model="elsewhere", scheduler="euler")).problem(422)
    assert "cannot be chosen" in problem["detail"]


@pytest_asyncio.fixture
async def told(tmp_path: Path) -> AsyncIterator[Rig]:
    """Workers have told of `bounded` that it is distilled, of `small` that it has embedded guidance, of `other` cfg."""
    able = {
        "bounded": pb.ModelCapabilities(guidance="none", size_factor=16, schedulers=["flow_euler"], max_steps=8),
        "small": pb.ModelCapabilities(guidance="embedded", schedulers=["flow_euler"], max_width=256),
        "other": pb.ModelCapabilities(guidance="cfg", guidance_off=1.0, negative_prompt=True, schedulers=["ddim"]),
    }
    async with rig(tmp_path, models_text=MODELS + BOUNDED) as gateway:
        gateway.core.models_reply = pb.ModelsReply(
            models=[pb.ModelStatus(name=name, workers=1, capabilities=can) for name, can in able.items()]
        )

        async def heard() -> Any:
            shown = (await gateway.call("GET", "/v1/models")).body["data"]
            return all(model["schedulers"] == able[model["id"]].schedulers for model in shown if model["id"] in able)

        await eventually(heard, 10, what="the gateway has heard of the models")
        yield gateway


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        ("bounded", {"negative_prompt": "grey"}, "not taken"),
        ("bounded", {"guidance_scale": 1.75}, "no effect"),
        ("bounded", {"scheduler": "euler"}, "flow_euler"),
        ("bounded", {"num_inference_steps": 9}, "at most 8"),
        ("small", {"negative_prompt": "grey"}, "not taken"),
        ("small", {"width": 264}, "at most 256"),
        ("other", {"scheduler": "flow_euler"}, "one of ddim "),
    ],
)
async def test_what_the_model_cannot_do_is_refused_with_what_it_can(
    told: Rig, model: str, fields: dict[str, Any], said: str
) -> None:
    answer = await told.call("POST", "/v1/generations", {"prompt": PROMPT, "model": model, **fields})
    problem = answer.problem(422)
    assert [error["field"] for error in problem["errors"]] == list(fields)
    assert said in problem["detail"]
    assert not told.core.stored


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("bounded", {}),
        ("bounded", {"guidance_scale": 1, "scheduler": "flow_euler", "num_inference_steps": 8, "negative_prompt": ""}),
        ("bounded", {"guidance_scale": 1.5}),
        ("small", {"guidance_scale": 30}),
        ("other", {"negative_prompt": "grey", "guidance_scale": 1, "scheduler": "ddim"}),
        ("elsewhere", {"negative_prompt": "grey", "guidance_scale": 9}),
    ],
)
async def test_what_it_can_or_what_nobody_knows_is_accepted(told: Rig, model: str, fields: dict[str, Any]) -> None:
    answer = await told.call("POST", "/v1/generations", {"prompt": PROMPT, "model": model, **fields})
    assert answer.status == 202, answer.raw


@pytest.mark.asyncio
async def test_what_workers_told_is_listed_and_outlives_their_silence(told: Rig) -> None:
    async def shown() -> dict[str, responses.Model]:
        body = (await told.call("GET", "/v1/models")).body
        return {model.id: model for model in responses.ModelList.model_validate(body).data}

    before = await shown()
    assert (before["bounded"].limits.num_inference_steps, before["small"].limits.width) == (8, 256)
    assert (before["bounded"].schedulers, before["other"].schedulers) == (["flow_euler"], ["ddim"])
    can = {name: model.capabilities for name, model in before.items()}
    assert can["elsewhere"] is None
    assert can["other"] is not None
    assert (can["other"].guidance, can["other"].guidance_off, can["other"].negative_prompt) == ("cfg", 1.0, True)
    asked = told.core.models_asked
    told.core.models_reply = pb.ModelsReply()

    async def asked_again() -> Any:
        return told.core.models_asked > asked + 2

    await eventually(asked_again, 15, what="core has been asked since")
    assert {name: (model.limits, model.schedulers) for name, model in (await shown()).items()} == {
        name: (model.limits, model.schedulers) for name, model in before.items()
    }


@pytest.mark.asyncio
async def test_the_list_of_models_tells_bounds_and_schedulers(gateway: Rig) -> None:
    answer = await gateway.call("GET", "/v1/models")
    shown = {model.id: model for model in responses.ModelList.model_validate(answer.body).data}
    limits = shown["bounded"].limits
    assert (limits.min_width, limits.width, limits.min_height, limits.height) == (128, 512, 192, 512)
    assert (limits.min_num_inference_steps, limits.num_inference_steps) == (2, 50)
    assert (limits.min_guidance_scale, limits.guidance_scale) == (1.0, 2.0)
    assert shown["bounded"].schedulers == list(schedulers.NAMES)
    assert shown["elsewhere"].schedulers == []
    assert (shown["small"].limits.num_inference_steps, shown["small"].limits.guidance_scale) == (150, 30.0)
