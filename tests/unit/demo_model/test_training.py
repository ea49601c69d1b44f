"""The training's parts, on models of a few steps: seeded, resumable, and built as their docstrings say."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor, nn

from worker.demo_model import vae
from worker.demo_model.decoder import grown
from worker.demo_model.fitting import Plan, fit
from worker.demo_model.optimizer import MuonAdamW, orthogonal
from worker.demo_model.tokenizer import MAX_TOKENS, new_tokenizer, words
from worker.demo_model.world import PIXELS


def learner(plan: Plan) -> tuple[nn.Linear, MuonAdamW, Callable[[int], Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    groups = [{"params": [model.weight], "muon": True}, {"params": [model.bias], "muon": False}]
    optimizer = MuonAdamW(groups, lr=plan.peak_rate, weight_decay=0.0)

    def loss(step: int) -> Tensor:
        _, generator = plan.randoms(step)
        x = torch.randn(8, 4, generator=generator)
        return nn.functional.mse_loss(model(x), x.flip(1))

    return model, optimizer, loss


class Stopped(Exception):
    """Stands for a run that is killed."""


def trained(work: Path, stop: int | None = None, steps_run: list[int] | None = None) -> nn.Linear:
    """The averaged weights after 200 steps, or after as many as a run makes before it is stopped."""
    plan = Plan(stage="toy", steps=200, peak_rate=0.05, progress_every=1000, checkpoint_every_s=0.0)
    model, optimizer, loss = learner(plan)
    averaged = nn.Linear(4, 4).requires_grad_(requires_grad=False)

    def watched(step: int) -> Tensor:
        if step == stop:
            raise Stopped
        if steps_run is not None:
            steps_run.append(step)
        return loss(step)

    fit(plan, model=model, averaged=averaged, optimizer=optimizer, loss=watched, work=work)
    return averaged


def test_training_learns_and_repeats_itself(tmp_path: Path) -> None:
    once, again = trained(tmp_path / "a"), trained(tmp_path / "b")
    assert torch.equal(once.weight, again.weight)
    assert torch.allclose(once.weight, torch.eye(4).flip(1), atol=0.25)


def test_a_stopped_training_goes_on_where_it_was_and_ends_the_same(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trained(tmp_path / "b", stop=70)
    steps_run: list[int] = []
    resumed = trained(tmp_path / "b", steps_run=steps_run)
    assert steps_run == list(range(70, 200))
    assert torch.equal(trained(tmp_path / "a").weight, resumed.weight)


def test_the_rate_rises_stays_and_falls() -> None:
    plan = Plan(stage="toy", steps=1000, peak_rate=1.0, warmup_steps=10)
    rates = [plan.rate(step) for step in (0, 9, 500, 699, 850, 999)]
    assert rates[:4] == pytest.approx([0.1, 1.0, 1.0, 1.0], abs=1e-4)
    assert rates[4] == pytest.approx(0.5)
    assert rates[5] < 1e-3


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16)])
def test_orthogonal_levels_the_singular_values(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_the_untrained_autoencoder_already_shows_the_picture() -> None:
    half = vae.new_vae(seed=1)
    drawn = vae.pictures(Random(1), 4, PIXELS)
    with torch.no_grad():
        whole = grown(half)
        latents = whole.encoder(drawn)
        error = (whole.decoder(latents) - drawn).square().mean()
    assert latents.shape == (4, 4, 16, 16)
    assert -10 * torch.log10(error / 4) > 14  # decibels; a grey picture has about 7


def test_the_grown_encoder_finds_the_latents_of_the_half_size_one() -> None:
    half = vae.new_vae(seed=2)
    drawn = vae.pictures(Random(2), 4, PIXELS)
    with torch.no_grad():
        want = half.encoder(nn.functional.avg_pool2d(drawn, 2))
        got = grown(half).encoder(drawn)
    assert (got - want)[:, :3].abs().mean() < 0.1


def test_every_word_of_the_world_is_one_token() -> None:
    tokenizer = new_tokenizer()
    assert [word for word in words() if len(tokenizer.tokenize(word)) != 1] == []


@pytest.mark.parametrize(
    "text", ["", "  ", "日本の絵 🎨", "x" * 500, "A LARGE RED CIRCLE", "<|endoftext|>", "\x00\n\t"]
)
def test_any_text_becomes_tokens(text: str) -> None:
    tokenizer = new_tokenizer()
    ids = tokenizer([text], padding="max_length", truncation=True).input_ids[0]
    assert len(ids) == MAX_TOKENS
    assert max(ids) < len(tokenizer)
