"""Pipelines of today's model families with tiny random weights, as folders: real classes, no training, no download.

`build(name, folder)` writes one in about a second. Pictures are noise that depends on all that a request says.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = [chr(code) for code in range(33, 127)]
WIDTH = 16


def build(name: str, folder: Path) -> Path:
    """The folder of the family `name`, one of FAMILIES."""
    import torch

    torch.manual_seed(len(name))
    pipeline = FAMILIES[name]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            _randomize(part)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _randomize(part: Any) -> None:
    """Replaces all-zero parameters: some classes start with a zero last layer, and all pictures would be equal."""
    import torch

    with torch.no_grad():
        for name, parameter in part.named_parameters():
            if not parameter.any():
                parameter.copy_(torch.randn_like(parameter) * (0.05 if "bias" in name else 0.2))


def _tokenizer(length: int, *, chat: bool = False) -> Any:
    """Letters are words: as long as the text, so that prompts differ in length."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "\n", " ", *LETTERS]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )
    if chat:
        made.chat_template = "{% for each in messages %}{{ each['content'] }}{% endfor %}"
    return made


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({token: number for number, token in enumerate(tokens)}, [], model_max_length=16)


def _clip(kind: str = "CLIPTextModel", width: int = WIDTH) -> Any:
    import transformers

    size = 2 * len(LETTERS) + 2
    config = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    return getattr(transformers, kind)(config)


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2, pad_token_id=0)
    )


def _language_model(kind: str, layers: int = 2) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=128,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return getattr(transformers, f"{kind}Model")(config)


def _qwen_3_vl() -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLModel

    text = {
        "vocab_size": 128,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 4,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision))


def _vae(channels: int = 4, **options: Any) -> Any:
    """Eight pixels a latent."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **options,
    )


def _qwen_vae() -> Any:
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.5, 2.0, 0.8],
    )


def _unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return UNet2DConditionModel(**(shape | options))


def _flow(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def _sdxl() -> Any:
    """Its text encoders differ in width, as those of the real one: single files tell them apart by it."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_clip(),
        text_encoder_2=_clip("CLIPTextModelWithProjection", 2 * WIDTH),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=_unet(
            cross_attention_dim=3 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 2 * WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _sd3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=2 * WIDTH,
            out_channels=4,
            pos_embed_max_size=96,
        ),
        scheduler=_flow(shift=3.0),
        vae=_vae(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip("CLIPTextModelWithProjection"),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip("CLIPTextModelWithProjection"),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5_wide(2 * WIDTH),
        tokenizer_3=_tokenizer(64),
    )


def _t5_wide(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=128, d_model=width, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2))


def _flux(*, embedded: bool = True) -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    return FluxPipeline(
        scheduler=_flow(use_dynamic_shifting=embedded),
        vae=_vae(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_tokenizer(512),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=embedded,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def _chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    return ChromaPipeline(
        scheduler=_flow(),
        vae=_vae(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_t5(),
        tokenizer=_tokenizer(512),
        transformer=ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    )


def _qwen_image() -> Any:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

    return QwenImagePipeline(
        scheduler=_flow(use_dynamic_shifting=True),
        vae=_qwen_vae(),
        text_encoder=_language_model("Qwen3"),
        tokenizer=_tokenizer(1024),
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def _z_image() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    return ZImagePipeline(
        scheduler=_flow(shift=3.0),
        vae=_vae(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_language_model("Qwen3"),
        tokenizer=_tokenizer(512, chat=True),
        transformer=ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[4, 4, 8],
            axes_lens=[1024, 256, 256],
        ),
    )


def _krea_2() -> Any:
    from diffusers import Krea2Pipeline, Krea2Transformer2DModel

    return Krea2Pipeline(
        scheduler=_flow(use_dynamic_shifting=True),
        vae=_qwen_vae(),
        text_encoder=_qwen_3_vl(),
        tokenizer=_tokenizer(1024),
        transformer=Krea2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=WIDTH,
            num_text_layers=3,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=16,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 4, 8),
        ),
        text_encoder_select_layers=(0, 1, 2),
    )


def _pixart(kind: str) -> Any:
    import diffusers

    return getattr(diffusers, f"PixArt{kind}Pipeline")(
        vae=_vae(),
        text_encoder=_t5(),
        tokenizer=_tokenizer(120),
        transformer=diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            cross_attention_dim=WIDTH,
            sample_size=32,
            patch_size=2,
            caption_channels=WIDTH,
            use_additional_conditions=False,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )


def _sana() -> Any:
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    blocks = ("ResBlock",) * 6
    return SanaPipeline(
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
        vae=AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=(8,) * 6,
            decoder_block_out_channels=(8,) * 6,
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            encoder_qkv_multiscales=((),) * 6,
            decoder_qkv_multiscales=((),) * 6,
            upsample_block_type="interpolate",
            downsample_block_type="Conv",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.5,
        ),
        text_encoder=_language_model("Gemma2"),
        tokenizer=_tokenizer(2048),
        transformer=SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=WIDTH,
            sample_size=16,
        ),
    )


def _klein(*, distilled: bool = False) -> Any:
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel

    return Flux2KleinPipeline(
        scheduler=_flow(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(
            latent_channels=4,
            block_out_channels=(4, 4, 4, 4),
            norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
        ),
        text_encoder=_language_model("Qwen3", layers=28),
        tokenizer=_tokenizer(512, chat=True),
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * WIDTH,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        is_distilled=distilled,
    )


def _stable_diffusion(**unet: Any) -> dict[str, Any]:
    return {
        "vae": _vae(),
        "text_encoder": _clip(),
        "tokenizer": _clip_tokenizer(),
        "unet": _unet(**unet),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _sd() -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    scheduler = PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1)
    return StableDiffusionPipeline(**_stable_diffusion(), scheduler=scheduler)


def _lcm() -> Any:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    scheduler = LCMScheduler(beta_schedule="scaled_linear")
    return LatentConsistencyModelPipeline(**_stable_diffusion(time_cond_proj_dim=16), scheduler=scheduler)


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd": _sd,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "schnell": lambda: _flux(embedded=False),
    "chroma": _chroma,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
    "krea-2": _krea_2,
    "pixart-alpha": lambda: _pixart("Alpha"),
    "pixart-sigma": lambda: _pixart("Sigma"),
    "sana": _sana,
    "klein": _klein,
    "klein-distilled": lambda: _klein(distilled=True),
    "lcm": _lcm,
}
