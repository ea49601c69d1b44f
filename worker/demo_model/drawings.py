"""The training set of the denoiser, made once: scenes, the latents of their drawings, and where each figure is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from worker.demo_model.vae import FACTOR, HALF
from worker.demo_model.world import Scene, draw, random_jitter, random_scene

_BLOCK = 50


@dataclass(slots=True, kw_only=True)
class Drawings:
    """Encoded drawings: latents of (count, 4, 16, 16), and figures of (count, 1, 16, 16), 1 where a cell holds pixels
    of the figure; both float16.
    """

    scenes: list[Scene]
    latents: Tensor
    figures: Tensor

    @property
    def scaling_factor(self) -> float:
        """The factor that gives the latents a standard deviation of 1; saved as `vae.config.scaling_factor`."""
        return round(1.0 / float(self.latents.float().std()), 3)


def _figure_cells(images: Tensor) -> Tensor:
    """1 for each latent cell with a pixel that differs from the background, which is read from the corner; else 0."""
    away = (images - images[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.15
    return torch.nn.functional.max_pool2d(away.float(), FACTOR).half()


@torch.no_grad()
def _encoded(vae: AutoencoderTiny, random: Random, device: str) -> Drawings:
    scenes = [random_scene(random) for _ in range(_BLOCK)]
    drawn = np.stack([np.asarray(draw(scene, random_jitter(random), HALF)) for scene in scenes])
    images = torch.from_numpy(drawn).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1.0
    images = images.contiguous(memory_format=torch.channels_last)
    return Drawings(
        scenes=scenes, latents=vae.encoder(images).half().cpu().contiguous(), figures=_figure_cells(images).cpu()
    )


def make_drawings(work: Path, vae: AutoencoderTiny, *, count: int, device: str, seed: int) -> Drawings:
    """Draw and encode the training set, or load the one in `work`, whatever its size. `count` is rounded down to a
    multiple of 50.
    """
    path = work / "drawings.pt"
    if path.exists():
        stored = torch.load(path, weights_only=True)
        return Drawings(
            scenes=[Scene(**scene) for scene in stored["scenes"]],
            latents=stored["latents"],
            figures=stored["figures"],
        )
    blocks = []
    for block in range(count // _BLOCK):
        blocks.append(_encoded(vae, Random(f"{seed}:drawings:{block}"), device))
        if block % 40 == 0:
            print(f"drawings: {block * _BLOCK} of {count}", flush=True)
    drawings = Drawings(
        scenes=[scene for block in blocks for scene in block.scenes],
        latents=torch.cat([block.latents for block in blocks]),
        figures=torch.cat([block.figures for block in blocks]),
    )
    scenes = [asdict(scene) for scene in drawings.scenes]
    torch.save({"scenes": scenes, "latents": drawings.latents, "figures": drawings.figures}, path)
    return drawings
