"""A tiny Stable Diffusion or SDXL folder as one checkpoint file, named as the original code names its tensors: the
opposite of what diffusers' `from_single_file` does.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE = {
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "attentions.0.group_norm": "attentions.0.norm",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_shortcut": "nin_shortcut",
}
_OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers.": "transformer.resblocks.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}


def write(folder: Path, file: Path) -> Path:
    """The weights of `folder` as one file."""
    from diffusers import DiffusionPipeline
    from safetensors.torch import save_file

    pipeline = DiffusionPipeline.from_pretrained(folder)
    tensors: dict[str, Any] = {}
    for name, value in pipeline.unet.state_dict().items():
        tensors[f"model.diffusion_model.{_unet_name(name, pipeline.unet)}"] = value.contiguous()
    for name, value in pipeline.vae.state_dict().items():
        renamed = _vae_name(name, len(pipeline.vae.config.block_out_channels))
        linear = ".attn_1." in renamed and value.ndim == 2
        tensors[f"first_stage_model.{renamed}"] = (value[:, :, None, None] if linear else value).contiguous()
    is_xl = hasattr(pipeline, "text_encoder_2")
    clip = "conditioner.embedders.0.transformer" if is_xl else "cond_stage_model.transformer"
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors[f"{clip}.text_model.{name.removeprefix('text_model.')}"] = value.contiguous()
    if is_xl:
        tensors |= dict(_open_clip(pipeline.text_encoder_2.state_dict()))
    save_file(tensors, file)
    return file


def _open_clip(tensors: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The second text encoder: its attention's three matrices are one there, its projection is transposed."""
    import torch

    prefix = "conditioner.embedders.1.model."
    for name, value in tensors.items():
        if name == "text_projection.weight":
            yield f"{prefix}text_projection", value.T.contiguous()
        elif ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            renamed = _renamed(name.replace(".self_attn.q_proj.", ".attn.in_proj_"), _OPEN_CLIP)
            yield prefix + renamed, torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            yield prefix + _renamed(name, _OPEN_CLIP), value.contiguous()


def _renamed(name: str, words: dict[str, str]) -> str:
    for ours, theirs in words.items():
        name = name.replace(ours, theirs)
    return name


def _unet_name(name: str, unet: Any) -> str:
    for ours, theirs in (*_UNET.items(), *_blocks(unet)):
        if name.startswith(ours + "."):
            name = theirs + name[len(ours) :]
            break
    if "transformer_blocks" not in name and name.startswith(("input_blocks", "output_blocks", "middle_block")):
        for ours, theirs in _RESNET.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
    return name


def _blocks(unet: Any) -> Iterator[tuple[str, str]]:
    layers, number = unet.config.layers_per_block, 1
    for block in range(len(unet.down_blocks)):
        for layer in range(layers):
            yield f"down_blocks.{block}.resnets.{layer}", f"input_blocks.{number}.0"
            yield f"down_blocks.{block}.attentions.{layer}", f"input_blocks.{number}.1"
            number += 1
        if block < len(unet.down_blocks) - 1:
            yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for block, part in enumerate(unet.up_blocks):
        attends = hasattr(part, "attentions")
        for layer in range(layers + 1):
            yield f"up_blocks.{block}.resnets.{layer}", f"output_blocks.{number}.0"
            yield f"up_blocks.{block}.attentions.{layer}", f"output_blocks.{number}.1"
            if layer == layers and block < len(unet.up_blocks) - 1:
                yield f"up_blocks.{block}.upsamplers.0", f"output_blocks.{number}.{2 if attends else 1}"
            number += 1


def _vae_name(name: str, blocks: int) -> str:
    for ours, theirs in _VAE.items():
        name = name.replace(f"{ours}.", f"{theirs}.") if ours in name else name
    for block in range(blocks):
        name = name.replace(f"encoder.down_blocks.{block}.resnets.", f"encoder.down.{block}.block.")
        name = name.replace(f"encoder.down_blocks.{block}.downsamplers.0.", f"encoder.down.{block}.downsample.")
        back = blocks - 1 - block
        name = name.replace(f"decoder.up_blocks.{block}.resnets.", f"decoder.up.{back}.block.")
        name = name.replace(f"decoder.up_blocks.{block}.upsamplers.0.", f"decoder.up.{back}.upsample.")
    return name
