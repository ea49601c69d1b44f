"""Writes the finished model as a stock diffusers folder, mostly in half precision, with the defaults that suit it."""

import hashlib
import json
from pathlib import Path

from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from worker.demo_model.unet import new_scheduler
from worker.demo_model.world import PIXELS

WEIGHTS = Path(__file__).parent / "weights"
DEFAULTS_FILE = "darkroom.json"  # the loader of diffusers leaves it alone
STEPS = 8
GUIDANCE_SCALE = 1.5


def revision_of(folder: Path) -> str:
    """Identifies these weights and settings: 16 hex digits of SHA-256 over every file but the defaults file."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != DEFAULTS_FILE:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _drop_what_loading_warns_of(config: Path) -> None:
    """Remove an entry that `AutoencoderTiny` saves but warns about on loading, and computes by itself anyway."""
    entries = json.loads(config.read_text())
    entries.pop("block_out_channels")
    config.write_text(json.dumps(entries, indent=2) + "\n")


def export(
    folder: Path,
    *,
    vae: AutoencoderTiny,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> None:
    """Write the folder that `DiffusionPipeline.from_pretrained` loads."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder,  # single precision: transformers would load it in half, unlike diffusers
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    _drop_what_loading_warns_of(folder / "vae" / "config.json")
    defaults = {
        "default_num_inference_steps": STEPS,
        "default_guidance_scale": GUIDANCE_SCALE,
        "width": PIXELS,
        "height": PIXELS,
        "revision": revision_of(folder),
    }
    (folder / DEFAULTS_FILE).write_text(json.dumps(defaults, indent=2) + "\n")
