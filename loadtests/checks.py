"""What a client asks for under load, and the checks of what it gets. Pure: no HTTP, no Locust, no clock.

`Wrong` carries a reason without ids, so that a report can group equal failures.
"""

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

SIZES = ((64, 64), (128, 128), (128, 192), (256, 256), (256, 256), (256, 128), (384, 256), (512, 512))
"""Mixed, so that batches form by size; the commonest twice."""
FORMATS = ("png", "png", "webp", "jpeg")
_PIL_NAMES = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
_ORDER = {"queued": 0, "running": 1, "succeeded": 2, "failed": 2, "cancelled": 2, "expired": 2}
_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
_SHAPES = ("circle", "square", "triangle", "star")
_SEED_MODULUS = 2**32

Body = Mapping[str, Any]
ReadDrawn = Callable[[bytes], tuple[str, int, int]]
"""Reads (generation id, index, seed) out of the file of a picture that the emulated GPU drew, or raises ValueError."""


class Wrong(Exception):
    """An answer or a picture is not what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A generation that was answered with 202, and what was asked for."""

    id: str
    asked: Body
    location: str


def random_body(rng: random.Random) -> dict[str, Any]:
    """A request that every model with sides of 512 px accepts."""
    width, height = rng.choice(SIZES)
    return {
        "prompt": f"a large {rng.choice(_COLOURS)} {rng.choice(_SHAPES)} on a white background",
        "width": width,
        "height": height,
        "num_inference_steps": rng.choice((4, 8)),
        "seed": rng.randrange(_SEED_MODULUS),
        "n": rng.choice((1, 1, 1, 2, 3)),
        "output_format": rng.choice(FORMATS),
    }


def accepted(asked: Body, status: int, headers: Mapping[str, str], content: bytes) -> Accepted:
    """Parses a 202. Raises Wrong for another status, or if the answer lacks what a client needs next."""
    if status != 202:
        raise Wrong(problem(status, content))
    body = parse(content)
    generation_id, location = str(body.get("id", "")), headers.get("Location") or ""
    if not generation_id.startswith("gen_"):
        raise Wrong("202 without a generation id")
    if not location.endswith(f"/v1/generations/{generation_id}"):
        raise Wrong("202 without the generation's Location")
    if retry_after(headers) is None:
        raise Wrong("202 without Retry-After")
    same_spec(asked, body)
    return Accepted(id=generation_id, asked=asked, location=location)


def same_spec(asked: Body, body: Body) -> None:
    """Checks that the generation repeats every field of the request. Raises Wrong that names the field."""
    for name, value in asked.items():
        if body.get(name) != value:
            raise Wrong(f"{name} came back different")


def still_forward(before: str, body: Body) -> str:
    """The status now. Raises Wrong for one that is unknown or went back."""
    now = str(body.get("status"))
    if now not in _ORDER:
        raise Wrong(f"unknown status {now!r}")
    if _ORDER[now] < _ORDER[before] or (ended(before) and now != before):
        raise Wrong(f"status went back from {before} to {now}")
    return now


def ended(status: str) -> bool:
    """Whether nothing more will happen to the generation."""
    return _ORDER[status] == 2


def picture_links(generation: Accepted, body: Body) -> list[str]:
    """The stable links of a succeeded generation's images, by index. Raises Wrong when one is missing."""
    images = body.get("images") or []
    if [image.get("index") for image in images] != list(range(generation.asked["n"])):
        raise Wrong("succeeded without all of its images")
    links = [image.get("url") for image in images]
    if not all(isinstance(link, str) and link for link in links):
        raise Wrong("a published image has no link")
    return links


def picture(generation: Accepted, index: int, content: bytes, read_drawn: ReadDrawn | None) -> None:
    """Checks that `content` has the requested format and size and, on an emulated GPU, is this very image.

    Raises Wrong.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (UnidentifiedImageError, OSError):
        raise Wrong("the picture does not decode") from None
    asked = generation.asked
    if image.format != _PIL_NAMES[asked["output_format"]]:
        raise Wrong(f"a {asked['output_format']} was asked for, {image.format} came")
    if image.size != (asked["width"], asked["height"]):
        raise Wrong(f"{asked['width']}x{asked['height']} was asked for, {image.width}x{image.height} came")
    if read_drawn is None:
        return
    try:
        drawn = read_drawn(content)
    except ValueError as error:
        raise Wrong(f"the drawn picture cannot be read: {error}") from None
    wanted = (generation.id, index, (asked["seed"] + index) % _SEED_MODULUS)
    for name, want, got in zip(("generation", "index", "seed"), wanted, drawn, strict=True):
        if want != got:
            raise Wrong(f"the picture is of another {name}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None when it does not say."""
    text = headers.get("Retry-After")
    return float(text) if text is not None and text.isdigit() else None


def back_off(attempt: int, asked_s: float | None, rng: random.Random, *, cap_s: float = 5.0) -> float:
    """Seconds until the next poll: doubling from 0.1 s with jitter, or `asked_s` if that is more; at most `cap_s`."""
    own = min(cap_s, 0.1 * float(2**attempt)) * rng.uniform(0.5, 1.0)
    return max(own, min(asked_s or 0.0, cap_s))


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object in an answer. Raises Wrong."""
    try:
        value = json.loads(content)
    except ValueError:
        raise Wrong("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise Wrong("the answer is no JSON object")
    return value


def problem(status: int, content: bytes) -> str:
    """One line for an unexpected answer: its status, and the title of its problem+json."""
    if status == 0:
        return "no answer"
    try:
        title = str(parse(content).get("title", ""))
    except Wrong:
        title = ""
    return f"answered {status} {title}".strip()
