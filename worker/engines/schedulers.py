"""Schedulers that a request may name, and their classes in diffusers; an empty name means the model's own.

Which of them a model accepts follows from its own scheduler's class and config and from how its pipeline calls it.
"""

from collections.abc import Mapping
from typing import Any, Final

from schema.schedulers import NAMES
from worker.engines.pipeline.classes import PipelineClass

DISCRETE: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}
"""For models that predict noise or velocity."""

_FLOW: Final[Mapping[str, str]] = {
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
    "flow_dpmpp_2m": "DPMSolverMultistepScheduler",
}
_INTERCHANGEABLE: Final = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "PNDMScheduler",
        "LMSDiscreteScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "LCMScheduler",
        "TCDScheduler",
    }
)
_FLOW_CLASSES: Final = frozenset(_FLOW.values())


def is_flow(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler of this class and config is one for flow matching."""
    by_config = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    return kind.startswith("FlowMatch") or bool(by_config)


def names_for(kind: str, config: Mapping[str, Any], called: PipelineClass) -> tuple[str, ...]:
    """What a request may name, given the class and config of the model's own scheduler."""
    if is_flow(kind, config):
        if kind not in _FLOW_CLASSES:
            return ()
        # DPMSolverMultistepScheduler.set_timesteps takes no sigmas.
        return tuple(name for name in NAMES if name in _FLOW and (name == "flow_euler" or not called.own_sigmas))
    learned = str(config.get("variance_type") or "").startswith("learned") and kind == "DDPMScheduler"
    if kind not in _INTERCHANGEABLE or "original_inference_steps" in called.parameters or learned:
        return ()
    return tuple(name for name in NAMES if name in DISCRETE)


def most_steps(kind: str, config: Mapping[str, Any]) -> int:
    """The most steps that the model's own scheduler has; 0: not known. Consistency models choose their steps among
    `original_inference_steps`, the others among `num_train_timesteps`.
    """
    bounds = [config.get("num_train_timesteps", 0)]
    if kind in ("LCMScheduler", "TCDScheduler"):
        bounds.append(config.get("original_inference_steps", 50))
    known = [int(each) for each in bounds if isinstance(each, int) and each > 0]
    return 0 if is_flow(kind, config) or not known else min(known)


def fresh_scheduler(own: Any, name: str) -> Any:
    """A new scheduler without state, of the requested name, configured like the model's `own`."""
    if not name:
        return type(own).from_config(own.config)
    import diffusers  # noqa: PLC0415  (heavy)

    if name in DISCRETE:
        kind, options = DISCRETE[name]
        return getattr(diffusers, kind).from_config(own.config, **options)
    return getattr(diffusers, _FLOW[name]).from_config(own.config, **_flow_options(name, own.config))


def _flow_options(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a flow-matching scheduler: each class has its own name for the shift."""
    if name == "flow_euler":
        return {"shift": config.get("flow_shift", config.get("shift", 1.0))}
    return {
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "algorithm_type": "dpmsolver++",
        "flow_shift": config.get("shift", config.get("flow_shift", 1.0)),
    }
