"""What a request may ask of one model: the bounds of the models file, narrowed by what is known of the model itself.

Pure. `submissions` validates by it, `/v1/models` shows it. What is not known is accepted; a worker then refuses what
the model cannot do, once, with the reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.ports import Model
from schema import schedulers


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Bounds by field as (least, most), and the values of `scheduler`."""

    bounds: dict[str, tuple[float, float]]
    schedulers: tuple[str, ...]


def of(model: Model) -> Abilities:
    """As far as the models file tells."""
    bounds: dict[str, tuple[float, float]] = {
        "width": (model.min_width, model.max_width),
        "height": (model.min_height, model.max_height),
        "num_inference_steps": (model.min_num_inference_steps, model.max_num_inference_steps),
        "guidance_scale": (model.min_guidance_scale, model.max_guidance_scale),
    }
    names = () if model.engine == "http" and model.api == "openai" else schedulers.NAMES
    return Abilities(bounds=bounds, schedulers=names)


def problems(able: Abilities, asked: dict[str, float], scheduler: str | None) -> Iterator[tuple[str, str]]:
    """Field and message for all that this model cannot do. `asked` by the names of the bounds, defaults filled in."""
    for name, value in asked.items():
        low, high = able.bounds[name]
        if value < low:
            yield name, f"must be at least {low:g} for this model"
        elif value > high:
            yield name, f"may be at most {high:g} for this model"
    if scheduler is not None and scheduler not in able.schedulers:
        known = f"must be one of {', '.join(able.schedulers)}" if able.schedulers else "cannot be chosen"
        yield "scheduler", f"{known} for this model"
