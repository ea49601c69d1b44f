"""What a model can do and how its pipeline is called, from its configs and its class alone: no weights, no torch.

`inspect` reads a folder, `of_pipeline` a loaded pipeline; both apply the same rules. The engine `pipeline` builds its
calls from the result, and the gateway receives it and refuses what the model cannot do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schema import limits
from worker.engines import schedulers
from worker.engines.contract import ModelAbilities
from worker.engines.pipeline import classes as pipeline_classes
from worker.engines.pipeline.classes import PipelineClass

_NEEDED: Final = ("prompt", "width", "height", "num_inference_steps", "generator", "output_type")
_WITHOUT: Final = {
    "prompt": "it makes no picture from a text",
    "width": "sizes cannot be asked for",
    "height": "sizes cannot be asked for",
    "num_inference_steps": "steps cannot be asked for",
    "generator": "seeds would mean nothing",
    "output_type": "its pictures cannot be had as numbers",
}
ALWAYS: Final = -1.0
"""`guidance_off` of a model that makes the second pass at every guidance value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """How a pipeline is called. `problem`: why it cannot be served, or empty.

    `guidance`: "cfg" (a second pass above `guidance_off`), "true" (the same under the name true_cfg_scale), "embedded"
    (a number that the model takes in, without a second pass) or "none". `guidance_argument` is the parameter that takes
    the value. Sides that are no multiple of `size_factor` are rendered larger and cut. 0 stands for not known.
    `fixed`: arguments that have one right value here. `callback`: whether steps are reported by callback_on_step_end.
    `one_prompt`: the call takes no list of prompts. `two_steps_only`: arguments that must be None unless there are
    exactly two steps.
    """

    pipeline: str
    problem: str = ""
    guidance: str = "none"
    guidance_off: float = 0.0
    guidance_argument: str = ""
    negative_prompt: bool = False
    size_factor: int = 0
    max_side: int = 0
    max_steps: int = 0
    schedulers: tuple[str, ...] = ()
    one_prompt: bool = False
    callback: bool = False
    fixed: Mapping[str, Any] | None = None
    two_steps_only: tuple[str, ...] = ()

    def guided(self, scale: float) -> bool:
        """Whether there is a second pass at this value."""
        return self.guidance in ("cfg", "true") and scale > self.guidance_off

    def abilities(self) -> ModelAbilities:
        """The same as the contract's ModelAbilities, for the services that accept requests."""
        return ModelAbilities(
            negative_prompt=self.negative_prompt,
            guidance=self.guidance,
            guidance_off=max(0.0, self.guidance_off),
            size_factor=self.size_factor,
            schedulers=self.schedulers,
            max_width=self.max_side,
            max_height=self.max_side,
            max_steps=self.max_steps,
        )


def inspect(source: str, config: str = "") -> ModelFacts | None:
    """The facts of a diffusers folder, or of a single file's `config` folder; None for anything else. Whatever the
    folder holds, raises nothing.
    """
    folder = Path(config if config and not Path(source).is_dir() else source)
    index = _json(folder / "model_index.json")
    called = pipeline_classes.of_name(str(index.get("_class_name", "")))
    if called is None:
        return None
    parts = {name for name, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}
    configs = {name: _json(folder / name / _CONFIG_FILES.get(name, "config.json")) for name in parts}
    return facts(called, index, configs)


def of_pipeline(pipeline: Any) -> ModelFacts:
    """The facts of a loaded pipeline, with the size factor that the pipeline itself reports."""
    name = type(pipeline).__name__
    called = pipeline_classes.of_name(name)
    if called is None:
        return ModelFacts(pipeline=name, problem="its class is none of the installed diffusers'")
    configs = {
        each: {**part.config, "_class_name": type(part).__name__}
        for each, part in pipeline.components.items()
        if hasattr(part, "config") and isinstance(part.config, Mapping)
    }
    return facts(called, dict(pipeline.config), configs, own_factor=_own_factor(pipeline))


