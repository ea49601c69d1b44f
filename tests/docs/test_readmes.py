"""Every code block of the READMEs and of docs/ is run from the text, or read with a reason for not running it."""

import json
import os
import re
import shlex
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.access.rate_limits import load_rules
from gateway.routes import OPERATIONS
from infra import models
from infra.local import processes
from tests.docs.blocks import ROOT, Block, blocks, recipe, run, tools
from tests.eventually import until
from tests.local_stack import Local
from tests.process import Process, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("local-stack")]
ALL = list(blocks())
RUN = {
    ("README.md", 'pip install rust-just && just demo "a large red circle on a white background"'),
    ("README.md", "just up"),
    ("README.md", "KEY=$(cat var/api-key)"),
    (
        "README.md",
        "just logs --no-follow",
    ),
    ("README.md", "[[models]]"),
    ("gateway/README.md", "python -m gateway                       serve (DARKROOM_CORE_TARGET says where core is)"),
    ("gateway/README.md", "[[rules]]"),
    (
        "worker/README.md",
        "DARKROOM_MODELS_FILE=models.toml python -m worker",
    ),
    ("worker/demo_model/README.md", "from diffusers import DiffusionPipeline"),
}
"""Blocks that the tests below run, by file and first line."""
ELSEWHERE = {
    "docs/runbook.md": (
        "tests/crash/test_storage_runbook.py runs them on the log of a core under load, "
        "tests/unit/core/test_retention.py reads the example of a retention file"
    )
}
READ = {
    ("README.md", "pip install rust-just && just test"): "it would run this test",
    (
        "infra/README.md",
        "cp infra/deploy/env.example infra/deploy/.env",
    ): ("no container engine runs where the tests run"),
    (
        "infra/README.md",
        "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=$(cat var/emulator-secret) AWS_DEFAULT_REGION=us-east-1",
    ): ("the AWS CLI is none of our dependencies"),
}
"""Blocks that are not run, each with the reason; `test_what_is_not_run_is_read` looks at them."""


def block(file: str, begins: str) -> Block:
    [found] = [each for each in ALL if each.file == file and each.first.startswith(begins)]
    return found


@pytest.mark.parametrize("each", ALL, ids=lambda each: f"{each.file}: {each.first[:40]}")
def test_every_block_is_run_or_has_a_reason(each: Block) -> None:
    assert each.file in ELSEWHERE or (each.file, each.first) in RUN | READ.keys()


def test_the_lists_name_no_block_that_is_gone() -> None:
    there = {(each.file, each.first) for each in ALL}
    assert RUN | READ.keys() <= there
    assert ELSEWHERE.keys() <= {file for file, _ in there}


def test_what_is_not_run_is_read() -> None:
    test = block("README.md", "pip install rust-just && just test")
    assert "pytest" in recipe("test")
    assert "just demo" not in test.text
    compose = block("infra/README.md", "cp infra/deploy")
    for name in re.findall(r"infra/deploy/[\w.]+", compose.text):
        assert (ROOT / name).exists() or name.endswith("/.env")
    services = yaml.safe_load((ROOT / "infra/deploy/compose.yaml").read_text())["services"]
    [service] = re.findall(r"run --rm (\w+) keys create", compose.text)
    assert service in services
    assert "var/emulator-secret" in block("infra/README.md", "AWS_ACCESS_KEY_ID").text


