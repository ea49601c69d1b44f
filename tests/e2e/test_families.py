"""Tiny models of several families, and the demo, behind the public API with real processes and default settings: what
is asked is made, or refused with the field's name, before and after a worker has told what its models can do.
"""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests import tiny_families
from tests.api import Body
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

pytestmark = pytest.mark.timeout(300)

WITHIN_S = 120.0
FAMILIES = {"flux": "embedded", "sdxl": "cfg", "qwen-image": "true", "z-image": "cfg", "lcm": "embedded"}
"""Their kinds of guidance."""
FLOW = ("flux", "qwen-image", "z-image")
NEGATIVE = "grey"
DEMO = """
[[models]]
name = "demo"
engine = "latent"
source = "worker/demo_model/weights"
width = 64
height = 64
num_inference_steps = 2
"""
ENTRY = """
[[models]]
name = "{name}"
engine = "pipeline"
source = "{source}"
width = 64
height = 64
num_inference_steps = 2
guidance_scale = 4.0
max_width = 2048
max_height = 2048
"""


class Late(Stack):
    """Its worker is started by a test."""

    def start(self) -> None:
        self.make_keys()
        for process in (self.emulator, self.core, *self.gateways):
            process.start()
        self.ready()


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, dict[str, str]]]:
    """The stack, and by what they ask the ids of generations that were accepted before a worker had told."""
    folder = tmp_path_factory.mktemp("families")
    models = DEMO
    for name in FAMILIES:
        models += ENTRY.format(name=name, source=tiny_families.build(name, folder / name))
    with Late(tmp_path_factory.mktemp("out"), models=models, visibility_s=60) as stack:
        client = stack.client()
        asked = {
            "negative_prompt": client.submit(model="flux", negative_prompt=NEGATIVE)["id"],
            "scheduler": client.submit(model="z-image", scheduler="ddim")["id"],
            "num_inference_steps": client.submit(model="lcm", num_inference_steps=51)["id"],
            "": client.submit(model="sdxl", negative_prompt=NEGATIVE)["id"],
        }
        stack.restart_worker()
        until(lambda: all(each["capabilities"] for each in listed(stack).values()), WITHIN_S)
        yield stack, asked
        invariants.check(stack)


@pytest.fixture
def stack(early: tuple[Stack, dict[str, str]]) -> Stack:
    return early[0]


def listed(stack: Stack) -> dict[str, Body]:
    return {each["id"]: each for each in stack.client().call("GET", "/v1/models").json()["data"]}


def history(stack: Stack, generation_id: str) -> str:
    return stack.command("core", "history", generation_id)


@pytest.mark.parametrize("field", ["negative_prompt", "scheduler", "num_inference_steps"])
def test_what_was_accepted_before_a_worker_told_fails_at_once_with_the_reason(
    early: tuple[Stack, dict[str, str]], field: str
) -> None:
    stack, asked = early
    body = stack.client().ended(asked[field], WITHIN_S)
    assert (body["status"], body["images"][0]["error"]["code"]) == ("failed", "refused")
    assert field in body["error"]["message"]
    if field == "negative_prompt":
        assert history(stack, asked[field]).count("image.attempt_failed") == 1, "it is not tried again"


def test_what_the_model_can_do_was_made(early: tuple[Stack, dict[str, str]]) -> None:
    stack, asked = early
    stack.client().succeeded([asked[""]], WITHIN_S)


def test_models_tell_what_they_can_do(stack: Stack) -> None:
    shown = listed(stack)
    assert {name: shown[name]["capabilities"]["guidance"] for name in FAMILIES} == FAMILIES
    assert {name: shown[name]["capabilities"]["negative_prompt"] for name in FAMILIES} == {
        name: kind != "embedded" for name, kind in FAMILIES.items()
    }
    assert {name for name in FAMILIES if shown[name]["schedulers"] and "flow_euler" in shown[name]["schedulers"]} == {
        *FLOW
    }
    assert (shown["z-image"]["capabilities"]["guidance_off"], shown["sdxl"]["capabilities"]["guidance_off"]) == (0, 1)
    assert shown["lcm"]["limits"]["num_inference_steps"] == 50
    assert (shown["flux"]["limits"]["width"], shown["flux"]["capabilities"]["size_factor"]) == (2048, 16)
    assert shown["demo"]["capabilities"]["negative_prompt"] is True


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "flux", "negative_prompt": NEGATIVE}, "negative_prompt"),
        ({"model": "lcm", "negative_prompt": NEGATIVE}, "negative_prompt"),
        ({"model": "lcm", "num_inference_steps": 51}, "num_inference_steps"),
        ({"model": "lcm", "scheduler": "ddim"}, "scheduler"),
        ({"model": "flux", "scheduler": "ddim"}, "scheduler"),
        ({"model": "sdxl", "scheduler": "flow_euler"}, "scheduler"),
        ({"model": "sdxl", "scheduler": "no-such"}, "scheduler"),
        ({"model": "flux", "width": 2056}, "width"),
        ({"model": "flux", "width": 256.5}, "width"),
    ],
)
def test_what_a_model_cannot_do_is_refused_and_named(stack: Stack, fields: Body, named: str) -> None:
    before = len(stack.client().ids())
    problem = stack.client().call("POST", "/v1/generations", {"prompt": "a", **fields}).problem(422, named)
    assert [error["field"] for error in problem["errors"]] == [named]
    assert len(stack.client().ids()) == before


ASKED: list[tuple[Body, str]] = [
    ({"model": "flux", "width": 1080, "height": 72}, "guidance embedded 4 rendered 1088x80, cut to the middle"),
    ({"model": "flux", "width": 256.0, "height": 64}, ""),
    ({"model": "flux", "scheduler": "flow_euler", "n": 2}, ""),
    ({"model": "sdxl", "guidance_scale": 1.0}, "guidance cfg, none took effect"),
    (
        {"model": "sdxl", "guidance_scale": 7.0, "negative_prompt": NEGATIVE, "scheduler": "ddim"},
        "DDIMScheduler, float32, cpu|guidance cfg 7, with the negative prompt",
    ),
    ({"model": "qwen-image", "width": 72, "height": 136}, "guidance true 4 rendered 80x144, cut to the middle"),
    ({"model": "qwen-image", "guidance_scale": 1.0}, "guidance true, none took effect"),
    ({"model": "z-image", "guidance_scale": 0.0}, "guidance cfg, none took effect"),
    ({"model": "z-image", "guidance_scale": 1.0, "negative_prompt": NEGATIVE}, "cfg 1, with the negative prompt"),
    ({"model": "lcm", "num_inference_steps": 4.0}, ""),
    ({"model": "demo"}, ""),
]
"""What is asked, and what the log must say was done, if it is looked up."""


def test_pictures_are_of_the_size_asked_for_and_the_log_says_what_was_done(stack: Stack) -> None:
    client = stack.client()
    bodies = client.succeeded(client.submit_many([fields for fields, _ in ASKED]), WITHIN_S)
    for (fields, done), body in zip(ASKED, bodies, strict=True):
        size = (int(fields.get("width", 64)), int(fields.get("height", 64)))
        for image in body["images"]:
            picture = Image.open(io.BytesIO(client.picture(body["id"], image["index"]).body))
            assert picture.size == size == (body["width"], body["height"]), fields
        told = " ".join(history(stack, body["id"]).split()) if done else ""
        assert all(each in told for each in done.split("|")), told
