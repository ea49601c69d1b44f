"""The tables of the latent engine against diffusers' own schedulers, step by step, over a small nonlinear model."""

import itertools
from typing import Any

import diffusers
import pytest
import torch

from worker.engines.errors import LoadFailed, Unsupported
from worker.engines.latent.solver_table import HEAD, Schedule, Schedules
from worker.engines.schedulers import DISCRETE, fresh_scheduler

WIDTH = 64
MIX = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)) / 8
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SPACINGS = ("leading", "linspace", "trailing")
PREDICTIONS = ("epsilon", "v_prediction")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


def predicted(sample: torch.Tensor, timestep: float) -> torch.Tensor:
    return torch.tanh(sample @ MIX) * 0.9 + timestep / 10_000


def by_diffusers(scheduler: Any, noise: torch.Tensor, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    sample: torch.Tensor = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        output = predicted(scheduler.scale_model_input(sample, timestep), float(timestep))
        sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
    return sample


def by_table(schedule: Schedule, slots: int, noise: torch.Tensor) -> torch.Tensor:
    state = torch.zeros(1, slots, WIDTH)
    state[0, 0] = noise[0] * schedule.start
    for row in schedule.rows:
        output = predicted(state[:, 0] * row[1], float(row[0]))
        matrix = row[HEAD:].view(1, slots, slots + 1)
        state = torch.bmm(matrix, torch.cat([state, output[:, None]], dim=1))
    return state[:, 0]


def assert_equal(own: Any, name: str, steps: int, tolerance: float = 5e-6) -> None:
    noise = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(steps))
    schedules = Schedules(own)
    ours = by_table(schedules.of(name, steps), schedules.slots, noise)
    theirs = by_diffusers(fresh_scheduler(own, name), noise, steps)
    assert float((ours - theirs).abs().max() / (1 + theirs.abs().max())) < tolerance


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", DISCRETE)
def test_a_table_gives_what_diffusers_gives(name: str, prediction: str, spacing: str, zero_snr: bool) -> None:
    own = diffusers.EulerDiscreteScheduler(
        prediction_type=prediction, timestep_spacing=spacing, rescale_betas_zero_snr=zero_snr, steps_offset=1, **BETAS
    )
    if name == "ddim" and prediction == "epsilon" and zero_snr and spacing != "leading":
        with pytest.raises(Unsupported, match="zero terminal SNR"):
            Schedules(own).of(name, 5)
        return
    # At sigma 4096 diffusers' float32 loses what the table, made in float64, keeps.
    tolerance = 2e-3 if name == "euler" and zero_snr and prediction == "v_prediction" else 5e-6
    for steps in (1, 2, 3, 14, 15, 30):
        assert_equal(own, name, steps, tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"solver_type": "heun"},
        {"solver_order": 1},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ],
)
def test_the_options_of_dpm_solver(options: dict[str, Any]) -> None:
    own = diffusers.DPMSolverMultistepScheduler(**BETAS, **options)
    for steps in (1, 2, 5, 16):
        assert_equal(own, "", steps)


@pytest.mark.parametrize(
    "options", [{"final_sigmas_type": "sigma_min"}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]
)
def test_the_options_of_euler(options: dict[str, Any]) -> None:
    own = diffusers.EulerDiscreteScheduler(**BETAS, **options)
    for steps in (2, 5, 16):
        assert_equal(own, "", steps)


def test_ddim_may_end_at_the_first_training_step() -> None:
    own = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **BETAS)
    for steps in (1, 7):
        assert_equal(own, "", steps)


@pytest.mark.parametrize(("prediction", "spacing"), list(itertools.product(PREDICTIONS, SPACINGS)))
def test_what_stable_diffusion_1_comes_with(prediction: str, spacing: str) -> None:
    own = diffusers.PNDMScheduler(
        skip_prk_steps=True, prediction_type=prediction, timestep_spacing=spacing, steps_offset=1, **BETAS
    )
    for steps in (1, 2, 3, 4, 5, 30):
        assert_equal(own, "", steps)
    assert Schedules(own).of("", 30).steps == 31
    assert_equal(own, "dpmpp_2m", 6)


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("UniPCMultistepScheduler", {}, "UniPCMultistepScheduler"),
        ("EulerAncestralDiscreteScheduler", {}, "EulerAncestralDiscreteScheduler"),
        ("PNDMScheduler", {}, "skip_prk_steps"),
        ("DDIMScheduler", {}, "clip_sample"),
        ("DDIMScheduler", {"clip_sample": False, "thresholding": True}, "thresholding"),
        ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}, "prediction_type"),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "interpolation_type"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "solver_order"),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}, "lambda_min_clipped"),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas"),
        ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, "use_lu_lambdas"),
        ("DPMSolverMultistepScheduler", {"variance_type": "learned"}, "variance_type"),
        (
            "DDIMScheduler",
            {"clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            "SNR",
        ),
    ],
)
def test_what_a_table_cannot_express_is_refused_with_its_name(kind: str, options: dict[str, Any], named: str) -> None:
    own = getattr(diffusers, kind)(**options)
    with pytest.raises(LoadFailed, match=named):
        Schedules(own)


def test_rounding_adds_no_step() -> None:
    own = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **BETAS)
    schedules = Schedules(own)
    for name in ("", *DISCRETE):
        rows = schedules.of(name, 61).rows
        assert len(rows) == 61
        assert float(rows[-1, 0]) > 0


def test_only_so_many_tables_are_kept() -> None:
    schedules = Schedules(diffusers.DDIMScheduler(clip_sample=False, **BETAS))
    first = schedules.of("euler", 1)
    assert schedules.of("euler", 1) is first
    for steps in range(2, 100):
        schedules.of("euler", steps)
    assert schedules.of("euler", 1) is not first
    assert len(schedules._kept) == 64
