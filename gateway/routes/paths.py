"""The parameters of a request's path, checked for their form."""

import re

from aiohttp import web

from gateway import tracing
from gateway.errors import NoSuchImage, NotFound

_ID = re.compile(r"gen_[0-9a-z]{26}")


def generation(request: web.Request) -> str:
    """The generation's id. Raises NotFound for a malformed one, which is answered like an unknown one."""
    generation_id = request.match_info["generation_id"]
    if not _ID.fullmatch(generation_id):
        raise NotFound
    tracing.note_generation(generation_id)
    return generation_id


def image(request: web.Request) -> tuple[str, int]:
    """The generation's id and the image's index. Raises NotFound."""
    generation_id, index = generation(request), request.match_info["index"]
    if not (index.isascii() and index.isdecimal() and len(index) <= 2 and str(int(index)) == index):
        raise NoSuchImage
    return generation_id, int(index)
