"""The images of a generation: by a stable link that needs a key, or by a signed URL that needs no header."""

from dataclasses import dataclass

import structlog
from aiohttp import web

from gateway import errors
from gateway.access.keys import Caller
from gateway.bodies import views
from gateway.pictures import ranges, signing
from gateway.pictures.sending import Missing, Picture
from gateway.routes import paths
from gateway.routes.context import Context
from gateway.routes.generations import ID_PARAMETER
from gateway.routes.operations import Answer, Parameter, operation
from schema import fast, limits, pb

_log = structlog.get_logger()
_YEAR_S = 31_536_000
_TYPES = ("application/octet-stream", "image/png", "image/webp", "image/jpeg")
"""By the number of the output format."""
_ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Vary": "Authorization",
}
_HEADERS = {
    "ETag": "The SHA-256 of the picture; strong.",
    "Accept-Ranges": "`bytes`.",
    "Content-Disposition": "With a name to save it under.",
    "Cache-Control": "A picture never changes. By a signed URL it may be kept until the URL expires.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An image that can be fetched."""

    picture: Picture
    size: int
    content_type: str
    name: str

    @property
    def tag(self) -> str:
        return f'"{self.picture.sha256.hex()}"'


@operation(
    id="getImage",
    method="GET",
    path="/v1/generations/{generation_id}/images/{index}",
    tag="generations",
    summary="Fetch an image",
    description="Two ways lead here. `images[].url` never changes and needs the API key. `images[].signed_url` needs "
    "no header, so that it can be used in a page or passed on; it ends at `signed_url_expires_at`, and its holder "
    "may fetch this one image until then. An `Authorization` that comes with it is not looked at. HEAD, one byte range "
    "and conditions are answered. Where the operator has chosen redirects, GET answers 302 to the store: follow it "
    "without the key, and do not keep it.",
    answers={
        200: Answer(description="The picture.", content_types=_TYPES[1:], headers=_HEADERS),
        206: Answer(
            description="The range that was asked for.",
            content_types=_TYPES[1:],
            headers={**_HEADERS, "Content-Range": "Which bytes these are."},
        ),
        302: Answer(
            description="Only where `DARKROOM_GATEWAY_IMAGES=redirect`: to the picture at the store.",
            headers={"Location": "A signed link to the file, valid for some minutes."},
        ),
        304: Answer(description="The client has the picture.", headers={"ETag": _HEADERS["ETag"]}),
    },
    problems=(403, 404, 409, 410, 412, 416, 429, 502, 503),
    parameters=(
        ID_PARAMETER,
        Parameter(
            name="index",
            where="path",
            description="Which image, from 0.",
            schema={"type": "integer", "minimum": 0, "maximum": limits.MAX_IMAGES - 1},
        ),
        Parameter(
            name=signing.EXPIRES,
            where="query",
            description="Of a signed URL: when it ends, in seconds of Unix time.",
        ),
        Parameter(
            name=signing.SIGNATURE,
            where="query",
            description="Of a signed URL: take it as it is.",
            schema={"type": "string", "pattern": r"^[0-9a-f]{8}\.[A-Za-z0-9_-]{43,140}$"},
        ),
        Parameter(name="Range", where="header", description="One range of bytes, such as `bytes=0-1023`."),
        Parameter(name="If-Range", where="header", description="Send the range only if this is still the ETag."),
        Parameter(name="If-None-Match", where="header", description="ETags that the client holds."),
    ),
    signed=True,
)
async def get(context: Context, request: web.Request, caller: Caller) -> web.StreamResponse:
    """GET /v1/generations/{generation_id}/images/{index}."""
    generation_id, index = paths.image(request)
    found = _found(await context.core.get(caller.tenant, generation_id), index)
    headers = _headers(found, caller, context.wall_ms())
    if ranges.unchanged(request.headers, found.tag):
        return web.Response(status=304, headers={name: headers[name] for name in ("ETag", "Cache-Control", "Vary")})
    if context.pictures.redirect_s and request.method == "GET":
        location = await context.pictures.link(found.picture.key)
        return web.Response(status=302, headers={**_ALWAYS, "Location": location, "Cache-Control": "private, no-store"})
    part = ranges.wanted(request.headers, found.tag, found.size, method=request.method)
    response = web.StreamResponse(status=200 if part.whole else 206, headers=headers)
    response.content_length = part.length
    if not part.whole:
        response.headers["Content-Range"] = f"bytes {part.first}-{part.last}/{part.size}"
    if request.method == "HEAD":
        return response
    try:
        return await context.pictures.send(request, response, found.picture, part, tenant=caller.tenant)
    except Missing:
        _found(await context.core.get(caller.tenant, generation_id), index)  # raises Gone if it was erased meanwhile
        _log.error("picture.missing", generation_id=generation_id, index=index)
        raise errors.Unavailable(
            "The picture store does not have the picture at the moment.", retry_after_s=5
        ) from None


def published(view: fast.GenerationView, index: int) -> fast.ImageView:
    """The image, if it can be fetched. Raises NoSuchImage, NotReady or Gone."""
    image = next((each for each in view.images if each.index == index), None)
    if image is None:
        raise errors.NoSuchImage
    if views.without_images(view):
        state = "erased" if view.erased else views.status_name(view)
        raise errors.Gone(f"The generation is {state}.")
    if image.status == pb.ImageStatus.PUBLISHED:
        return image
    if image.status == pb.ImageStatus.FAILED or views.has_ended(view):
        raise errors.Gone("This image could not be made.")
    raise errors.NotReady(retry_after_s=1)


def _found(view: fast.GenerationView, index: int) -> _Found:
    image = published(view, index)
    number = view.spec.output_format
    known = 0 < number < len(_TYPES)
    ending = views.FORMATS[number] if known else "bin"
    if image.size_bytes <= 0:
        raise errors.Broken("a published image without a size")
    return _Found(
        picture=Picture(key=image.public_key, sha256=image.sha256),
        size=image.size_bytes,
        content_type=_TYPES[number if known else 0],
        name=f"darkroom-{view.generation_id}-{index}.{ending}",
    )


def _headers(found: _Found, caller: Caller, now_ms: int) -> dict[str, str]:
    """The answer's headers. Pages of any origin may embed a signed URL, and only the gateway's own the stable link."""
    left_s = max(0, caller.until_s - now_ms // 1000)
    return {
        **_ALWAYS,
        "ETag": found.tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={left_s if caller.until_s else _YEAR_S}, immutable",
        "Content-Type": found.content_type,
        "Content-Disposition": f'inline; filename="{found.name}"',
        "Cross-Origin-Resource-Policy": "cross-origin" if caller.until_s else "same-origin",
    }