class Reader:
    """Somebody who pastes blocks into a shell, in a folder of their own, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.local = Local(folder, folder / "var")
        self.env = self.local.environment | {"PATH": tools(folder / "tools")}
        del self.env["DARKROOM_DATA_DIR"]  # `var`, as the text says

    def paste(self, each: Block) -> str:
        port = self.env["DARKROOM_GATEWAY_PORT"]
        done = run(each.text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), cwd=self.local.folder, env=self.env)
        assert done.returncode == 0, f"{each.text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(tmp_path_factory.mktemp("reader"))
    yield reader
    reader.local.run("down")
    assert reader.local.marked() == {}


def test_the_readme_from_the_first_picture_to_the_end(reader: Reader) -> None:
    said = reader.paste(block("README.md", "pip install rust-just && just demo"))
    [picture] = reader.local.folder.glob("darkroom-gen_*.png")
    assert str(picture) in said
    assert "darkroom is up" in reader.paste(block("README.md", "just up"))

    said = reader.paste(block("README.md", "KEY="))
    first, *rest = said.splitlines()
    assert re.fullmatch(r"gen_[0-9a-z]{26}", first)
    assert json.loads("".join(rest).partition("}{")[0] + "}")["status"] == "succeeded"
    assert (reader.local.folder / "picture.png").read_bytes().startswith(b"\x89PNG")

    # While it runs, also those that the text only names. The block above has erased the generation.
    for each, told in ((f"history {first}", "generation.erased"), ("verify", "ok: "), (f"erase {first}", "1 erased")):
        done = run(f"just {each}", cwd=reader.local.folder, env=reader.env)
        assert (done.returncode, told in done.stdout) == (0, True), done.stdout + done.stderr
    said = reader.paste(block("README.md", "just logs --no-follow"))
    assert "request.answered" in said
    [backup] = reader.local.folder.glob("darkroom-*.sqlite3")
    assert processes.look(reader.local.data_dir).nothing

    restored = run(f"just restore {shlex.quote(str(backup))} --replace", cwd=reader.local.folder, env=reader.env)
    assert restored.returncode == 0, restored.stderr
    assert re.search(r"restored from .*: \d+ events of 1 generations", restored.stdout)

    refused = run("just init", cwd=reader.local.folder, env=reader.env)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "there is an event log already" in refused.stderr
    (reader.local.data_dir / "core").rename(reader.local.data_dir / "core-aside")
    begun = run("just init", cwd=reader.local.folder, env=reader.env)
    assert (begun.returncode, "an empty event log" in begun.stdout) == (0, True), begun.stdout + begun.stderr
    assert run("just verify", cwd=reader.local.folder, env=reader.env).stdout.startswith("ok: 0 events")


def test_no_recipe_asks_a_cloud_account(reader: Reader) -> None:
    """Credentials in the shell are not used, and none are asked for where there are none."""
    for extra in ({}, {"AWS_ACCESS_KEY_ID": "real", "AWS_SECRET_ACCESS_KEY": "real", "AWS_PROFILE": "production"}):
        env = reader.env | extra
        assert run("just keys list", cwd=reader.local.folder, env=env).returncode == 0
        down = run("just dead-letters", cwd=reader.local.folder, env=env)
        assert down.returncode == 1
        assert down.stderr == "darkroom: the stack is not up: `just up` starts it\n"


def test_the_example_of_a_models_file_is_valid(tmp_path: Path) -> None:
    text = block("README.md", "[[models]]").text
    path = tmp_path / "models.toml"
    path.write_text(text)
    [entry] = models.load(path)
    assert entry.name == tomllib.loads(text)["models"][0]["name"]


def test_the_example_of_rules_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(block("gateway/README.md", "[[rules]]").text)
    assert load_rules(path, [each.id for each in OPERATIONS if each.secured])


def test_the_gateways_commands_do_what_the_table_says(tmp_path: Path) -> None:
    env = {**os.environ, "DARKROOM_DATA_DIR": str(tmp_path), "PATH": tools(tmp_path / "tools")}
    commands = [
        re.split(r" {2,}", line)[0] for line in block("gateway/README.md", "python -m gateway").text.splitlines()
    ]
    assert commands[0] == "python -m gateway"
    assert run("python -m gateway --help", cwd=tmp_path, env=env).returncode == 0
    key = run(commands[1].replace("TENANT", "alice"), cwd=tmp_path, env=env).stdout.strip()
    assert key.startswith("dk_")
    assert "alice" in run(commands[2], cwd=tmp_path, env=env).stdout
    assert run(commands[3].replace("ID", key.rsplit("_", 1)[0]), cwd=tmp_path, env=env).returncode == 0
    assert "revoked" in run(commands[2], cwd=tmp_path, env=env).stdout


def test_the_worker_alone_starts_as_written(tmp_path: Path) -> None:
    local = Local(tmp_path)
    line = block("worker/README.md", "DARKROOM_MODELS_FILE").text.partition("#")[0].strip()
    port = free_port()
    env = {
        **local.environment,
        "PATH": tools(tmp_path / "tools"),
        "DARKROOM_WORKER_ADMIN_PORT": str(port),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    worker = Process(
        "worker", ["bash", "-euo", "pipefail", "-c", line.replace("python", "exec python", 1)], env, tmp_path
    )
    worker.start()
    try:
        until(lambda: "worker.serving" in worker.output(), 60, what="the worker serves")
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
    finally:
        worker.kill()


def test_the_demo_model_loads_in_stock_diffusers(tmp_path: Path) -> None:
    program = block("worker/demo_model/README.md", "from diffusers").text.replace(
        '"worker/demo_model/weights"', repr(str(ROOT / "worker/demo_model/weights"))
    )
    script = tmp_path / "demo.py"
    script.write_text(program.rstrip().replace(".images[0]", '.images[0].save("picture.png")'))
    done = run("python demo.py", cwd=tmp_path, env={**os.environ, "PATH": tools(tmp_path / "tools")})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
