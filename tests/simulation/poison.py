"""Images that nobody can render: whoever begins one gets an error, no picture, a hang, or dies.

No faults of the plan: a client asks for one, and a schedule of two hundred seconds must end it without its mates.
"""

from collections.abc import Mapping
from random import Random
from typing import Final

KINDS: Final = ("error", "memory", "nan", "hang", "lost", "killed")
"""`lost`: the device, and with it the worker. `killed`: the worker's process, without a word."""

_DEADLY: Final = ("hang", "lost", "killed")
_DEATHS: Final = 20
"""More than those of all poison of one schedule where workers are told what has ended."""

_SHARE: Final = 0.06
NONE: Final = 1.0
"""The guidance scale of a good image."""


def draw(dice: Random) -> float:
    """The guidance scale of a request: it says whether the first image is poison, and of which kind."""
    return NONE if dice.random() > _SHARE else 2.0 + dice.randrange(len(KINDS))


def kind(guidance_scale: float, index: int) -> str:
    """Of one image; empty for a good one."""
    return "" if guidance_scale == NONE or index else KINDS[int(guidance_scale) - 2]


def reigns(met: Mapping[str, int]) -> bool:
    """Whether workers have died of it again and again: those that ask nobody begin also what nobody wants any more.

    The dead-letter queue ends that, and takes along what such workers held beside it.
    """
    return sum(met[f"poison_{kind}"] for kind in _DEADLY) > _DEATHS
