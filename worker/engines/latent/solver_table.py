"""The mathematics of one image's denoising, as a table: one row per step, computed once when the image is admitted.

A row holds the timestep, the scale of the model's input, and a small matrix. With the image's state (its latents, and
what its solver remembers of earlier steps) as rows of `known`, and the model's output below them, a step is
`state = matrix @ known`: linear in all of them for DDIM (eta 0), Euler, DPM-Solver++ and PLMS, for noise and velocity
prediction alike. So images of different schedulers, step counts and ages go through one product, and an image can stop
and go on at any step: its state and the number of its next row are all that must be kept.

Timesteps and noise levels are diffusers' own (`set_timesteps`), coefficients are computed in double precision.
"""

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from worker.engines.errors import Incapable, LoadFailed
from worker.engines.schedulers import DISCRETE, fresh_scheduler

_KEPT = 64
HEAD = 2
"""Numbers before the matrix in a row: timestep, scale of the model's input."""

_TAKEN: Final[Mapping[str, Collection[Any]]] = {
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "thresholding": (False,),
    "clip_sample": (False,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "algorithm_type": ("dpmsolver++",),
    "solver_order": (1, 2),
    "solver_type": ("midpoint", "heun"),
    "lambda_min_clipped": (-math.inf,),
    "variance_type": (None,),
    "use_beta_sigmas": (False,),
    "use_lu_lambdas": (False,),
    "use_flow_sigmas": (False,),
    "use_dynamic_shifting": (False,),
    "skip_prk_steps": (True,),
}
"""Values of a scheduler's options that the tables below express; options not named here are within `set_timesteps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One table. `rows`: steps x (HEAD + slots * (slots + 1)), float32, on the CPU. `start`: the factor of the initial
    noise. `scheduler`: the class in diffusers.
    """

    scheduler: str
    start: float
    rows: torch.Tensor = field(repr=False)

    @property
    def steps(self) -> int:
        """Passes through the model; PLMS takes one more than asked for."""
        return self.rows.shape[0]


class Schedules:
    """Tables of one model, by the request's scheduler and step count; a bounded number is kept."""

    def __init__(self, own: Any) -> None:
        """Raises LoadFailed when the model's own scheduler is none that a table can express."""
        self._own = own
        self._kept: OrderedDict[tuple[str, int], Schedule] = OrderedDict()
        self.slots = max(
            _WAYS[kind].slots
            for kind in (*(kind for kind, _ in DISCRETE.values()), type(own).__name__)
            if kind in _WAYS
        )
        """Tensors in each image's state: latents first, then the solver's memory."""
        self.refused = {name: text for name in ("", *DISCRETE) if (text := self._refusal(name))}
        """Schedulers that requests cannot name, and why."""
        if "" in self.refused:
            raise LoadFailed(
                f'{self.refused[""]}; use engine = "pipeline", or another scheduler in the model\'s folder'
            )

    def of(self, name: str, steps: int) -> Schedule:
        """The table of a scheduler ("" for the model's own) for that many steps. Raises Incapable."""
        if name in self.refused:
            raise Incapable(self.refused[name])
        found = self._kept.pop((name, steps), None) or self._build(name, steps)
        self._kept[name, steps] = found
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    def _refusal(self, name: str) -> str:
        try:
            problem = _problem(fresh_scheduler(self._own, name))
            if not problem:
                self._build(name, 2)
        except (Incapable, ValueError, NotImplementedError, ImportError) as error:  # the latter are diffusers' own
            return str(error) or type(error).__name__
        return problem

    def _build(self, name: str, steps: int) -> Schedule:
        scheduler = fresh_scheduler(self._own, name)
        scheduler.set_timesteps(steps)
        kind = type(scheduler).__name__
        rows = np.array([_row(*each, slots=self.slots) for each in _WAYS[kind].table(scheduler, steps)])
        if not np.isfinite(rows).all():  # noise prediction says nothing where no signal is left
            raise Incapable(f"{kind} cannot start from zero terminal SNR with this model's prediction type")
        return Schedule(
            scheduler=kind, start=float(scheduler.init_noise_sigma), rows=torch.from_numpy(rows.astype(np.float32))
        )


_Weights = Mapping[tuple[int, int], float]
"""Entries of a matrix by (row, column) that are not zero; column -1 is the model's output."""
_Table = list[tuple[float, float, _Weights]]
OUT: Final = -1


def _row(timestep: float, scale: float, weights: _Weights, *, slots: int) -> "np.ndarray[Any, Any]":
    matrix = np.zeros((slots, slots + 1))
    for place, weight in weights.items():
        matrix[place] = weight
    return np.concatenate([[timestep, scale], matrix.ravel()])


def _ddim(scheduler: Any, steps: int) -> _Table:
    """Formula (12) of arXiv 2010.02502 with eta 0: the latents alone."""
    stride = scheduler.config.num_train_timesteps // steps
    table: _Table = []
    for timestep in _timesteps(scheduler, steps):
        now, then = _signal(scheduler, timestep), _signal(scheduler, timestep - stride)
        a, b = math.sqrt(now), math.sqrt(1 - now)
        a_then, b_then = math.sqrt(then), math.sqrt(1 - then)
        if scheduler.config.prediction_type == "epsilon":
            keep, add = _divided(a_then, a), b_then - _divided(a_then * b, a)
        else:
            keep, add = a_then * a + b_then * b, b_then * a - a_then * b
        table.append((timestep, 1.0, {(0, 0): keep, (0, OUT): add}))
    return table


def _euler(scheduler: Any, steps: int) -> _Table:
    """Algorithm 2 of arXiv 2206.00364 without churn: the latents alone, in units of the noise."""
    sigmas = _sigmas(scheduler, steps)
    table: _Table = []
    for index, timestep in enumerate(_timesteps(scheduler, steps)):
        sigma, then = sigmas[index], sigmas[index + 1]
        scale = 1 / math.sqrt(sigma**2 + 1)
        if scheduler.config.prediction_type == "epsilon":
            keep, add = 1.0, then - sigma
        else:
            keep, add = (1 + sigma * then) * scale**2, (then - sigma) * scale
        table.append((timestep, scale, {(0, 0): keep, (0, OUT): add}))
    return table


def _dpmpp_2m(scheduler: Any, steps: int) -> _Table:
    """Algorithm 2 of arXiv 2211.01095: the latents, and the picture predicted in the step before."""
    config = scheduler.config
    sigmas = _sigmas(scheduler, steps)
    table: _Table = []
    for index, timestep in enumerate(_timesteps(scheduler, steps)):
        sigma, then = sigmas[index], sigmas[index + 1]
        alpha, alpha_then = 1 / math.sqrt(sigma**2 + 1), 1 / math.sqrt(then**2 + 1)
        ratio = then / sigma  # exp(-h): lambda is -log(sigma)
        new = -alpha_then * (ratio - 1)
        old = 0.0
        final = index == steps - 1 and (
            config.euler_at_final or (config.lower_order_final and steps < 15) or config.final_sigmas_type == "zero"
        )
        if config.solver_order == 2 and index > 0 and not final:
            h, h_before = -math.log(ratio), math.log(sigmas[index - 1] / sigma)
            bend = 0.5 * new if config.solver_type == "midpoint" else alpha_then * ((ratio - 1) / h + 1)
            old = bend * h / h_before
        if config.prediction_type == "epsilon":
            from_x, from_out = 1 / alpha, -sigma
        else:
            from_x, from_out = alpha, -sigma * alpha
        weights = {
            (0, 0): ratio * alpha_then / alpha + (new + old) * from_x,
            (0, 1): -old,
            (0, OUT): (new + old) * from_out,
            (1, 0): from_x,
            (1, OUT): from_out,
        }
        table.append((timestep, 1.0, weights))
    return table


def _plms(scheduler: Any, steps: int) -> _Table:
    """Formula (9) of arXiv 2202.09778 without Runge-Kutta steps, as Stable Diffusion 1.x comes with.

    The latents, and three earlier outputs; the first step is done again with the mean of two outputs, from latents
    that wait in the last slot.
    """
    stride = scheduler.config.num_train_timesteps // steps
    shift = {(2, 1): 1.0, (3, 2): 1.0, (1, OUT): 1.0}
    mixes: list[tuple[_Weights, Mapping[int, float], int]] = [
        ({(1, OUT): 1.0, (3, 0): 1.0}, {OUT: 1.0}, 0),
        ({(1, 1): 1.0}, {OUT: 1 / 2, 1: 1 / 2}, 3),
        (shift, {OUT: 3 / 2, 1: -1 / 2}, 0),
        (shift, {OUT: 23 / 12, 1: -16 / 12, 2: 5 / 12}, 0),
        (shift, {OUT: 55 / 24, 1: -59 / 24, 2: 37 / 24, 3: -9 / 24}, 0),
    ]
    table: _Table = []
    for index, timestep in enumerate(_timesteps(scheduler, steps + 1)):
        memory, mix, base = mixes[min(index, 4)]
        at = timestep + stride if index == 1 else timestep
        now, then = _signal(scheduler, at), _signal(scheduler, at - stride)
        keep = math.sqrt(then / now)
        add = (now - then) / (now * math.sqrt(1 - then) + math.sqrt(now * (1 - now) * then))
        if scheduler.config.prediction_type == "v_prediction":
            keep, add = keep + add * math.sqrt(1 - now), add * math.sqrt(now)
        weights = {**memory, (0, base): keep}
        for slot, part in mix.items():
            weights[0, slot] = weights.get((0, slot), 0.0) + add * part
        table.append((timestep, 1.0, weights))
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    table: Callable[[Any, int], _Table]
    slots: int


_WAYS: Final[Mapping[str, _Way]] = {
    "DDIMScheduler": _Way(table=_ddim, slots=1),
    "EulerDiscreteScheduler": _Way(table=_euler, slots=1),
    "DPMSolverMultistepScheduler": _Way(table=_dpmpp_2m, slots=2),
    "PNDMScheduler": _Way(table=_plms, slots=4),
}


def _problem(scheduler: Any) -> str:
    """Why no table can express the scheduler; empty if one can."""
    kind = type(scheduler).__name__
    if kind not in _WAYS:
        return f"scheduler {kind} is none of {', '.join(_WAYS)}"
    for option in inspect.signature(type(scheduler).__init__).parameters:
        value = scheduler.config.get(option)
        if option in _TAKEN and (value or None) not in [each or None for each in _TAKEN[option]]:
            return f"{kind} with {option} = {value!r} is not supported"
    return ""


def _timesteps(scheduler: Any, steps: int) -> list[float]:
    """The first `steps` timesteps: rounding lets diffusers' trailing spacing add one, at -1, for 61, 103, 121 and
    122 steps of 1,000.
    """
    return [float(each) for each in scheduler.timesteps[:steps]]


def _sigmas(scheduler: Any, steps: int) -> list[float]:
    return [*(float(each) for each in scheduler.sigmas[:steps]), float(scheduler.sigmas[-1])]


def _signal(scheduler: Any, timestep: float) -> float:
    """alpha_bar at a timestep, in [0, 1]; below 0 the scheduler's final one."""
    at = int(timestep)
    return float(scheduler.alphas_cumprod[at] if at >= 0 else scheduler.final_alpha_cumprod)


def _divided(one: float, other: float) -> float:
    return one / other if other else math.inf
