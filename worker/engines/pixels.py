"""Sizes and bytes of pictures, the same for every engine in this process; for numpy arrays and for torch tensors."""

from typing import Any


def renderable(side: int, factor: int) -> int:
    """`side` pixels, rounded up to a multiple of `factor`, since the latents can express nothing else.

    Pipelines on their own silently round down.
    """
    return -(-side // factor) * factor


def cut(image: Any, width: int, height: int) -> Any:
    """The middle of a picture (height x width x …) that is larger than asked for; any other as it is."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width] if top >= 0 and left >= 0 else image


def levels(image: Any) -> Any:
    """Floats in [0, 1] as whole numbers from 0 to 255, still floats; what is not finite stays so."""
    return (image * 255.0).round().clip(0, 255)
