"""The text encoder: a small stock `CLIPTextModel`, first trained to classify the five attributes, then frozen.

Trained jointly with the denoiser it would hardly learn anything in the same time; as a classifier it takes minutes.
"""

from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from worker.demo_model import world
from worker.demo_model.captions import training_caption
from worker.demo_model.fitting import Plan, fit
from worker.demo_model.world import Scene, random_scene

WIDTH = 128

_NAMES: dict[str, list[str]] = {
    "shape": list(world.SHAPES),
    "colour": list(world.COLOURS),
    "background": list(world.BACKGROUNDS),
    "size": list(world.SIZES),
    "position": list(world.POSITIONS),
}


class Namer(nn.Module):
    """The text encoder with one linear head per attribute; the heads are discarded after training."""

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_factor=1.0,
        )
        self.encoder = CLIPTextModel(config)
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(values)) for name, values in _NAMES.items()})

    def forward(self, tokens: Tensor) -> list[dict[str, Tensor]]:
        """Logits of each attribute for tokens of (batch, length): from the end token, and from the mean over all."""
        output = self.encoder(input_ids=tokens)
        views = (output.pooler_output, output.last_hidden_state.mean(dim=1))
        return [{name: head(view) for name, head in self.heads.items()} for view in views]


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids of (batch, 48), padded and cut as the pipeline does it."""
    output = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = output.input_ids
    return ids


def _labels(scenes: list[Scene]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([values.index(getattr(scene, name)) for scene in scenes]) for name, values in _NAMES.items()
    }


def captioned(random: Random, count: int) -> tuple[list[Scene], list[str]]:
    """Random scenes, none of them held out, with a caption each."""
    scenes = [random_scene(random) for _ in range(count)]
    return scenes, [training_caption(scene, random) for scene in scenes]


@torch.no_grad()
def accuracy(namer: Namer, tokenizer: CLIPTokenizer, *, seed: int, count: int = 2000) -> float:
    """The share of fresh captions (0…1) for which the end token alone gives all five attributes."""
    device = next(namer.parameters()).device
    right = 0
    for block in range(count // 100):
        scenes, texts = captioned(Random(f"{seed}:naming:{block}"), 100)
        named = namer(tokens_of(tokenizer, texts).to(device))[0]
        wanted = _labels(scenes)
        hits = [named[name].argmax(1).cpu() == wanted[name] for name in _NAMES]
        right += int(torch.stack(hits).all(dim=0).sum())
    return right / count


def train_text_encoder(work: Path, tokenizer: CLIPTokenizer, *, steps: int, device: str, seed: int) -> Namer:
    """Train the text encoder with its heads, resuming from a checkpoint in `work`; returns the averaged weights."""
    plan = Plan(stage="text", steps=steps, peak_rate=1e-3, average=0.99, betas=(0.9, 0.98), seed=seed)
    namer, averaged = Namer(tokenizer, seed).to(device), Namer(tokenizer, seed).to(device)
    averaged.requires_grad_(False)

    def loss(step: int) -> Tensor:
        random, _ = plan.randoms(step)
        scenes, texts = captioned(random, 64)
        wanted = {name: labels.to(device) for name, labels in _labels(scenes).items()}
        views = namer(tokens_of(tokenizer, texts).to(device))
        terms = [nn.functional.cross_entropy(view[name], wanted[name]) for view in views for name in _NAMES]
        return torch.stack(terms).mean()

    optimizer = torch.optim.AdamW(namer.parameters(), betas=plan.betas, weight_decay=1e-2)
    fit(plan, model=namer, averaged=averaged, optimizer=optimizer, loss=loss, work=work)
    return averaged.eval()
