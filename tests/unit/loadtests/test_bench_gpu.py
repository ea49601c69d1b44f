"""`bench gpu` walks through every line on a CPU; what it says of a curve is arithmetic."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.bench import gpu
from loadtests.bench.rig import Request
from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, Report, Stepped
from worker.engines.emulated import EmulatedEngine

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


def test_alpha_is_that_of_the_curve() -> None:
    from loadtests.bench.gpu_measure import alpha

    assert alpha({size: 50 * (1 - 0.3 + 0.3 * size) for size in (1, 2, 4, 8, 16)}) == pytest.approx(0.3)
    assert alpha({1: 50.0}) is None


@pytest.mark.parametrize(
    ("ahead", "asked"),
    [
        (True, ["step", "step", "joins/0", "step", "joins/1", "joins/2", "step"]),
        (False, ["step", "joins/0", "step", "joins/1", "step", "joins/2", "step"]),
    ],
)
def test_it_fetches_pictures_when_the_worker_would(ahead: bool, asked: list[str]) -> None:
    from loadtests.bench.gpu_measure import Model

    heard: list[str] = []

    class Ahead(EmulatedEngine):
        def step(self, report: Report) -> Stepped:
            heard.append("step")
            return replace(super().step(report), ahead=ahead)

        def decode(self, done: Done) -> Picture:
            if done.job_id.startswith("joins"):
                heard.append(done.job_id)
            return Picture(width=64, height=64, rgb=bytes(64 * 64 * 3))

    model = object.__new__(Model)
    model._engine = Ahead(model="m", step_s=0, alpha=0, max_batch=2, bounds=Bounds.square(64))
    model._request, model._prompts = Request(model="m", side_px=64, steps=4), 0
    model._steps_ms(2, joining=True)
    assert heard == asked


def test_without_a_gpu_it_says_so_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == f"{gpu.NO_GPU}\n"


@pytest.mark.slow
def test_the_tiny_model_goes_all_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert {"device", "libraries", "cuda", "models", "transports"} <= set(result)
    assert {cell["transport"] for cell in result["transports"]["cells"]} == {"json", "raw", "uds"}
    (model,) = result["models"].values()
    assert set(model["bare"]) == set(model["curve_ms"]) == {"1", "2"}
    assert model["ratio"] > 0
    assert model["images"] == 4
    assert 0 <= model["gpu_idle_pct"] < 100
    assert model["overlap"]["batch"] == 2
    assert model["decode_ms"] > 0


def test_the_random_model_is_made_once_and_never_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loadtests.bench import gpu_model
    from worker.engines import tiny

    class Broken:
        def save_pretrained(self, folder: Path, **_: object) -> None:
            tiny.build(folder)
            raise OSError("the disk is full")

    class Whole:
        def save_pretrained(self, folder: Path, **_: object) -> None:
            tiny.build(folder)

    folder = tmp_path / "models" / "random"
    monkeypatch.setattr(gpu_model, "_pipeline", Broken)
    with pytest.raises(OSError, match="full"):
        gpu_model.sd15(folder)
    assert not list(folder.parent.iterdir())
    monkeypatch.setattr(gpu_model, "_pipeline", Whole)
    assert (gpu_model.sd15(folder) / "model_index.json").exists()
    monkeypatch.setattr(gpu_model, "_pipeline", Broken)
    gpu_model.sd15(folder)  # nothing is made again
