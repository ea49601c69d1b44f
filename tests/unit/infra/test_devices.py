"""Which GPU each local worker gets."""

import os
from pathlib import Path

import pytest

from infra.lifecycle import ConfigError
from infra.local.devices import of_workers
from infra.models import ModelEntry

ANYWHERE = (ModelEntry(name="a", source="x"),)
PLACED = (ModelEntry(name="a", source="x", device="cuda:1"),)


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, the only one that is searched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def list_gpus(tools: Path, count: int, code: int = 0) -> None:
    """A machine with so many."""
    tool = tools / "nvidia-smi"
    lines = "".join(f"echo {number}\n" for number in range(count))
    tool.write_text(f'#!/bin/sh\n[ "$1" = --query-gpu=index ] || exit 9\n{lines}exit {code}\n')
    tool.chmod(0o755)


def visible(found: list[dict[str, str]]) -> list[str | None]:
    return [each.get("CUDA_VISIBLE_DEVICES") for each in found]


def test_workers_take_the_gpus_of_the_machine_in_turn(tools: Path) -> None:
    list_gpus(tools, 2)
    assert visible(of_workers({}, 2, ANYWHERE)) == ["0", "1"]
    assert visible(of_workers({}, 3, ANYWHERE)) == ["0", "1", "0"]


def test_a_single_worker_is_left_as_it_is(tools: Path) -> None:
    list_gpus(tools, 2)
    assert of_workers({}, 1, ANYWHERE) == [{}]


def test_named_devices_go_first_then_those_that_are_visible(tools: Path) -> None:
    list_gpus(tools, 4)
    assert visible(of_workers({"CUDA_VISIBLE_DEVICES": "2,3"}, 2, ANYWHERE)) == ["2", "3"]
    both = {"CUDA_VISIBLE_DEVICES": "2,3", "DARKROOM_LOCAL_DEVICES": "1, GPU-5a-b"}
    assert visible(of_workers(both, 2, ANYWHERE)) == ["1", "GPU-5a-b"]
    assert visible(of_workers({"DARKROOM_LOCAL_DEVICES": "3"}, 1, ANYWHERE)) == ["3"]


def test_a_models_file_that_names_gpus_is_not_overruled(tools: Path) -> None:
    list_gpus(tools, 2)
    assert of_workers({}, 2, PLACED) == [{}, {}]
    assert visible(of_workers({"DARKROOM_LOCAL_DEVICES": "0,1"}, 2, PLACED)) == ["0", "1"]


@pytest.mark.parametrize("code", [0, 9])
def test_without_a_gpu_workers_share_the_processor(tools: Path, code: int) -> None:
    list_gpus(tools, 0, code)
    threads = str(max(1, (os.cpu_count() or 2) // 4))
    assert of_workers({}, 2, ANYWHERE) == [{"DARKROOM_WORKER_TORCH_THREADS": threads}] * 2
    assert of_workers({"DARKROOM_WORKER_TORCH_THREADS": "5"}, 2, ANYWHERE) == [{}, {}]


@pytest.mark.parametrize("text", ["x", "0;1", "0,,1", "-1", "cuda:0"])
def test_what_is_no_device_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="DARKROOM_LOCAL_DEVICES"):
        of_workers({"DARKROOM_LOCAL_DEVICES": text}, 2, ANYWHERE)


@pytest.mark.parametrize("text", ["", "-1"])
def test_gpus_that_are_hidden_stay_hidden(tools: Path, text: str) -> None:
    list_gpus(tools, 2)
    assert visible(of_workers({"CUDA_VISIBLE_DEVICES": text}, 2, ANYWHERE)) == [None, None]
