"""The checker: reads a picture of the demo world, and says what a prompt asks for, so that tests can compare them.

The background is read from the border, the figure's colour from the pixels that differ most from it, size and position
from the bounding box, and the shape by overlap with rotated templates. Needs numpy and Pillow only, no model.
"""

import functools
import io
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worker.demo_model import captions, world

_TEMPLATE: Final = 48  # side of the template grid
_TURNS: Final = range(-12, 13, 4)  # degrees
_LEAST_OVERLAP: Final = 0.6  # below it the figure is no shape of this world
_LEAST_CONTRAST: Final = 40.0  # RGB distance below which nothing stands out from the ground
_LEAST_SIDE: Final = 0.1  # of the picture's side; a smaller figure is a speck

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a picture shows; None where it cannot be read. `overlap` (0…1) is how well the best template fits."""

    shape: str | None
    colour: str | None
    background: str | None
    size: str | None
    position: str | None
    overlap: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a prompt asks for; None where anything is right."""

    shape: str | None
    colour: str | None
    background: str | None
    size: str | None
    position: str | None

    def misses(self, reading: Reading) -> tuple[str, ...]:
        """The attributes in which a picture is not what was asked for; empty if it is right."""
        return tuple(
            name
            for name in world.ATTRIBUTES
            if getattr(self, name) is not None and getattr(self, name) != getattr(reading, name)
        )


def expected(scene: world.Scene) -> Expected:
    """What a right picture of a scene shows."""
    return Expected(**{name: getattr(scene, name) for name in world.ATTRIBUTES})


def read_picture(encoded: bytes) -> Reading:
    """Read an encoded picture (PNG, JPEG, WebP, …)."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return read_image(picture)


def read_image(picture: Image.Image) -> Reading:
    """Read a picture of any size; one that is not square is taken as it is."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    ground = _ground(pixels)
    distance = np.linalg.norm(pixels - ground, axis=2)
    background = _nearest(ground, world.BACKGROUNDS)
    strongest = float(np.percentile(distance, 99.5))
    if strongest < _LEAST_CONTRAST:
        return Reading(shape=None, colour=None, background=background, size=None, position=None)
    figure = np.median(pixels[distance > 0.75 * strongest], axis=0)
    colour = _nearest(figure, world.COLOURS)
    mask = _covered(pixels, ground, figure)
    box = _bounding_box(mask)
    if box is None:
        return Reading(shape=None, colour=colour, background=background, size=None, position=None)
    size = _size(box, pixels.shape[0])
    shape, overlap = _shape(mask, box)
    return Reading(
        shape=shape if overlap >= _LEAST_OVERLAP else None,
        colour=colour,
        background=background,
        size=size,
        position=_position(box, size, pixels.shape[1], pixels.shape[0]),
        overlap=round(overlap, 3),
    )


