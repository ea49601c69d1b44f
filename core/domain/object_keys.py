"""The keys of a generation's pictures in the temporary and the public bucket, from its events. Pure."""

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
    """The key of a decided picture in the public bucket. The random token makes it unguessable."""
    return f"{won.public_token}/{won.sha256.hex()}.{_FORMATS[won.format][0]}"


def content_type(won: ImageRendered) -> str:
    """The media type of the file."""
    return _FORMATS[won.format][1]


def temp_prefix(generation_id: str) -> str:
    """The common prefix of the keys of all attempts at a generation in the temporary bucket."""
    return f"temp/{generation_id}/"


def public_keys(events: Iterable[Event]) -> list[str]:
    """Every key in the public bucket under which a picture of this stream was or may have been published."""
    keys: dict[str, None] = {}
    for event in events:
        if isinstance(event, e.ImageRendered):
            keys[public_key(event)] = None
        elif isinstance(event, e.ImagePublished):
            keys[event.public_key] = None
    return list(keys)


def temp_keys(events: Iterable[Event]) -> list[str]:
    """The temporary objects named by events. Superseded attempts may have left others under `temp_prefix`."""
    return [event.temp_key for event in events if isinstance(event, e.ImageRendered)]
