"""Turns latents into pixels, one image at a time. On a CPU the work is done when the picture is fetched, so that it
falls between two steps of the others; on a GPU it is launched at once on a stream of its own (`cuda`).
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from worker.engines.pixels import cut, levels


class Pending(Protocol):
    """A picture whose decoding has been requested."""

    def fetch(self) -> tuple[torch.Tensor, bool]:
        """Wait for the picture: uint8, height x width x 3, on the CPU; and whether all numbers were finite."""


class VaeDecoder:
    """An AutoencoderKL or AutoencoderTiny."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._scaling = float(vae.config.scaling_factor)

    def begin(self, latents: torch.Tensor, width: int, height: int) -> Pending:
        """Request the decoding of one image's latents, channels x height x width. Nothing is computed yet."""
        return _Waiting(decoder=self, latents=latents.clone(), width=width, height=height)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels, cut to `width` x `height`, and the boolean as in `Pending.fetch`; both still on the device."""
        sample = (latents / self._scaling).to(self._vae.dtype).unsqueeze(0)
        image = self._vae.decode(sample, return_dict=False)[0][0].float()
        finite = latents.isfinite().all() & image.isfinite().all()
        whole = (image * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0)
        return levels(cut(whole, width, height)).to(torch.uint8).contiguous(), finite


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    decoder: VaeDecoder
    latents: torch.Tensor = field(repr=False)
    width: int
    height: int

    def fetch(self) -> tuple[torch.Tensor, bool]:
        pixels, finite = self.decoder.decode(self.latents, self.width, self.height)
        return pixels.cpu(), bool(finite)
