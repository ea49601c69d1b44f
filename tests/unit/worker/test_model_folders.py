"""Model folders as they are found: variants, parts left out, single files and sentencepiece load; what is broken is
told in one line that names the file and what to do.
"""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import single_file, tiny_families
from worker.engines.devices import Device
from worker.engines.errors import LoadFailed
from worker.engines.loading import open_pipeline, revision_of
from worker.engines.model_folder import examine

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 335000000\n"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
CPU = Device(name="cpu", dtype="float32", threads=1)
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def expected(folder: Path) -> "np.ndarray[Any, Any]":
    return picture(folder)


def picture(source: Path, *, config: str = "") -> "np.ndarray[Any, Any]":
    import torch

    pipeline, _ = open_pipeline(str(source), "", CPU, config=config)
    generator = torch.Generator("cpu").manual_seed(3)
    sizes = {"width": 64, "height": 64, "num_inference_steps": 2}
    made: np.ndarray[Any, Any] = pipeline("a circle", generator=generator, output_type="np", **sizes).images[0]
    return made


def changed(folder: Path, target: Path, change: Change) -> Path:
    shutil.copytree(folder, target)
    change(target)
    return target


def rename_all(variant: str, *parts: str) -> Change:
    def change(folder: Path) -> None:
        for file in folder.rglob("*.safetensors"):
            if not parts or file.parent.name in parts:
                file.rename(file.with_name(file.name.replace(".safetensors", f".{variant}.safetensors")))

    return change


def index_with(**more: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))

    return change


def also(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def written(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def cut(name: str, length: int) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def without_weights(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.unlink()


def sharded(name: str, *, lost: bool = False, index: bool = True) -> Change:
    """The weights in two files and their index, as large models have them."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / name
        tensors = load_file(file)
        file.unlink()
        names = [f"{file.stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
        places = {tensor: names[number % 2] for number, tensor in enumerate(sorted(tensors))}
        for each in names[: 1 if lost else 2]:
            own = {tensor: value for tensor, value in tensors.items() if places[tensor] == each}
            save_file(own, file.with_name(each), metadata={"format": "pt"})
        if index:
            text = json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
            file.with_name(f"{file.name}.index.json").write_text(text)

    return change


def half_of_the_names(name: str) -> Change:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / name)
        other = {(f"x.{key}" if number % 2 else key): each for number, (key, each) in enumerate(tensors.items())}
        save_file(other, folder / name, metadata={"format": "pt"})

    return change


def sentencepiece_alone(folder: Path) -> None:
    """A T5 tokenizer as many repositories have it: spiece.model, and no tokenizer.json."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a circle on a white background"] * 20),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(model.getvalue())
    options = {"tokenizer_class": "T5Tokenizer", "model_max_length": 16, "extra_ids": 0}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(options))
    index_with(tokenizer=["transformers", "T5Tokenizer"])(folder)


@pytest.mark.parametrize(
    "change",
    [
        rename_all("fp16"),
        rename_all("fp16", "unet"),
        rename_all("bf16"),
        also(rename_all("fp16", "unet"), rename_all("bf16", "vae")),
        also(rename_all("fp16"), lambda folder: (folder / "unet" / "LICENSE").write_text("a file without a dot")),
        sharded(UNET),
        also(
            index_with(
                safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
                feature_extractor=["transformers", "CLIPImageProcessor"],
                image_encoder=["transformers", "CLIPVisionModelWithProjection"],
            )
        ),
        also(
            index_with(safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]),
            lambda folder: (folder / "safety_checker").mkdir(),
        ),
    ],
    ids=["fp16", "fp16-unet", "bf16", "mixed", "licence", "shards", "deleted-parts", "empty-safety-checker"],
)
def test_a_folder_of_the_wild_gives_the_same_picture(
    folder: Path, tmp_path: Path, expected: "np.ndarray[Any, Any]", change: Change
) -> None:
    assert np.array_equal(picture(changed(folder, tmp_path / "model", change)), expected)


def test_plain_files_are_preferred_to_variants(folder: Path, tmp_path: Path) -> None:
    copy = changed(folder, tmp_path / "model", lambda each: shutil.copy(each / UNET, each / "unet" / "x"))
    (copy / "unet" / "x").rename(copy / UNET.replace(".safetensors", ".fp16.safetensors"))
    assert examine(copy).parts["unet"].variant == ""


def test_a_vocabulary_of_sentencepiece_alone_is_read(folder: Path, tmp_path: Path) -> None:
    pipeline, _ = open_pipeline(str(changed(folder, tmp_path / "model", sentencepiece_alone)), "", CPU)
    assert pipeline.tokenizer("a circle").input_ids[-1] == 1
    assert len(pipeline.tokenizer) > 10


def test_a_single_file_loads_with_a_folder_of_its_familys_configuration(
    folder: Path, tmp_path: Path, expected: "np.ndarray[Any, Any]"
) -> None:
    file = single_file.write(folder, tmp_path / "model.safetensors")
    config = changed(folder, tmp_path / "config", without_weights)
    assert np.array_equal(picture(file, config=str(config)), expected)
    assert revision_of(str(file), "") != revision_of(str(folder), "")


def test_a_single_file_of_sdxl_loads_too(tmp_path: Path) -> None:
    folder = tiny_families.build("sdxl", tmp_path / "sdxl")
    file = single_file.write(folder, tmp_path / "sdxl.safetensors")
    config = changed(folder, tmp_path / "config", without_weights)
    assert np.array_equal(picture(file, config=str(config)), picture(folder))