def _ground(pixels: Pixels) -> NDArray[np.float32]:
    edge = max(2, pixels.shape[0] // 40)
    strips = (pixels[:edge], pixels[-edge:], pixels[:, :edge], pixels[:, -edge:])
    colour: NDArray[np.float32] = np.median(np.concatenate([strip.reshape(-1, 3) for strip in strips]), axis=0)
    return colour


def _nearest(colour: NDArray[np.float32], names: dict[str, world.Rgb]) -> str:
    return min(names, key=lambda name: float(np.linalg.norm(colour - np.asarray(names[name]))))


def _covered(pixels: Pixels, ground: NDArray[np.float32], figure: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a pixel lies nearer to the figure's colour than to the ground's."""
    way = figure - ground
    part = ((pixels - ground) @ way) / float(way @ way)
    covered: NDArray[np.bool_] = part > 0.5
    return covered


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the figure; rows and columns with one covered pixel do not count. None: no figure."""
    across, down = np.flatnonzero(mask.sum(axis=0) > 1), np.flatnonzero(mask.sum(axis=1) > 1)
    if across.size == 0 or down.size == 0:
        return None
    box = int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1
    side = max(box[2] - box[0], box[3] - box[1])
    return box if side >= _LEAST_SIDE * mask.shape[0] else None


def _size(box: tuple[int, int, int, int], height: int) -> str:
    side = max(box[2] - box[0], box[3] - box[1]) / height
    return min(world.SIZES, key=lambda name: abs(np.log(side / world.SIZES[name])))


def _position(box: tuple[int, int, int, int], size: str, width: int, height: int) -> str:
    """The position: an axis counts as off-centre from half of the offset that figures of this size have."""
    offset = world.OFFSETS[size] / 2
    away = ((box[0] + box[2]) / 2 / width - 0.5, (box[1] + box[3]) / 2 / height - 0.5)
    steps = tuple(0 if abs(part) < offset else (1 if part > 0 else -1) for part in away)
    return next(name for name, direction in world.POSITIONS.items() if direction == steps)


@functools.cache
def _templates() -> tuple[list[str], NDArray[np.bool_]]:
    """Names of the templates, and their masks of (templates, side, side)."""
    names = [shape for shape in world.SHAPES for _ in _TURNS]
    masks = [_template(shape, turn) for shape in world.SHAPES for turn in _TURNS]
    return names, np.stack(masks)


def _template(shape: str, degrees: float) -> NDArray[np.bool_]:
    side = _TEMPLATE * 4
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    lines = world.outlines(shape, centre=(side / 2, side / 2), side=side, degrees=degrees)
    for line, value in zip(lines, (255, 0), strict=False):
        pen.polygon(line, fill=value)
    mask: NDArray[np.bool_] = np.asarray(canvas.reduce(4)) > 127
    return mask


def _shape(mask: NDArray[np.bool_], box: tuple[int, int, int, int]) -> tuple[str, float]:
    """The best fitting template's shape, and the overlap (intersection over union)."""
    side = max(box[2] - box[0], box[3] - box[1])
    left, top = round((box[0] + box[2] - side) / 2), round((box[1] + box[3] - side) / 2)
    square = Image.fromarray(mask).convert("L").crop((left, top, left + side, top + side))
    figure = np.asarray(square.resize((_TEMPLATE, _TEMPLATE), Image.Resampling.BOX)) > 127
    names, masks = _templates()
    both = (masks & figure).sum(axis=(1, 2))
    either = (masks | figure).sum(axis=(1, 2))
    overlaps = both / either
    best = int(overlaps.argmax())
    return names[best], float(overlaps[best])


def _lookup(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {word: name for name, words in table.items() for word in (name, *words)}


def _first(text: str, meanings: dict[str, str]) -> str | None:
    """The meaning of the longest known phrase in the text, None if there is none."""
    for phrase in sorted(meanings, key=len, reverse=True):
        if re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text):
            return meanings[phrase]
    return None


_GROUNDS: Final = "|".join(sorted(_lookup(captions.BACKGROUND_WORDS), key=len, reverse=True))
_GROUND: Final = re.compile(
    rf"\b(?:(?:on|against|with|over)\s+(?:an?\s+|the\s+)?(?:plain\s+)?)?({_GROUNDS})\s+(?:background|backdrop)\b"
    rf"|\bon\s+({_GROUNDS})\b(?!\s+side)"
)


def describe(prompt: str) -> Expected:
    """What a prompt in the demo world's words asks for. Colour, background, size and position that it leaves out are
    black, white, medium and centred.

    A prompt that names no known shape asks for nothing that can be checked: all attributes are None.
    """
    text = prompt.lower()
    found = _GROUND.search(text)
    background = "white"
    if found:
        background = _lookup(captions.BACKGROUND_WORDS)[found[1] or found[2]]
        text = text[: found.start()] + " , " + text[found.end() :]
    shape = _first(text, _lookup(captions.SHAPE_WORDS))
    if shape is None:
        return Expected(shape=None, colour=None, background=None, size=None, position=None)
    return Expected(
        shape=shape,
        colour=_first(text, _lookup(captions.COLOUR_WORDS)) or "black",
        background=background,
        size=_first(text, _lookup(captions.SIZE_WORDS)) or "medium",
        position=_where(text),
    )


def _where(text: str) -> str:
    text = text.replace("upper", "top").replace("lower", "bottom")
    row = next((row for row in ("top", "bottom") if re.search(rf"\b{row}\b", text)), "")
    column = next((column for column in ("left", "right") if re.search(rf"\b{column}\b", text)), "")
    return f"{row} {column}".strip() or "center"
