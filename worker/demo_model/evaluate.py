"""Judges the finished model: `python -m worker.demo_model.evaluate`.

Renders combinations that no stage has seen, half with plain and half with varied wording, reads the pictures with
the checker, writes a contact sheet, and prints as its last line how many pictures were right, as JSON.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from textwrap import wrap
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw

from worker.demo_model.captions import plain_caption, varied_caption
from worker.demo_model.checker import Reading, expected, read_image
from worker.demo_model.export import DEFAULTS_FILE, WEIGHTS
from worker.demo_model.world import ATTRIBUTES, Scene, is_held_out, scenes

_SHEET = (8, 6)  # columns, and at most so many rows, of the contact sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One prompt, the scene that it describes, the rendered picture, and what the checker read in it."""

    scene: Scene
    prompt: str
    picture: Image.Image
    reading: Reading

    @property
    def misses(self) -> tuple[str, ...]:
        """The attributes that came out wrong."""
        return expected(self.scene).misses(self.reading)


def held_out_prompts(count: int, seed: int) -> list[tuple[Scene, str]]:
    """Held-out scenes with a prompt each: plain and varied wording in turn."""
    random = Random(f"{seed}:evaluation")
    chosen = random.sample([scene for scene in scenes() if is_held_out(scene)], count)
    return [
        (scene, varied_caption(scene, random) if index % 2 else plain_caption(scene))
        for index, scene in enumerate(chosen)
    ]


def load(folder: Path) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """The pipeline on this machine's best device, and the model's own defaults."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return pipeline, json.loads((folder / DEFAULTS_FILE).read_text())


def render(pipeline: DiffusionPipeline, prompts: list[str], *, seed: int, steps: int, guidance: float) -> list[Any]:
    """One picture per prompt, each with a seed of its own: seed, seed + 1, …"""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
    output = pipeline(prompt=prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators)
    pictures: list[Any] = output.images
    return pictures


def judge(
    pipeline: DiffusionPipeline, prompts: list[tuple[Scene, str]], *, batch: int, steps: int, guidance: float
) -> list[Trial]:
    """Render every prompt and read what came."""
    trials = []
    for start in range(0, len(prompts), batch):
        block = prompts[start : start + batch]
        texts = [prompt for _, prompt in block]
        pictures = render(pipeline, texts, seed=1000 + start, steps=steps, guidance=guidance)
        trials += [
            Trial(scene=scene, prompt=prompt, picture=picture, reading=read_image(picture))
            for (scene, prompt), picture in zip(block, pictures, strict=True)
        ]
    return trials


def summary(trials: list[Trial]) -> dict[str, float]:
    """The share of pictures (0…1) that are right, per attribute and in all five at once; and the prompts counted."""
    wrong = Counter(name for trial in trials for name in trial.misses)
    parts = {name: round(1 - wrong[name] / len(trials), 4) for name in ATTRIBUTES}
    right = sum(not trial.misses for trial in trials)
    return {"prompts": len(trials), **parts, "all": round(right / len(trials), 4)}


def contact_sheet(trials: list[Trial]) -> Image.Image:
    """The first pictures in rows, with their prompts; what came out wrong is named in red."""
    columns, most = _SHEET
    rows = max(1, min(most, -(-len(trials) // columns)))
    cell, foot = 192, 44
    sheet = Image.new("RGB", (columns * cell, rows * (cell + foot)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, trial in enumerate(trials[: columns * rows]):
        left, top = index % columns * cell, index // columns * (cell + foot)
        sheet.paste(trial.picture.resize((cell - 4, cell - 4)), (left + 2, top + 2))
        for line, words in enumerate(wrap(trial.prompt, 30, max_lines=2, placeholder=" ...")):
            pen.text((left + 4, top + cell + 12 * line), words, fill="black")
        pen.text((left + 4, top + cell + 26), ", ".join(trial.misses), fill="red")
    return sheet


def timings(pipeline: DiffusionPipeline, *, steps: int, guidance: float) -> dict[str, float]:
    """Processor seconds per picture by batch size: the best of three calls, on one thread (also from then on)."""
    torch.set_num_threads(1)
    found = {}
    for batch in (1, 2, 4, 8):
        prompts = ["a large red circle on a white background"] * batch
        calls = []
        for _ in range(3):
            began = time.process_time()  # not wall time, which other work on the machine would lengthen
            render(pipeline, prompts, seed=1, steps=steps, guidance=guidance)
            calls.append((time.process_time() - began) / batch)
        found[str(batch)] = round(min(calls), 4)
    return found


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m worker.demo_model.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="instead of the model's own default")
    parser.add_argument("--guidance", type=float, help="instead of the model's own default")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, default=Path("var/demo-model/contact-sheet.png"))
    parser.add_argument("--timings", action="store_true", help="also measure processor time per picture")
    return parser.parse_args()


def main() -> None:
    """The command."""
    options = arguments()
    torch.set_num_threads(options.threads)
    pipeline, defaults = load(options.model)
    steps = options.steps or defaults["default_num_inference_steps"]
    guidance = defaults["default_guidance_scale"] if options.guidance is None else options.guidance
    prompts = held_out_prompts(options.prompts, options.seed)
    trials = judge(pipeline, prompts, batch=options.batch, steps=steps, guidance=guidance)
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(trials).save(options.sheet)
    confused = Counter((t.scene.shape, str(t.reading.shape)) for t in trials if "shape" in t.misses)
    print("shapes read as others:", {f"{want} as {got}": n for (want, got), n in confused.most_common()})
    print("plain:", json.dumps(summary(trials[0::2])))
    print("varied:", json.dumps(summary(trials[1::2])))
    if options.timings:
        print("core seconds per picture by batch:", json.dumps(timings(pipeline, steps=steps, guidance=guidance)))
    print(json.dumps(summary(trials)))


if __name__ == "__main__":
    main()
