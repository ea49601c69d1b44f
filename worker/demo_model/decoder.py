"""The autoencoder's second half: one more stage at the pixel end, so that the same latents give 256 × 256.

The decoder starts as the half-size one with its pixels doubled, and learns sharp outlines; the encoder learns to map a
full-size picture to the latents that the half-size encoder gives for the reduced picture.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from worker.demo_model import vae as half_size
from worker.demo_model.fitting import Plan, fit
from worker.demo_model.world import PIXELS

FACTOR = 2 * half_size.FACTOR
_CROP = 128
_NOISE = 0.15  # largest standard deviation of noise on the latents (theirs is 1) that the decoder learns to tolerate


def grown(half: AutoencoderTiny) -> AutoencoderTiny:
    """An autoencoder of factor 16, initialised from the trained one of factor 8."""
    config = half.config
    whole = AutoencoderTiny(
        encoder_block_out_channels=(config["encoder_block_out_channels"][0], *config["encoder_block_out_channels"]),
        decoder_block_out_channels=(*config["decoder_block_out_channels"], config["decoder_block_out_channels"][-1]),
        num_encoder_blocks=(0, *config["num_encoder_blocks"]),
        num_decoder_blocks=(*config["num_decoder_blocks"], 0),
        latent_channels=half_size.LATENT_CHANNELS,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        _grow_encoder(list(half.encoder.layers), list(whole.encoder.layers))
        _grow_decoder(list(half.decoder.layers), list(whole.decoder.layers))
    return whole


def _grow_encoder(half: Any, whole: Any) -> None:
    """The first layers average 2 × 2 pixels and apply the half-size first layer as if its patch were uniform."""
    first, halving = whole[0], whole[1]
    half_size.pass_colours_through(first)
    halving.weight.zero_()
    halving.weight[:, :3, 1:, 1:] = half[0].weight.sum((2, 3))[:, :, None, None] / 4
    # The half-size first layer has a bias, the halving layer has none: a constant channel of 1 carries it.
    first.weight[3], first.bias[3] = 0.0, 1.0
    halving.weight[:, 3, 1, 1] = half[0].bias
    for old, new in zip(half[1:], whole[2:], strict=True):
        new.load_state_dict(old.state_dict())


def _grow_decoder(half: Any, whole: Any) -> None:
    """The half-size decoder; its last features are upsampled twofold, and its last layer follows them."""
    for old, new in zip(half[:-1], whole[:-3], strict=True):
        new.load_state_dict(old.state_dict())
    nn.init.dirac_(whole[-2].weight)
    whole[-1].load_state_dict(half[-1].state_dict())


def train_decoder(work: Path, half: AutoencoderTiny, *, steps: int, device: str, seed: int) -> AutoencoderTiny:
    """Train the full-size autoencoder on the frozen half-size latents, resuming from a checkpoint in `work`."""
    plan = Plan(stage="decoder", steps=steps, peak_rate=1e-3, average=0.995, seed=seed)
    whole, averaged = grown(half), grown(half)
    whole.to(device, memory_format=torch.channels_last)
    averaged.to(device, memory_format=torch.channels_last).requires_grad_(False)

    def loss(step: int) -> Tensor:
        random, generator = plan.randoms(step)
        drawn = half_size.crops(random, half_size.pictures(random, 8, PIXELS), _CROP, FACTOR)
        want = drawn.to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            latents = half.encoder(nn.functional.avg_pool2d(want, 2))
        noise = torch.randn(latents.shape, generator=generator).to(device)
        got = whole.decoder(latents + _NOISE * random.random() * noise)
        astray: Tensor = (whole.encoder(want) - latents) ** 2
        return half_size.picture_loss(got, want) + 0.1 * astray.mean()

    optimizer = torch.optim.AdamW(whole.parameters(), betas=plan.betas, weight_decay=1e-3)
    fit(plan, model=whole, averaged=averaged, optimizer=optimizer, loss=loss, work=work)
    return averaged.eval()
