"""Where the pictures of a generation lie in the two buckets, by what its events say. Pure."""

from collections.abc import Iterable
from typing import Final

from core.domain import events as e
from core.domain.events import Event, ImageRendered
from schema import pb

_FORMATS: Final = {
    int(pb.OutputFormat.PNG): ("png", "image/png"),
    int(pb.OutputFormat.WEBP): ("webp", "image/webp"),
    int(pb.OutputFormat.JPEG): ("jpg", "image/jpeg"),
}


def public_key(won: ImageRendered) -> str:
    """The key in the public bucket that a decided picture gets; the token is its secret."""
    return f"{won.public_token}/{won.sha256.hex()}.{_FORMATS[won.format][0]}"


def content_type(won: ImageRendered) -> str:
    """The media type of the file."""
    return _FORMATS[won.format][1]


def draft_prefix(generation_id: str) -> str:
    """What the keys of all attempts at a generation begin with in the temporary bucket."""
    return f"temp/{generation_id}/"


def public_keys(events: Iterable[Event]) -> list[str]:
    """Every key in the public bucket that a copy of a picture of this stream may ever have got."""
    keys: dict[str, None] = {}
    for event in events:
        if isinstance(event, e.ImageRendered):
            keys[public_key(event)] = None
        elif isinstance(event, e.ImagePublished):
            keys[event.public_key] = None
    return list(keys)


def draft_keys(events: Iterable[Event]) -> list[str]:
    """The temporary objects that the stream names; attempts that lost have left others under `draft_prefix`."""
    return [event.temp_key for event in events if isinstance(event, e.ImageRendered)]
