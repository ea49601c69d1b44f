"""The images of a generation: a link that stays the same leads to a signed one that does not."""

from aiohttp import web

from gateway import errors, views
from gateway.context import Context
from gateway.keys import Caller
from gateway.operations import Answer, Parameter, operation
from gateway.routes.generations import ID_PARAMETER, known_form
from infra.retry import Permanent
from schema import limits, pb

_REDIRECT = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}


@operation(
    id="getImage",
    method="GET",
    path="/v1/generations/{generation_id}/images/{index}",
    tag="generations",
    summary="Fetch an image",
    description="Redirects to a link that needs no key and is valid for some minutes only: follow it, do not keep it.",
    answers={302: Answer(description="To the picture.", headers={"Location": "A signed link to the file."})},
    problems=(404, 409, 410, 429, 503),
    parameters=(
        ID_PARAMETER,
        Parameter(
            name="index",
            where="path",
            description="Which image, from 0.",
            schema={"type": "integer", "minimum": 0, "maximum": limits.MAX_IMAGES - 1},
        ),
    ),
)
async def get(context: Context, request: web.Request, caller: Caller) -> web.Response:
    """GET /v1/generations/{generation_id}/images/{index}."""
    generation_id = known_form(request.match_info["generation_id"])
    index = request.match_info["index"]
    if not (index.isascii() and index.isdecimal() and len(index) <= 2 and str(int(index)) == index):
        raise errors.NotFound
    view = await context.core.get(caller.tenant, generation_id)
    image = published(view, int(index))
    try:
        link = await context.links.link(image.public_key, expires_s=context.link_s)
    except Permanent as error:
        raise errors.Broken("no link could be made") from error
    return web.Response(status=302, headers={"Location": link, **_REDIRECT})


def published(view: pb.GenerationView, index: int) -> pb.ImageView:
    """The image, if it can be had. Raises NotFound, NotReady or Gone."""
    image = next((each for each in view.images if each.index == index), None)
    if image is None:
        raise errors.NotFound
    if views.without_images(view):
        state = "erased" if view.erased else views.status_name(view)
        raise errors.Gone(f"The generation is {state}.")
    if image.status == pb.ImageStatus.PUBLISHED:
        return image
    if image.status == pb.ImageStatus.FAILED or views.has_ended(view):
        raise errors.Gone("This image could not be made.")
    raise errors.NotReady(retry_after_s=1)
