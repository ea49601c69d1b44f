"""What a request may ask of one model: the bounds of the models file, narrowed by reported capabilities.

Pure. `submissions` validates requests by it, `/v1/models` shows it. Until a worker has reported, a request may pass
that the model cannot serve; the worker then refuses it with the reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.bodies.requests import GenerationRequest
from gateway.ports import ModelEntry
from schema import fast, schedulers

BOUNDED = ("width", "height", "num_inference_steps", "guidance_scale")
"""The fields for which a model has defaults and bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Bounds by field as (least, most), and the values of `scheduler`.

    `guidance` is a kind as in ModelCapabilities; it and `negative_prompt` are None while no worker has reported.
    """

    bounds: Mapping[str, tuple[float, float]]
    schedulers: tuple[str, ...]
    guidance: str | None = None
    negative_prompt: bool | None = None


def of(model: ModelEntry, reported: fast.ModelCapabilities | None = None) -> Abilities:
    """What the models file and the reported capabilities allow."""
    bounds: dict[str, tuple[float, float]] = {
        name: (getattr(model, f"min_{name}"), getattr(model, f"max_{name}")) for name in BOUNDED
    }
    names = () if model.engine == "http" and model.api == "openai" else schedulers.NAMES
    if reported is None:
        return Abilities(bounds=bounds, schedulers=names)
    for name, low, high in (
        ("width", reported.min_width, reported.max_width),
        ("height", reported.min_height, reported.max_height),
        ("num_inference_steps", reported.min_steps, reported.max_steps),
    ):
        least, most = bounds[name]
        bounds[name] = (max(least, low), min(most, high or most))  # 0: the worker does not know a bound
    return Abilities(
        bounds=bounds,
        schedulers=tuple(reported.schedulers),
        guidance=reported.guidance,
        negative_prompt=reported.negative_prompt,
    )


def problems(
    able: Abilities, model: ModelEntry, wanted: GenerationRequest, asked: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Field and message for each thing that this model cannot do. `asked`: the bounded fields, with defaults."""
    for name, value in asked.items():
        low, high = able.bounds[name]
        if value < low:
            yield name, f"must be at least {low:g} for this model"
        elif value > high:
            yield name, f"may be at most {high:g} for this model"
    if wanted.scheduler is not None and wanted.scheduler not in able.schedulers:
        known = f"must be one of {', '.join(able.schedulers)}" if able.schedulers else "cannot be chosen"
        yield "scheduler", f"{known} for this model"
    if wanted.negative_prompt and able.negative_prompt is False:
        yield "negative_prompt", "is not taken by this model; leave it out"
    # 0 and 1 ask for no guidance; the default is what a client may copy from /v1/models.
    harmless = (None, 0, 1, model.guidance_scale)
    if able.guidance == "none" and wanted.guidance_scale not in harmless:
        yield "guidance_scale", "has no effect on this model, which has no guidance; leave it out"
