"""Models that cannot be loaded, with real processes and default times: one worker serves a good one beside eight that
are broken in a way of their own, and each of these fails its own images and no others.
"""

import json
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api import Body
from tests.e2e import invariants
from tests.eventually import until
from tests.process import free_port
from tests.stack import EMULATED, Stack
from tests.tiny_pipeline import build

WITHIN_S = 90.0
Break = Callable[[Path], None]


def lfs_pointer(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3438167540\n")


def half_a_download(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def later_class(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FuturePipeline2"}))


def part_missing(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def config_missing(folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()


def unknown_library(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["no_such_library", "UNet"]}))


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


BREAKS: dict[str, Break] = {
    each.__name__.replace("_", "-"): each
    for each in (lfs_pointer, half_a_download, later_class, part_missing, config_missing, unknown_library, gone)
}
ENTRY = """
[[models]]
name = "{name}"
engine = "{engine}"
source = "{source}"
width = 64
height = 64
num_inference_steps = 2
"""
UDS = """
[[models]]
name = "in-a-process"
engine = "uds"
serves = "pipeline"
source = "{source}"
width = 64
height = 64
num_inference_steps = 2
"""
SERVER = """
[[models]]
name = "server-away"
engine = "http"
source = "http://127.0.0.1:{port}"
width = 64
height = 64
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, whole: Path) -> Iterator[Stack]:
    """`quick` is the default one, and good."""
    folder = tmp_path_factory.mktemp("models")
    models = EMULATED
    for name, spoil in BREAKS.items():
        source = shutil.copytree(whole, folder / name)
        spoil(source)
        models += ENTRY.format(name=name, engine="pipeline", source=source)
    source = shutil.copytree(whole, folder / "in-a-process")
    half_a_download(source)
    models += UDS.format(source=source) + SERVER.format(port=free_port())
    with Stack(tmp_path_factory.mktemp("out"), models=models, visibility_s=60) as stack:
        yield stack
        for generation_id in stack.client().ids():
            stack.client().cancel(generation_id)
        invariants.check(stack)


def listed(stack: Stack, name: str) -> Body:
    (model,) = [each for each in stack.client().call("GET", "/v1/models").json()["data"] if each["id"] == name]
    return dict(model)


@pytest.mark.parametrize("name", [*BREAKS, "in-a-process"])
def test_its_images_fail_with_the_reason_and_the_others_arrive(stack: Stack, name: str) -> None:
    client = stack.client()
    began = time.monotonic()
    bad = [client.submit(model=name)["id"] for _ in range(20)]
    good = [client.submit(model="quick")["id"] for _ in range(50)]
    client.succeeded(good, WITHIN_S)
    ended = [client.ended(each, max(1.0, began + WITHIN_S - time.monotonic())) for each in bad]
    assert {body["status"] for body in ended} == {"failed"}
    assert {image["error"]["code"] for body in ended for image in body["images"]} == {"model_broken"}
    (reason,) = {body["error"]["message"] for body in ended}
    assert "1 of 1 images failed: " in reason
    assert "/tmp" not in reason, "no folders above the model's"
    until(lambda: listed(stack, name)["state"] == "broken", 10)
    model = listed(stack, name)
    assert model["reason"]
    assert (model["workers"], listed(stack, "quick")["state"]) == (1, "available")
    status, body = stack.readiness(stack.worker_admins[0])
    assert status == 200
    assert f"model {name} is broken" in body


def test_a_model_server_that_is_away_holds_up_its_own_images_alone(stack: Stack) -> None:
    client = stack.client()
    waiting = [client.submit(model="server-away")["id"] for _ in range(20)]
    until(lambda: listed(stack, "server-away")["state"] == "away", WITHIN_S)
    client.succeeded([client.submit(model="quick")["id"] for _ in range(50)], WITHIN_S)
    assert {client.get(each)["status"] for each in waiting} <= {"queued", "running"}
    for each in waiting:
        client.cancel(each)


@pytest.mark.timeout(300)
def test_a_repaired_model_is_served_without_a_restart(stack: Stack, whole: Path) -> None:
    """The folder comes back whole; the worker looks for itself."""
    entries = tomllib.loads((stack.folder / "models.toml").read_text())["models"]
    (source,) = [Path(each["source"]) for each in entries if each["name"] == "lfs-pointer"]
    client = stack.client()
    client.ended(client.submit(model="lfs-pointer")["id"], WITHIN_S)
    until(lambda: listed(stack, "lfs-pointer")["state"] == "broken", 10)
    weights = Path("unet") / "diffusion_pytorch_model.safetensors"
    shutil.copy(whole / weights, source / weights)
    until(lambda: listed(stack, "lfs-pointer")["state"] != "broken", 60)
    client.succeeded([client.submit(model="lfs-pointer")["id"]], WITHIN_S)
    until(lambda: listed(stack, "lfs-pointer")["state"] == "available", 10)
