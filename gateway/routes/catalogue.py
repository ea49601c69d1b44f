"""The list of models that are served, with their limits and current state."""

from typing import Any

from aiohttp import web
from pydantic_core import to_json

from gateway.access.keys import Caller
from gateway.bodies import responses
from gateway.ports import ModelEntry
from gateway.routes.context import Context
from gateway.routes.operations import Answer, operation
from gateway.served_models import abilities
from gateway.served_models.states import ModelState
from schema import fast


@operation(
    id="listModels",
    method="GET",
    path="/v1/models",
    tag="models",
    summary="List the models that are served",
    answers={200: Answer(description="All of them, the default first.", model=responses.ModelList)},
    problems=(429,),
)
async def list_models(context: Context, _: web.Request, __: Caller) -> web.Response:
    """GET /v1/models."""
    created_s, reports = context.started_ms // 1000, context.reports  # OpenAI's list requires a time of creation
    states = {name: await reports.state(name) for name in context.models}
    data = [
        _shown(model, reports.capabilities(name), created_s, states[name]) for name, model in context.models.items()
    ]
    return web.Response(body=to_json({"object": "list", "data": data}), content_type="application/json")


def _shown(
    model: ModelEntry, reported: fast.ModelCapabilities | None, created_s: int, now: ModelState
) -> dict[str, Any]:
    able = abilities.of(model, reported)
    most = {name: high for name, (_, high) in able.bounds.items()}
    least = {f"min_{name}": low for name, (low, _) in able.bounds.items()}
    return {
        "id": model.name,
        "object": "model",
        "created": created_s,
        "owned_by": "darkroom",
        "defaults": {
            "width": model.width,
            "height": model.height,
            "num_inference_steps": model.num_inference_steps,
            "guidance_scale": model.guidance_scale,
        },
        "limits": most | least,
        "schedulers": list(able.schedulers),
        "state": now.state,
        "reason": now.reason,
        "workers": now.workers,
        "capabilities": now.capabilities,
    }
