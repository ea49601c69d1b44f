"""`python -m worker models check`, as an operator runs it over a models file of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import single_file

ENTRY = '[[models]]\nname = "{name}"\nengine = "{engine}"\nsource = "{source}"\n{more}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


def checked(models_file: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "worker", "models", "check", *arguments]
    environment = {"PATH": os.environ["PATH"], "DARKROOM_MODELS_FILE": str(models_file)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, done.stdout, done.stderr


def test_each_model_is_told_apart(folder: Path, tmp_path: Path) -> None:
    file = single_file.write(folder, tmp_path / "one.safetensors")
    entries = [
        ENTRY.format(name="whole", engine="latent", source=folder, more=""),
        ENTRY.format(name="single", engine="pipeline", source=file, more=f'config = "{folder}"'),
        ENTRY.format(name="gone", engine="pipeline", source=tmp_path / "gone", more=""),
        ENTRY.format(name="part", engine="pipeline", source=folder / "unet", more=""),
    ]
    models_file = tmp_path / "models.toml"
    models_file.write_text("".join(entries))
    code, out, err = checked(models_file)
    assert (code, err) == (1, "")
    blocks = {block.split()[1]: block for block in out.split("\n\n")[1:]}
    for name in ("whole", "single"):
        assert blocks[name].startswith("✓")
        for word in ("StableDiffusionPipeline", str(folder), "float32", "ddim", "negative prompt   yes", "--load"):
            assert word in blocks[name]
    assert blocks["gone"].startswith("✗")
    assert "is no folder" in blocks["gone"]
    assert "one part of a pipeline" in blocks["part"]

    code, out, _ = checked(models_file, "--load", "single")
    assert code == 0
    assert "loaded in" in out
    assert "whole" not in out.partition("\n\n")[2]


def test_what_is_wrong_with_the_call_is_one_line(tmp_path: Path) -> None:
    models_file = tmp_path / "models.toml"
    models_file.write_text('[[models]]\nname = "a"\nengine = "emulated"\n')
    assert checked(models_file)[0] == 0
    code, _, err = checked(models_file, "b")
    assert code == 2
    assert err.strip().count("\n") == 0
    assert "no model 'b'; it has a" in err
    code, _, err = checked(tmp_path / "gone.toml")
    assert code == 2
    assert "DARKROOM_MODELS_FILE" in err