def facts(
    called: PipelineClass, index: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]], *, own_factor: int = 0
) -> ModelFacts:
    """Derive the facts from class and configs. `own_factor`: pixels per latent as the pipeline reports it, or 0."""
    denoiser = _denoiser(configs)
    own = configs.get("scheduler", {})
    kind = str(own.get("_class_name", ""))
    guidance, argument, off = _guidance(called, index, denoiser)
    patch = _patch(denoiser)
    base = _base_factor(configs)
    factor = own_factor or (base * max(patch, 2) if called.packed else base)
    if not called.packed and not (own_factor and own_factor > base > 0):
        factor *= patch
    fixed = {"use_resolution_binning": False, "guidance_schedule": None}
    return ModelFacts(
        pipeline=called.name,
        problem=_problem(called),
        guidance=guidance,
        guidance_off=off,
        guidance_argument=argument,
        negative_prompt=guidance in ("cfg", "true") and "negative_prompt" in called.parameters,
        size_factor=factor,
        max_side=_max_side(called, denoiser, base * patch),
        max_steps=min(schedulers.most_steps(kind, own), limits.MAX_STEPS),
        schedulers=schedulers.names_for(kind, own, called),
        one_prompt=called.one_prompt,
        callback="callback_on_step_end" in called.parameters,
        fixed={name: value for name, value in fixed.items() if name in called.parameters},
        two_steps_only=tuple(name for name in ("intermediate_timesteps",) if name in called.parameters),
    )


_CONFIG_FILES: Final = {"scheduler": "scheduler_config.json"}


def _problem(called: PipelineClass) -> str:
    for name in _NEEDED:
        if name not in called.parameters:
            return f"a {called.name} takes no {name}: {_WITHOUT[name]}"
    more = [name for name in called.required if name != "prompt"]
    return f"a {called.name} needs {', '.join(more)} beside a prompt" if more else ""


def _guidance(called: PipelineClass, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> tuple[str, str, float]:
    """The kind of guidance, the parameter that takes its value, and the value up to which it is off."""
    scale, true_scale = "guidance_scale" in called.parameters, "true_cfg_scale" in called.parameters
    embedded = denoiser.get("guidance_embeds") or denoiser.get("time_cond_proj_dim") is not None
    if scale and (embedded or called.unguided):
        return "embedded", "guidance_scale", ALWAYS
    if true_scale and (not scale or float(called.parameters["true_cfg_scale"] or 0) > 1):
        return "true", "true_cfg_scale", 1.0
    if not scale or true_scale or (called.distillable and index.get("is_distilled")):
        return "none", "", 0.0
    return "cfg", "guidance_scale", ALWAYS if called.off is None else called.off


def _denoiser(configs: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return configs.get("transformer") or configs.get("unet") or {}


def _patch(denoiser: Mapping[str, Any]) -> int:
    found = denoiser.get("patch_size")
    sides: Sequence[Any] = found if isinstance(found, list | tuple) else [found]
    return max((side for side in sides if isinstance(side, int)), default=1) or 1


def _base_factor(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Pixels per latent, as the autoencoder's config says; 0: it does not."""
    vae = configs.get("vae") or configs.get("movq") or configs.get("vqvae") or {}
    if isinstance(vae.get("spatial_compression_ratio"), int):
        return int(vae["spatial_compression_ratio"])
    for name, less in (("temperal_downsample", 0), ("encoder_block_out_channels", 1), ("block_out_channels", 1)):
        if isinstance(vae.get(name), list | tuple):
            return int(2 ** (len(vae[name]) - less))
    return 0


def _own_factor(pipeline: Any) -> int:
    """Pixels that the loaded pipeline rounds sizes to, without its transformer's patches; 0 if it does not say."""
    processor = getattr(getattr(pipeline, "image_processor", None), "config", {})
    said = (
        processor.get("vae_scale_factor"),
        getattr(pipeline, "vae_scale_factor", None),
        getattr(pipeline, "vae_scale_factor_spatial", None),
    )
    return max((int(each) for each in said if isinstance(each, int)), default=0)


def _max_side(called: PipelineClass, denoiser: Mapping[str, Any], factor: int) -> int:
    """The largest side in pixels where positions are a table of fixed length (Stable Diffusion 3); 0: not known."""
    places = denoiser.get("pos_embed_max_size")
    if not called.name.startswith("StableDiffusion3") or not isinstance(places, int):
        return 0
    return min(places * factor, limits.MAX_SIDE_PX)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
