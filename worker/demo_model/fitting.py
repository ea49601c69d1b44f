"""The training loop that every stage shares: seeded per step, checkpointed, resumable, with progress and an average.

A stage gives a model and a function from the step's number to a loss. All random numbers of a step come from generators
seeded by (seed, stage, step), so a resumed run continues exactly as if it had not been stopped.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and at which learning rate one stage trains.

    The rate rises linearly for `warmup_steps`, stays at `peak_rate`, and falls to 0 along a cosine over the last
    fraction `decay` of the steps. A stopped run may resume with another number of steps if that fall has not begun.
    """

    stage: str
    steps: int
    peak_rate: float
    warmup_steps: int = 50
    decay: float = 0.3
    average: float = 0.997  # of the exponential moving average of the weights
    betas: tuple[float, float] = (0.9, 0.99)
    seed: int = 0
    checkpoint_every_s: float = 60.0
    progress_every: int = 50

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        rising = min(1.0, (step + 1) / self.warmup_steps)
        left = (self.steps - step) / (self.steps * self.decay)
        return self.peak_rate * rising * min(1.0, 0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))

    def randoms(self, step: int) -> tuple[Random, torch.Generator]:
        """The random generators of one step: for drawings and words, and for tensors (on the CPU)."""
        source = Random(f"{self.seed}:{self.stage}:{step}")
        return source, torch.Generator().manual_seed(source.getrandbits(63))


Loss = Callable[[int], Tensor]


@dataclass(slots=True)
class _Run:
    """The state of a training run, which checkpoints save."""

    model: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path, device: str) -> None:
        state = torch.load(path, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def _average(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the averaged weights towards the model's: averaged = keep · averaged + (1 - keep) · model."""
    update = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
    update(list(averaged.parameters()), list(model.parameters()), None)


def fit(
    plan: Plan, *, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, work: Path
) -> float:
    """Train `model` for the plan's steps and leave the averaged weights in `averaged`. Returns the seconds of training,
    those of earlier runs included.

    `loss` computes the scalar loss of a step with the model's own weights. Resumes from the stage's checkpoint in
    `work`, if there is one, and leaves one at the end.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{plan.stage}.checkpoint.pt"
    run = _Run(model, averaged, optimizer)
    if path.exists():
        run.load(path, str(next(model.parameters()).device))
        print(f"{plan.stage}: goes on from step {run.step}", flush=True)
    else:
        averaged.load_state_dict(model.state_dict())
    _steps(plan, run, loss, path)
    run.save(path)
    return run.seconds


def _steps(plan: Plan, run: _Run, loss: Loss, path: Path) -> None:
    running, saved_at, began, before = 0.0, time.monotonic(), time.monotonic(), run.seconds
    while run.step < plan.steps:
        for group in run.optimizer.param_groups:
            group["lr"] = plan.rate(run.step) * group.get("rate_scale", 1.0)
        run.optimizer.zero_grad(set_to_none=True)
        value = loss(run.step)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        run.optimizer.step()
        run.step += 1
        _average(run.averaged, run.model, min(plan.average, run.step / (run.step + 10)))
        running += value.item()
        now = time.monotonic()
        run.seconds = before + now - began
        if run.step % plan.progress_every == 0:
            _report(plan, run, running / plan.progress_every)
            running = 0.0
        if now - saved_at > plan.checkpoint_every_s:
            run.save(path)
            saved_at = now


def _report(plan: Plan, run: _Run, loss: float) -> None:
    line = {
        "stage": plan.stage,
        "step": run.step,
        "of": plan.steps,
        "loss": round(loss, 5),
        "seconds": round(run.seconds, 1),
    }
    print(json.dumps(line), flush=True)
