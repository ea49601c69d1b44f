"""The denoiser: a stock `UNet2DConditionModel` over latents of 4 × 16 × 16, trained for v-prediction.

The caption enters twice: pooled, through the time embedding of every block, and by cross-attention at the lowest
resolution. With cross-attention alone a net of this size learns little but the background's colour in the same time.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from worker.demo_model.captions import training_caption
from worker.demo_model.drawings import Drawings
from worker.demo_model.fitting import Plan, fit
from worker.demo_model.optimizer import optimizer_for
from worker.demo_model.text_encoder import WIDTH, tokens_of
from worker.demo_model.vae import FACTOR, HALF, LATENT_CHANNELS

BATCH = 32
_CAPTIONLESS = 0.1  # share of training captions that are dropped, for classifier-free guidance


def new_scheduler() -> DPMSolverMultistepScheduler:
    """The scheduler of training and of the finished model: scaled-linear betas that end in pure noise."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,  # without effect on trailing steps; the pipeline warns about 0
    )


def new_unet(seed: int) -> UNet2DConditionModel:
    """An untrained denoiser of 5 million parameters."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=HALF // FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=256,
    )


@dataclass(slots=True)
class _Lesson:
    """What every step of the training needs."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    drawings: Drawings
    plan: Plan
    alphas: Tensor  # (1000,), the cumulative products of the scheduler
    scale: float  # scales the autoencoder's latents to a standard deviation of 1

    def loss(self, step: int) -> Tensor:
        """The weighted squared error of the predicted velocity on one batch."""
        random, generator = self.plan.randoms(step)
        device = self.alphas.device
        chosen = [random.randrange(len(self.drawings.scenes)) for _ in range(BATCH)]
        captions = [
            "" if random.random() < _CAPTIONLESS else training_caption(self.drawings.scenes[i], random) for i in chosen
        ]
        with torch.no_grad():
            text = self.text_encoder(input_ids=tokens_of(self.tokenizer, captions).to(device)).last_hidden_state
        clean = self.scale * self.drawings.latents[chosen].to(device, torch.float32)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        times = _times(generator, self._evenness(step)).to(device)
        signal = self.alphas[times].sqrt().view(-1, 1, 1, 1)
        spread = (1 - self.alphas[times]).sqrt().view(-1, 1, 1, 1)
        noisy = (signal * clean + spread * noise).contiguous(memory_format=torch.channels_last)
        velocity = signal * noise - spread * clean
        got = self.unet(noisy, times, encoder_hidden_states=text, return_dict=False)[0]
        error: Tensor = self._weights(chosen, step) * (got - velocity) ** 2
        return error.mean()

    def _weights(self, chosen: list[int], step: int) -> Tensor:
        """Loss weights per cell, (batch, 1, 16, 16): first balanced between figure and background, later all equal."""
        figure = self.drawings.figures[chosen].to(self.alphas.device, torch.float32)
        part = figure.mean((1, 2, 3), keepdim=True).clamp(0.02, 0.98)
        balanced = 0.5 * figure / part + 0.5 * (1 - figure) / (1 - part)
        return balanced + self._evenness(step) * (1 - balanced)

    def _evenness(self, step: int) -> float:
        """0 while shapes are learned (60 % of the steps), then up to 1: all cells and noise levels weigh the same."""
        return min(1.0, max(0.0, (step / self.plan.steps - 0.6) / 0.3))


def _times(generator: torch.Generator, evenness: float) -> Tensor:
    """One timestep per picture, spread over the batch; below evenness 1 more of high noise, where shapes form."""
    even = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
    return (even ** (0.4 + 0.6 * evenness) * 1000).long().clamp(0, 999)


def train_unet(
    work: Path,
    *,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    drawings: Drawings,
    steps: int,
    device: str,
    seed: int,
) -> UNet2DConditionModel:
    """Train the denoiser on encoded drawings, resuming from a checkpoint in `work`; returns the averaged weights."""
    plan = Plan(stage="unet", steps=steps, peak_rate=2e-3, warmup_steps=100, average=0.985, seed=seed)
    unet, averaged = new_unet(seed), new_unet(seed)
    unet.to(device, memory_format=torch.channels_last)
    averaged.to(device, memory_format=torch.channels_last).requires_grad_(False)
    alphas = new_scheduler().alphas_cumprod.to(device)
    lesson = _Lesson(unet, text_encoder.to(device), tokenizer, drawings, plan, alphas, drawings.scaling_factor)
    optimizer = optimizer_for(unet, plan)
    fit(plan, model=unet, averaged=averaged, optimizer=optimizer, loss=lesson.loss, work=work)
    return averaged.eval()
