"""The world of the demo model: what a scene is, how it is drawn, and which combinations no training ever sees.

Training, evaluation and the checker share these tables. Only the standard library and Pillow are used.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]
Outline = list[Point]

PIXELS: Final = 256  # side of a finished picture
SUPERSAMPLING: Final = 4  # drawn this many times larger, then reduced: smooth edges

SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "moon")

COLOURS: Final[dict[str, Rgb]] = {
    "red": (220, 35, 40),
    "orange": (245, 130, 25),
    "yellow": (250, 215, 40),
    "green": (35, 150, 65),
    "blue": (40, 80, 220),
    "purple": (130, 50, 180),
    "pink": (240, 95, 170),
    "brown": (125, 75, 35),
    "black": (20, 20, 22),
    "white": (250, 250, 250),
}

# Tinted grounds are pale, so that "a blue circle on a green background" stays easy on the eye and easy to read.
BACKGROUNDS: Final[dict[str, Rgb]] = {
    "white": (250, 250, 250),
    "black": (20, 20, 22),
    "gray": (150, 150, 155),
    "blue": (150, 200, 250),
    "green": (165, 225, 160),
    "yellow": (255, 238, 140),
    "pink": (255, 185, 205),
    "purple": (200, 175, 240),
}

SIZES: Final[dict[str, float]] = {"small": 0.28, "medium": 0.42, "large": 0.58}  # longer side / picture side

# How far from the centre a figure of each size is when it is "left", "top", …; fractions of the picture's side.
# Whole cells of the 16 × 16 latents: a moved figure then has the same latents in other cells, and is learned sooner.
OFFSETS: Final[dict[str, float]] = {"small": 4 / 16, "medium": 4 / 16, "large": 3 / 16}

POSITIONS: Final[dict[str, tuple[int, int]]] = {
    "center": (0, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "left": (-1, 0),
    "right": (1, 0),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}

ATTRIBUTES: Final = ("shape", "colour", "background", "size", "position")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One flat figure on one flat background. The defaults are what a caption means that leaves an attribute out."""

    shape: str
    colour: str = "black"
    background: str = "white"
    size: str = "medium"
    position: str = "center"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """What a caption does not say: shifts as fractions of the picture's side, a factor of the figure's size, an
    angle in degrees, and RGB shifts.
    """

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    degrees: float = 0.0
    colour: Rgb = (0, 0, 0)
    background: Rgb = (0, 0, 0)


def random_jitter(random: Random) -> Jitter:
    """Draw the small differences between two pictures of one scene."""
    shade = [random.randint(-6, 6) for _ in range(6)]
    return Jitter(
        dx=random.uniform(-0.008, 0.008),
        dy=random.uniform(-0.008, 0.008),
        scale=random.uniform(0.97, 1.03),
        degrees=random.uniform(-6.0, 6.0),
        colour=(shade[0], shade[1], shade[2]),
        background=(shade[3], shade[4], shade[5]),
    )


def scenes() -> Iterator[Scene]:
    """Every scene whose figure and background have different colour names."""
    names = itertools.product(SHAPES, COLOURS, BACKGROUNDS, SIZES, POSITIONS)
    for shape, colour, background, size, position in names:
        if colour != background:
            yield Scene(shape=shape, colour=colour, background=background, size=size, position=position)


def is_held_out(scene: Scene) -> bool:
    """Whether the scene is in the tenth that no stage trains on; decided by a hash, so it never changes."""
    text = f"{scene.shape}|{scene.colour}|{scene.background}|{scene.size}|{scene.position}"
    return hashlib.sha256(text.encode()).digest()[0] < 26


def random_scene(random: Random) -> Scene:
    """Draw a scene to train on: any but the held-out ones, the defaults a little more often than the rest."""
    while True:
        scene = Scene(
            shape=random.choice(SHAPES),
            colour=random.choice([*COLOURS, "black"]),
            background=random.choice([*BACKGROUNDS, "white"]),
            size=random.choice(list(SIZES)),
            position=random.choice([*POSITIONS, "center"]),
        )
        if scene.colour != scene.background and not is_held_out(scene):
            return scene


