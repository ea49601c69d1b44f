"""The denoiser's optimizer: Muon for the large matrices, AdamW for everything else.

Muon (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon) moves each weight matrix by its momentum made
orthogonal with a Newton-Schulz iteration; kernels of convolutions count as matrices of (out, in · height · width).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from worker.demo_model.fitting import Plan

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(matrices: Tensor, rounds: int = 5) -> Tensor:
    """About the nearest matrices with singular values of 1; shape (count, rows, columns) in and out."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT.contiguous() if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups marked `muon` take orthogonal momentum steps instead."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all weights once."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step(closure)
        self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._turn(group)

    def _turn(self, group: dict[str, Any]) -> None:
        """The Muon step of a group; matrices of one shape are made orthogonal together."""
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                matrix = self._ahead(parameter, parameter.grad).reshape(parameter.shape[0], -1)
                alike.setdefault(matrix.shape, []).append((parameter, matrix))
        for shape, pairs in alike.items():
            updates = orthogonal(torch.stack([matrix for _, matrix in pairs]))
            scale = 0.2 * max(shape) ** 0.5  # gives the update a root mean square of 0.2, like an Adam step
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _ahead(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Updates the momentum and returns the Nesterov gradient."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # unused here, but AdamW expects it when it loads a checkpoint
        state["momentum"].lerp_(gradient, 0.05)
        ahead: Tensor = gradient.lerp(state["momentum"], 0.95)
        return ahead


def optimizer_for(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Muon for matrices and kernels inside the model, AdamW for vectors, embeddings and both ends."""
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        ends = name.startswith(("conv_in", "conv_out", "time_embedding", "add_embedding"))
        (outer if ends or parameter.ndim < 2 else inner).append(parameter)
    groups = [{"params": inner, "muon": True}, {"params": outer, "muon": False, "rate_scale": 0.6}]
    return MuonAdamW(groups, lr=plan.peak_rate, betas=plan.betas, weight_decay=1e-2)
