"""One call of a diffusers pipeline: its arguments from the jobs, what it did, and what it refused.

No option is silently dropped: a pipeline without a needed parameter is refused when it is loaded (`capabilities`), and
a job that asks for more than the model can do raises Incapable here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from worker.engines.contract import Made, RenderJob
from worker.engines.errors import Incapable
from worker.engines.pipeline.capabilities import ModelFacts
from worker.engines.pixels import renderable


def require(facts: ModelFacts, job: RenderJob) -> None:
    """Raises Incapable for what the model cannot do; the text names the field and what the model can do."""
    if job.scheduler and job.scheduler not in facts.schedulers:
        known = f"must be one of {', '.join(facts.schedulers)}" if facts.schedulers else "cannot be chosen"
        raise Incapable(f"scheduler {known} for this model")
    if job.negative_prompt and not facts.negative_prompt:
        raise Incapable("negative_prompt: this model knows none")
    if facts.max_steps and job.num_inference_steps > facts.max_steps:
        raise Incapable(f"num_inference_steps may be at most {facts.max_steps} for this model")
    for name, side in (("width", job.width), ("height", job.height)):
        if facts.max_side and side > facts.max_side:
            raise Incapable(f"{name} may be at most {facts.max_side} for this model")


def arguments(facts: ModelFacts, jobs: Sequence[RenderJob], generators: Sequence[Any]) -> dict[str, Any]:
    """The arguments of the pipeline's call. Without a negative prompt the argument is left out, so that the pipeline's
    own default applies (zeros, "" or nothing); it is "" only where that default would turn guidance off ("true").
    """
    first = jobs[0]
    found: dict[str, Any] = {
        "prompt": [job.prompt for job in jobs],
        "width": renderable(first.width, facts.size_factor or 1),
        "height": renderable(first.height, facts.size_factor or 1),
        "num_inference_steps": first.num_inference_steps,
        "generator": list(generators),
        "output_type": "np",
        **(facts.fixed or {}),
    }
    if facts.guidance_argument:
        found[facts.guidance_argument] = first.guidance_scale
    if facts.guided(first.guidance_scale) and (first.negative_prompt or facts.guidance == "true"):
        found["negative_prompt"] = [job.negative_prompt for job in jobs]
    if first.num_inference_steps != 2:
        found |= dict.fromkeys(facts.two_steps_only)
    if facts.one_prompt:
        for name in ("prompt", "negative_prompt", "generator"):
            if name in found:
                (found[name],) = found[name]
    return found


def made(facts: ModelFacts, job: RenderJob, width: int, height: int) -> Made:
    """What the call did for this job, with the size in pixels that it rendered."""
    guided = facts.guided(job.guidance_scale)
    return Made(
        guidance=facts.guidance,
        guidance_scale=job.guidance_scale if guided or facts.guidance == "embedded" else 0.0,
        negative_prompt=guided and bool(job.negative_prompt),
        width=width,
        height=height,
    )


def refusal(error: Exception, jobs: Sequence[RenderJob]) -> Incapable:
    """The error for a request that the pipeline's own input check rejects, with its text if that holds no prompt."""
    text = " ".join(str(error).split())
    held = [each for job in jobs for each in (job.prompt, job.negative_prompt) if each]
    private = "prompt" in text or any(each in text or repr(each)[1:-1] in text for each in held)
    return Incapable("the pipeline refuses the request" + ("" if private or not text else f": {text}")[:160])


def count_steps(scheduler: Any, on_step: Callable[[int], None]) -> None:
    """Makes `scheduler`, which belongs to one call, report each of its steps: for pipelines without a callback."""
    done = 0
    step = scheduler.step

    @functools.wraps(step)  # pipelines look at its signature
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        result = step(*args, **kwargs)
        done += 1
        on_step(done)
        return result

    scheduler.step = counted
