"""The autoencoder's first half: pictures of 128 × 128 to and from latents of 4 × 16 × 16, an `AutoencoderTiny`.

The later stage `decoder` extends it to 256 × 256; learning the latents at half size is three times faster. The net is
initialised to average and enlarge blocks (Dirac initialisation): at step 0 it already gives a blurred picture, and has
only the edges to learn. From the usual random initialisation the same net learns nothing in the same time.
"""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from worker.demo_model.fitting import Plan, fit
from worker.demo_model.world import PIXELS, draw, random_jitter, random_scene

LATENT_CHANNELS = 4
FACTOR = 8  # at half size
HALF = PIXELS // 2
_CROP = 64
_SPREAD, _MIDDLE = 4.0, 0.65  # latent = spread · (colour - middle): mean 0, variance 1 from the first step


def new_vae(seed: int) -> AutoencoderTiny:
    """An untrained autoencoder that passes block averages of red, green and blue straight through."""
    torch.manual_seed(seed)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(24,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(0, 0, 2, 2),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        _pass_through(list(vae.encoder.layers))
        _pass_through(list(vae.decoder.layers))
        _scale_ends(vae)
    return vae


def _pass_through(layers: Any) -> None:
    """Make red, green and blue go through every convolution unchanged (halving ones average 2 × 2 blocks)."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            pass_colours_through(layer)
        elif hasattr(layer, "conv"):
            # A residual branch: adds nothing to the colours, and little to the other channels, at the start.
            layer.conv[-1].weight.mul_(0.2)
            layer.conv[-1].weight[:3] = 0
            layer.conv[-1].bias[:3] = 0


def pass_colours_through(conv: nn.Conv2d) -> None:
    """Make a convolution copy its first three channels; one of stride 2 averages blocks of 2 × 2."""
    conv.weight[:3] = 0
    if conv.bias is not None:
        conv.bias[:3] = 0
    for channel in range(3):
        if conv.stride[0] == 2:
            conv.weight[channel, channel, 1:, 1:] = 0.25
        else:
            conv.weight[channel, channel, 1, 1] = 1.0


def _scale_ends(vae: AutoencoderTiny) -> None:
    """Scale colours of [0, 1] to latents of mean 0 at the encoder's end, and back at the decoder's start."""
    last: Any = list(vae.encoder.layers)[-1]
    first: Any = next(iter(vae.decoder.layers))
    last.weight[:3] *= _SPREAD
    last.bias[:3] = -_SPREAD * _MIDDLE
    first.weight[:3] /= _SPREAD
    first.bias[:3] = _MIDDLE


def pictures(random: Random, count: int, pixels: int = HALF) -> Tensor:
    """Fresh drawings as floats of [-1, 1], shape (count, 3, pixels, pixels)."""
    drawn = [np.asarray(draw(random_scene(random), random_jitter(random), pixels)) for _ in range(count)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def crops(random: Random, images: Tensor, side: int, factor: int) -> Tensor:
    """One square crop of each picture, aligned to the latent grid, with more than one colour if 8 tries find one."""
    chosen = []
    for image in images:
        for _ in range(8):
            top, left = (random.randrange(0, image.shape[-1] - side + 1, factor) for _ in range(2))
            crop = image[:, top : top + side, left : left + side]
            if crop.amax() - crop.amin() > 0.2 and (crop - crop[:, :1, :1]).abs().amax() > 0.2:
                break
        chosen.append(crop)
    return torch.stack(chosen)


def picture_loss(got: Tensor, want: Tensor) -> Tensor:
    """The error of pictures of (batch, 3, height, width): absolute, squared, and of differences between neighbours."""
    error = got - want
    down = (got.diff(dim=2) - want.diff(dim=2)).abs().mean()
    across = (got.diff(dim=3) - want.diff(dim=3)).abs().mean()
    return error.abs().mean() + 2 * (error**2).mean() + down + across


def train_vae(work: Path, *, steps: int, device: str, seed: int) -> AutoencoderTiny:
    """Train the autoencoder, resuming from a checkpoint in `work`; returns the averaged weights."""
    plan = Plan(stage="vae", steps=steps, peak_rate=1.2e-3, average=0.995, seed=seed)
    vae, averaged = new_vae(seed), new_vae(seed)
    vae.to(device, memory_format=torch.channels_last)
    averaged.to(device, memory_format=torch.channels_last).requires_grad_(False)

    def loss(step: int) -> Tensor:
        random, generator = plan.randoms(step)
        want = crops(random, pictures(random, 8), _CROP, FACTOR).to(device, memory_format=torch.channels_last)
        latents = vae.encoder(want)
        strength = 0.1 * random.random()
        noise = torch.randn(latents.shape, generator=generator).to(device)
        got = vae.decoder(latents + strength * noise)
        centred: Tensor = latents.mean((0, 2, 3)) ** 2 + (latents.std((0, 2, 3)) - 1) ** 2
        return picture_loss(got, want) + 0.02 * centred.mean()

    optimizer = torch.optim.AdamW(vae.parameters(), betas=plan.betas, weight_decay=1e-3)
    fit(plan, model=vae, averaged=averaged, optimizer=optimizer, loss=loss, work=work)
    return averaged.eval()
