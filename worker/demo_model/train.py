"""Trains the demo model: `python -m worker.demo_model.train [vae|text|drawings|unet|decoder|export|all]`.

Each stage takes up what it finds in the working folder, so a stopped run is started again with the same words. The
finished model lands in `--out`, ready for diffusers.
"""

import argparse
from pathlib import Path

import torch

from worker.demo_model.decoder import train_decoder
from worker.demo_model.drawings import make_drawings
from worker.demo_model.export import WEIGHTS, export
from worker.demo_model.text_encoder import accuracy, train_text_encoder
from worker.demo_model.tokenizer import new_tokenizer
from worker.demo_model.unet import train_unet
from worker.demo_model.vae import train_vae

STAGES = ("vae", "text", "drawings", "unet", "decoder", "export")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m worker.demo_model.train", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, default=Path("var/demo-model"), help="checkpoints and encoded drawings")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the finished model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--text-steps", type=int, default=400)
    parser.add_argument("--drawings", type=int, default=16_000)
    parser.add_argument("--unet-steps", type=int, default=960)
    parser.add_argument("--decoder-steps", type=int, default=560)
    return parser.parse_args()


def train(options: argparse.Namespace) -> None:
    """Run the stage asked for, and before it whatever it needs that is not done yet."""
    stage, work = options.stage, options.work
    common = {"device": options.device, "seed": options.seed}
    if stage == "text":
        namer = train_text_encoder(work, new_tokenizer(), steps=options.text_steps, **common)
        named = accuracy(namer, new_tokenizer(), seed=options.seed + 1)
        print(f"text: {named:.1%} of fresh captions named in full")
        return
    half = train_vae(work, steps=options.vae_steps, **common)
    if stage in ("decoder", "export", "all"):
        whole = train_decoder(work, half, steps=options.decoder_steps, **common)
    if stage in ("vae", "decoder"):
        return
    drawings = make_drawings(work, half, count=options.drawings, **common)
    if stage == "drawings":
        return
    tokenizer = new_tokenizer()
    namer = train_text_encoder(work, tokenizer, steps=options.text_steps, **common)
    text = {"tokenizer": tokenizer, "text_encoder": namer.encoder}
    unet = train_unet(work, drawings=drawings, steps=options.unet_steps, **text, **common)
    if stage != "unet":
        whole.register_to_config(scaling_factor=drawings.scaling_factor)
        export(options.out, vae=whole, unet=unet, **text)
        print(f"the model is in {options.out}")


def main() -> None:
    """The command."""
    options = arguments()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
