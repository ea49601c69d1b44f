"""Turns prompts into the denoiser's conditions, one per image: a condition is a set of named tensors without a batch
dimension. Prompts are encoded by the pipeline's own `encode_prompt`, so the result equals the pipeline's; the prompts
themselves are neither kept nor logged.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import torch

Condition = Mapping[str, torch.Tensor]
"""The model's keyword arguments: for Stable Diffusion `encoder_hidden_states`, tokens x width."""

_KEPT = 64


class StableDiffusionConditioning:
    """CLIP's hidden states of 77 tokens (demo model: 48). Caches the last 64 texts by digest, mainly for ""."""

    def __init__(self, pipeline: Any, device: str) -> None:
        self._pipeline = pipeline
        self._device = device
        self._kept: OrderedDict[bytes, Condition] = OrderedDict()

    def of(self, texts: Sequence[str]) -> list[Condition]:
        """One condition per text; new ones in one pass through the encoder."""
        names = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._kept}
        known = {name: self._kept[name] for name in names if name in self._kept}
        known |= dict(zip(new, self._encode(list(new.values())), strict=True))
        for name in names:
            self._kept[name] = known[name]
            self._kept.move_to_end(name)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return [known[name] for name in names]

    def _encode(self, texts: list[str]) -> list[Condition]:
        if not texts:
            return []
        states, _ = self._pipeline.encode_prompt(
            prompt=texts, device=self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        # A clone each: a row of the batch would keep the whole batch alive.
        return [{"encoder_hidden_states": each.clone()} for each in states]


def stacked(conditions: Sequence[Condition]) -> Condition:
    """The conditions of a batch as one, with a batch dimension in the given order."""
    return {name: torch.stack([each[name] for each in conditions]) for name in conditions[0]}
