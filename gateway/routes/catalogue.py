"""Which models are served."""

from aiohttp import web
from pydantic_core import to_json

from gateway.context import Context
from gateway.keys import Caller
from gateway.models import responses
from gateway.operations import Answer, operation


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
    data = [
        {
            "id": model.name,
            "object": "model",
            "created": context.started_ms // 1000,
            "owned_by": "darkroom",
            "defaults": {
                "width": model.width,
                "height": model.height,
                "num_inference_steps": model.num_inference_steps,
                "guidance_scale": model.guidance_scale,
            },
            "limits": {"width": model.max_width, "height": model.max_height},
        }
        for model in context.models.values()
    ]
    return web.Response(body=to_json({"object": "list", "data": data}), content_type="application/json")
