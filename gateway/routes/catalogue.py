"""Which models are served."""

from typing import Any

from aiohttp import web
from pydantic_core import to_json

from gateway import abilities
from gateway.context import Context
from gateway.keys import Caller
from gateway.models import responses
from gateway.operations import Answer, operation
from gateway.ports import Model


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
    data = [_shown(model, context.started_ms // 1000) for model in context.models.values()]
    return web.Response(body=to_json({"object": "list", "data": data}), content_type="application/json")


def _shown(model: Model, created_s: int) -> dict[str, Any]:
    able = abilities.of(model)
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
    }
