"""What is the pipeline engine's own, over a real pipeline with tiny random weights."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.engines.base import WeightSource
from worker.engines.contract import Done, Made, RenderJob
from worker.engines.devices import Device
from worker.engines.errors import BadOutput, LoadFailed, Unsupported
from worker.engines.pipeline.engine import PipelineEngine, Rendered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


def engine(folder: Path) -> PipelineEngine:
    return PipelineEngine(WeightSource(model="m", source=str(folder)), Device(name="cpu", threads=1))


def job(prompt: str = "a picture", **more: Any) -> RenderJob:
    fields: dict[str, Any] = {
        "id": "g/0",
        "model": "m",
        "width": 64,
        "height": 64,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "seed": 1,
    }
    return RenderJob(**{**fields, **more}, prompt=prompt)


def test_an_over_long_prompt_is_cut_without_a_word_of_it_in_any_log(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = engine(folder)
    made.load()
    caplog.set_level(logging.DEBUG)
    made.admit([job("canary " * 50, negative_prompt="canary " * 50)])
    assert len(made.step(lambda _: None).finished) == 1
    out, err = capfd.readouterr()
    assert "canary" not in out + err + caplog.text


def test_the_key_holds_all_that_a_call_takes_once(folder: Path) -> None:
    made = engine(folder)
    keys = [
        made.key(each)
        for each in (
            job(),
            job(num_inference_steps=3),
            job(guidance_scale=4.0),
            job(scheduler="euler"),
            job(height=72),
            job(negative_prompt="x"),
        )
    ]
    assert len(set(keys)) == 6
    assert made.key(job()) == made.key(job("another", seed=9))
    assert made.key(job(negative_prompt="x")) == made.key(job("another", seed=9, negative_prompt="y"))
    with pytest.raises(Unsupported):
        made.key(job(scheduler="no-such-scheduler"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers 0.42.1 under numpy 2
@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("", "DDIMScheduler"),
        ("ddim", "DDIMScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("dpmpp_2m", "DPMSolverMultistepScheduler"),
    ],
)
def test_a_request_may_name_its_scheduler_and_the_models_own_stays(folder: Path, name: str, scheduler: str) -> None:
    made = engine(folder)
    made.load()
    made.admit([job(scheduler=name)])
    (done,) = made.step(lambda _: None).finished
    assert made.decode(done).scheduler == scheduler
    made.admit([job()])
    (done,) = made.step(lambda _: None).finished
    assert made.decode(done).scheduler == "DDIMScheduler"


def test_numbers_that_are_not_finite_are_no_picture(folder: Path) -> None:
    made = engine(folder)
    good = np.full((64, 64, 3), 0.5, dtype=np.float32)
    bad = good.copy()
    bad[3, 4, 1] = np.nan
    assert made.decode(done(good)).rgb[:3] == b"\x80\x80\x80"
    for wrong in (bad, good[:, :, :1]):
        with pytest.raises(BadOutput):
            made.decode(done(wrong))


def done(pixels: Any) -> Done:
    return Done(job_id="g/0", result=Rendered(pixels=pixels, scheduler="", made=Made()))


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    import torch

    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(LoadFailed, match=str(copy)):
        engine(copy).load()


def test_a_folder_is_named_by_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    made, same = engine(folder), engine(copy)
    made.load()
    same.load()
    assert made.facts.model_revision == same.facts.model_revision
    (copy / "scheduler" / "scheduler_config.json").write_text(
        (copy / "scheduler" / "scheduler_config.json").read_text().replace("scaled_linear", "linear")
    )
    same.load()
    assert made.facts.model_revision != same.facts.model_revision
    assert "torch 2." in made.facts.libraries


def test_an_engine_that_is_only_built_imports_no_model_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, worker.app; from worker.engines.factory import build; from infra.models import ModelEntry;"
        "build(ModelEntry(name='m', source='x'), torch_threads=0);"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