def _arc(radius: float, start: float, stop: float, centre: Point = (0.0, 0.0), points: int = 72) -> Outline:
    angles = [math.radians(start + (stop - start) * i / points) for i in range(points + 1)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def _star() -> Outline:
    corners = [(1.0 if i % 2 == 0 else 0.42, math.radians(36 * i - 90)) for i in range(10)]
    return [(radius * math.cos(a), radius * math.sin(a)) for radius, a in corners]


def _heart() -> Outline:
    angles = [math.tau * i / 96 for i in range(96)]
    return [
        (
            16 * math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)),
        )
        for a in angles
    ]


def _cross() -> Outline:
    arm = 0.34
    quarter = (complex(arm, -1.0), complex(arm, -arm), complex(1.0, -arm))
    corners = [corner * 1j**turn for turn in range(4) for corner in quarter]
    return [(corner.real, corner.imag) for corner in corners]


def _moon() -> Outline:
    # Inner edge: the circle of radius 0.86 about (0.52, 0), between its two crossings with the unit circle.
    inner, shift = 0.86, 0.52
    x = (1 - inner**2 + shift**2) / (2 * shift)
    outer_angle = math.degrees(math.acos(x))
    inner_angle = math.degrees(math.acos((x - shift) / inner))
    outside = _arc(1.0, outer_angle, 360 - outer_angle)
    return outside + _arc(inner, 360 - inner_angle, inner_angle, centre=(shift, 0.0))


def _outlines(shape: str) -> list[Outline]:
    """The filled outline of a shape in its own units, then the outlines of its holes."""
    match shape:
        case "circle":
            return [_arc(1.0, 0, 360)]
        case "square":
            return [[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]]
        case "triangle":
            return [[(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)]]
        case "star":
            return [_star()]
        case "heart":
            return [_heart()]
        case "ring":
            return [_arc(1.0, 0, 360), _arc(0.56, 0, 360)]
        case "cross":
            return [_cross()]
        case "moon":
            return [_moon()]
        case _:
            raise ValueError(f"no such shape: {shape}")


def outlines(shape: str, *, centre: Point, side: float, degrees: float = 0.0) -> list[Outline]:
    """The outlines of a rotated shape whose bounding box has this centre and longer side, in pixels; holes follow."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = [[(x * cos - y * sin, x * sin + y * cos) for x, y in line] for line in _outlines(shape)]
    xs, ys = [x for x, _ in turned[0]], [y for _, y in turned[0]]
    scale = side / max(max(xs) - min(xs), max(ys) - min(ys))
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    return [
        [(centre[0] + (x - middle[0]) * scale, centre[1] + (y - middle[1]) * scale) for x, y in line] for line in turned
    ]


def _shifted(colour: Rgb, shift: Rgb) -> Rgb:
    r, g, b = (max(0, min(255, c + s)) for c, s in zip(colour, shift, strict=True))
    return r, g, b


def draw(scene: Scene, jitter: Jitter | None = None, pixels: int = PIXELS) -> Image.Image:
    """Draw a scene as an RGB picture of pixels × pixels; without a jitter it is the ideal one."""
    jitter = jitter or Jitter()
    side = pixels * SUPERSAMPLING
    across, down = POSITIONS[scene.position]
    centre = (
        side * (0.5 + across * OFFSETS[scene.size] + jitter.dx),
        side * (0.5 + down * OFFSETS[scene.size] + jitter.dy),
    )
    ground = _shifted(BACKGROUNDS[scene.background], jitter.background)
    figure = _shifted(COLOURS[scene.colour], jitter.colour)
    picture = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(picture)
    lines = outlines(scene.shape, centre=centre, side=side * SIZES[scene.size] * jitter.scale, degrees=jitter.degrees)
    for line, colour in zip(lines, (figure, ground), strict=False):
        pen.polygon(line, fill=colour)
    return picture.reduce(SUPERSAMPLING)