@pytest.mark.parametrize(
    ("change", "config", "named"),
    [
        (lambda _: None, "", r"is a single file: set config"),
        (lambda file: file.write_text(LFS), "config", r"one.safetensors is a git-lfs pointer"),
        (lambda file: file.write_bytes(file.read_bytes()[:20_000]), "config", r"one.safetensors is cut off"),
        (lambda _: None, "nothing", r"nothing is no folder"),
    ],
)
def test_a_single_file_that_cannot_be_loaded_says_why(
    folder: Path, tmp_path: Path, change: Change, config: str, named: str
) -> None:
    file = single_file.write(folder, tmp_path / "one.safetensors")
    change(file)
    shutil.copytree(folder, tmp_path / "config")
    with pytest.raises(LoadFailed, match=named):
        open_pipeline(str(file), "", CPU, config=str(tmp_path / config) if config else "")


def test_a_single_file_that_lacks_a_part_says_which(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = single_file.write(folder, tmp_path / "one.safetensors")
    save_file({name: each for name, each in load_file(file).items() if not name.startswith("first_stage")}, file)
    with pytest.raises(LoadFailed, match="AutoencoderKL"):
        open_pipeline(str(file), "", CPU, config=str(folder))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (written(UNET, LFS), rf"{UNET} is a git-lfs pointer.*git lfs pull"),
        (written(TEXT, LFS), rf"{TEXT} is a git-lfs pointer.*git lfs pull"),
        (written("model_index.json", LFS), r"model_index.json is a git-lfs pointer"),
        (written("unet/config.json", LFS), r"unet/config.json is a git-lfs pointer"),
        (written("scheduler/scheduler_config.json", "{"), r"scheduler_config.json is not valid JSON"),
        (written("model_index.json", "[]"), r"model_index.json holds no JSON object"),
        (written("model_index.json", ""), r"model_index.json is empty"),
        (written(UNET, "<!DOCTYPE html><html>"), rf"{UNET} is a web page"),
        (written(UNET, ""), rf"{UNET} is empty"),
        (written(UNET, "GGUF"), rf"{UNET} is a GGUF file"),
        (written(UNET, "\x00" * 100), rf"{UNET} is no safetensors file"),
        (lambda folder: (folder / UNET).write_bytes(b"PK\x03\x04" + b"0" * 90), rf"{UNET} is a pickle"),
        (cut(UNET, 5_000), rf"{UNET} is cut off"),
        (cut(TEXT, 5_000), rf"{TEXT} is cut off \(5,000 of"),
        (lambda folder: shutil.rmtree(folder / "unet"), r"unet is missing: .* lists unet \(UNet2DConditionModel\)"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), r"vae/config.json is missing"),
        (lambda folder: (folder / UNET).unlink(), r"unet holds no weights"),
        (
            lambda folder: (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.bin"),
            r"unet has weights in diffusion_pytorch_model.bin only; darkroom loads safetensors",
        ),
        (lambda folder: (folder / UNET).rename(folder / "unet/flux1.safetensors"), r"which no library looks for"),
        (
            lambda folder: (folder / UNET).rename(folder / (UNET + ".incomplete")),
            r"unet holds an unfinished download",
        ),
        (sharded(UNET, lost=True), r"00002-of-00002.safetensors is missing"),
        (sharded(UNET, index=False), r"is one of several, and their index is missing"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), r"tokenizer is missing"),
        (
            lambda folder: [file.unlink() for file in (folder / "tokenizer").iterdir()],
            r"tokenizer holds no vocabulary",
        ),
        (index_with(_class_name="FluxNinePipeline", _diffusers_version="0.99"), r"FluxNinePipeline.*saved by 0.99"),
        (index_with(_class_name=["a", "b"]), r"_class_name is \['a', 'b'\]"),
        (index_with(_class_name="UNet2DConditionModel"), r"the class 'UNet2DConditionModel', which diffusers"),
        (index_with(_class_name="__name__"), r"the class '__name__', which diffusers"),
        (index_with(unet=["diffusers", "NineNet"]), r"unet is a NineNet, which diffusers .* does not have"),
        (index_with(text_encoder=["transformers", "Nine"]), r"text_encoder is a Nine, which transformers .* does not"),
        (index_with(unet=["my_code", "Nine"]), r"code that comes with a model is not run"),
        (half_of_the_names(UNET), r"the weights of unet lack the tensor"),
        (half_of_the_names(TEXT), r"the weights of CLIPTextModel lack \d+ tensors"),
        (half_of_the_names("vae/diffusion_pytorch_model.safetensors"), r"the weights of vae lack the tensor"),
        (lambda folder: (folder / "model_index.json").unlink(), r"holds no model_index.json"),
    ],
)
def test_what_is_broken_is_told_in_one_line(folder: Path, tmp_path: Path, change: Change, named: str) -> None:
    copy = changed(folder, tmp_path / "model", change)
    with pytest.raises(LoadFailed, match=named) as raised:
        open_pipeline(str(copy), "", CPU)
    assert "\n" not in str(raised.value)


def test_the_folder_above_or_below_the_right_one_is_recognised(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "hub" / "snapshots" / "abc")
    with pytest.raises(LoadFailed, match=r"snapshots/abc does: set source"):
        examine(tmp_path / "hub")
    with pytest.raises(LoadFailed, match="one part of a pipeline"):
        examine(folder / "unet")
    (tmp_path / "single.safetensors").write_bytes(b"")
    with pytest.raises(LoadFailed, match=r"single.safetensors.*config"):
        examine(tmp_path)


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_device_that_is_not_there_is_named(folder: Path, device: str) -> None:
    import torch

    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has it")
    with pytest.raises(LoadFailed, match=f"device {device}: .*CUDA"):
        open_pipeline(str(folder), "", Device(name=device, dtype="float32", threads=1))
