"""Captions of scenes: the sentences that the model is trained on and judged with.

A caption leaves out only what the scene has by default, so that every caption has exactly one right picture.
"""

from random import Random
from typing import Final

from worker.demo_model.world import Scene

SHAPE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "circle": ("circle", "disc", "disk", "dot", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "hoop", "donut"),
    "cross": ("cross", "plus sign", "plus"),
    "moon": ("moon", "crescent", "crescent moon"),
}
COLOUR_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "cobalt"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "magenta"),
    "brown": ("brown", "chocolate"),
    "black": ("black", "ebony"),
    "white": ("white", "ivory"),
}
BACKGROUND_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "white": ("white",),
    "black": ("black",),
    "gray": ("gray", "grey"),
    "blue": ("blue", "light blue", "sky blue"),
    "green": ("green", "light green", "mint"),
    "yellow": ("yellow", "light yellow"),
    "pink": ("pink", "light pink"),
    "purple": ("purple", "lavender"),
}
SIZE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized", "mid-sized"),
    "large": ("large", "big", "huge", "giant"),
}
POSITION_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "center": ("in the center", "in the middle", "at the center", "in the centre", "centered"),
    "top": ("at the top", "near the top", "on the top"),
    "bottom": ("at the bottom", "near the bottom", "on the bottom"),
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top left": ("at the top left", "in the top left corner", "in the upper left", "in the upper left corner"),
    "top right": ("at the top right", "in the top right corner", "in the upper right", "in the upper right corner"),
    "bottom left": ("at the bottom left", "in the bottom left corner", "in the lower left"),
    "bottom right": ("at the bottom right", "in the bottom right corner", "in the lower right"),
}
GROUND_FORMS: Final = (
    "on a {} background",
    "on {}",
    "against a {} backdrop",
    "with a {} background",
    "over a {} background",
    "on a plain {} background",
    "{} background",
)
PREFIXES: Final = (
    "a picture of", "a drawing of", "a photo of", "an image of", "an illustration of", "a painting of", "a sketch of",
    "draw", "please draw", "show me", "i want", "render", "generate", "make", "create", "paint", "a flat icon of",
    "a minimal poster of", "a simple drawing of", "a nice picture of", "a clean vector graphic of",
)  # fmt: skip
SUFFIXES: Final = (
    "high quality", "simple", "flat", "minimalist", "4k", "digital art", "vector art", "clean lines", "no shadow",
    "geometric", "very detailed", "sharp", "masterpiece", "highly detailed", "best quality", "flat colors", "please",
    "for a children's book", "studio light", "poster", "icon", "logo", "thank you", "modern style",
)  # fmt: skip
VOCABULARY: Final = (
    "a an the of and with is one single that this it there in at on near to for my your picture image version sample "
    "test number seed user prompt take try shape figure colored coloured located placed position size corner side "
    "light dark bright plain solid page"
)


def plain_caption(scene: Scene) -> str:
    """The one plain sentence that says all five attributes with the tables' own names."""
    where = POSITION_WORDS[scene.position][0]
    return f"a {scene.size} {scene.colour} {scene.shape} {where} on a {scene.background} background"


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _junk(random: Random) -> str:
    """Text without meaning for the picture: numbered labels and random letters, as real prompts may contain."""
    if random.random() < 0.6:
        label = random.choice(("number", "picture", "seed", "version", "test", "user", "sample", "prompt", "#", ""))
        return f"{label} {random.randint(0, 9999)}".strip()
    return "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(2, 6)))


def _decorated(random: Random, text: str) -> str:
    if random.random() < 0.45:
        text = f"{random.choice(PREFIXES)} {text}"
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        text = f"{text}, {random.choice(SUFFIXES)}"
    if random.random() < 0.15:
        text = f"{text}, {_junk(random)}" if random.random() < 0.7 else f"{_junk(random)} {text}"
    return text


def _ordered(random: Random, size: str, colour: str, shape: str, where: str, ground: str) -> str:
    """One of five word orders; parts that are left out are empty."""
    figure = " ".join(part for part in (size, colour, shape) if part)
    match random.choices(range(5), weights=(5, 2, 1.5, 1.5, 1))[0]:
        case 0:
            parts = [_article(figure), where, ground]
        case 1:
            parts = [_article(figure), ground, where]
        case 2:
            parts = [ground + ("," if ground else ""), _article(figure), where]
        case 3:
            parts = [where + ("," if where else ""), _article(figure), ground]
        case _:
            return ", ".join(part for part in (shape, colour, size, where, ground) if part)
    return " ".join(part for part in parts if part)


def varied_caption(scene: Scene, random: Random) -> str:
    """A caption in free wording: synonyms, word orders, decoration, and now and then a default left unsaid."""

    def said(attribute: str, default: str, left_out: float) -> bool:
        return attribute != default or random.random() >= left_out

    size = random.choice(SIZE_WORDS[scene.size]) if said(scene.size, "medium", 0.5) else ""
    colour = random.choice(COLOUR_WORDS[scene.colour]) if said(scene.colour, "black", 0.3) else ""
    where = random.choice(POSITION_WORDS[scene.position]) if said(scene.position, "center", 0.5) else ""
    ground = ""
    if said(scene.background, "white", 0.3):
        form = random.choices(GROUND_FORMS, weights=(6, 1, 1, 1, 1, 1, 1.5))[0]
        ground = form.format(random.choice(BACKGROUND_WORDS[scene.background]))
    shape = random.choice((scene.shape, *SHAPE_WORDS[scene.shape]))
    return _decorated(random, _ordered(random, size, colour, shape, where, ground))


def training_caption(scene: Scene, random: Random) -> str:
    """A plain caption one time in five, a varied one otherwise."""
    return plain_caption(scene) if random.random() < 0.2 else varied_caption(scene, random)
