"""One denoising step of many images at once, each at a step of its own.

Knows tensors only: a `LatentState` carries all that its image's next step needs. A member that is left out of a step is
thereby parked, and continues unchanged when it is passed in again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from worker.engines.latent.conditioning import Condition, stacked
from worker.engines.latent.solver_table import HEAD, Schedule


@dataclass(slots=True, kw_only=True, eq=False)
class LatentState:
    """One image between two steps. `state`: slots x channels x height x width, float32: the latents, then the solver's
    memory of earlier steps.

    `wanted` is the prompt's condition, `unwanted` the negative prompt's, None without guidance. `index`: the next step.
    """

    schedule: Schedule
    state: torch.Tensor
    wanted: Condition
    unwanted: Condition | None
    guidance: float
    index: int = 0

    @property
    def finished(self) -> bool:
        """Whether `state[0]` is the picture's latents."""
        return self.index >= self.schedule.steps

    def keep(self) -> None:
        """Copy `state` out of the batch's tensor, which it would otherwise keep alive."""
        self.state = self.state.clone()


class Model(Protocol):
    """Predicts noise or velocity. `sample`: batch x channels x height x width; `timesteps`: one per image."""

    def __call__(self, sample: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor: ...


class UNet:
    """A UNet2DConditionModel."""

    def __init__(self, unet: Any) -> None:
        self._unet = unet

    def __call__(self, sample: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        """In the model's dtype in and out."""
        predicted: torch.Tensor = self._unet(sample, timesteps, return_dict=False, **condition)[0]
        return predicted


class Denoiser:
    """Steps the members of a batch; reuses the batch's tensors as long as the members stay the same."""

    def __init__(self, model: Model, *, device: str, dtype: torch.dtype) -> None:
        self._model = model
        self._device = torch.device(device)
        self._dtype = dtype
        self.forget()

    def forget(self) -> None:
        """Let go of the last batch."""
        self._last: list[LatentState] = []
        self._state: torch.Tensor | None = None
        self._condition: Condition = {}

    def step(self, members: Sequence[LatentState]) -> None:
        """One step of each; all with guidance or all without."""
        guided = members[0].unwanted is not None
        state = self._gather(members)
        batch, slots = state.shape[:2]
        numbers = self._numbers(members)
        timesteps, scale, guidance = numbers[:, 0], numbers[:, 1], numbers[:, -1]
        sample = (state[:, 0] * scale.view(-1, 1, 1, 1)).to(self._dtype)
        if guided:
            both = self._model(torch.cat([sample, sample]), torch.cat([timesteps, timesteps]), self._condition)
            away, towards = both.float().chunk(2)
            predicted = away + guidance.view(-1, 1, 1, 1) * (towards - away)
        else:
            predicted = self._model(sample, timesteps, self._condition).float()
        known = torch.cat([state, predicted.unsqueeze(1)], dim=1)
        matrix = numbers[:, HEAD:-1].view(batch, slots, slots + 1)
        self._state = torch.bmm(matrix, known.flatten(2)).view_as(state)
        for member, after in zip(members, self._state, strict=True):
            member.state = after
            member.index += 1

    def _gather(self, members: Sequence[LatentState]) -> torch.Tensor:
        if self._state is None or self._last != list(members):
            self._last = list(members)
            self._state = torch.stack([member.state for member in members])
            unwanted = [member.unwanted for member in members if member.unwanted is not None]
            self._condition = stacked([*unwanted, *(member.wanted for member in members)])
        return self._state

    def _numbers(self, members: Sequence[LatentState]) -> torch.Tensor:
        """The members' schedule rows, each followed by its guidance value: one small copy to the device per step."""
        rows = torch.stack([member.schedule.rows[member.index] for member in members])
        guidance = torch.tensor([[member.guidance] for member in members])
        return moved(torch.cat([rows, guidance], dim=1), self._device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """From the CPU to `device`, without waiting for what runs there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
