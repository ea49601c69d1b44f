"""The models file."""

from pathlib import Path

import pytest

from infra.lifecycle import ConfigError
from infra.models import load, require_sources
from infra.settings import SHIPPED_MODELS_FILE


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return path


def test_the_shipped_file_serves_the_demo_model_first() -> None:
    first, *_ = load(SHIPPED_MODELS_FILE)
    assert (first.name, first.engine, first.width, first.num_inference_steps) == ("demo", "latent", 256, 8)


def test_a_relative_folder_is_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (entry,) = load(write(tmp_path, '[[models]]\nname = "a"\nsource = "weights"\n'))
    assert entry.source == str((tmp_path / "weights").resolve())
    require_sources([entry])


def test_an_emulated_model_needs_no_source(tmp_path: Path) -> None:
    entries = load(write(tmp_path, '[[models]]\nname = "a"\nengine = "emulated"\nstep_ms = 5.0\n'))
    require_sources(entries)
    assert entries[0].step_ms == 5.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no .*models"),
        ("models = 3", "no .*models"),
        ("[[models]", "models.toml"),
        ('[[models]]\nname = "a"\n', "needs a source"),
        ('[[models]]\nname = "a"\nsource = "x"\nstepms = 1\n', "stepms"),
        ('[[models]]\nname = "a"\nsource = "x"\nwidth = 100\n', "width"),
        ('[[models]]\nname = "a"\nsource = "x"\nwidth = 1032\n', "max_width"),
        ('[[models]]\nname = "a"\nsource = "x"\nmin_height = 520\n', "min_height"),
        ('[[models]]\nname = "a"\nsource = "x"\nmax_num_inference_steps = 20\n', "max_num_inference_steps"),
        ('[[models]]\nname = "a"\nsource = "x"\nmin_num_inference_steps = 50\n', "min_num_inference_steps"),
        ('[[models]]\nname = "a"\nsource = "x"\nmax_guidance_scale = 2.0\n', "max_guidance_scale"),
        ('[[models]]\nname = "a"\nsource = "x"\nmin_guidance_scale = 6.0\n', "min_guidance_scale"),
        ('[[models]]\nname = "a"\nsource = "x"\nmax_num_inference_steps = 151\n', "max_num_inference_steps"),
        ('[[models]]\nname = "a"\nsource = "x"\n[[models]]\nname = "a"\nsource = "y"\n', "duplicate model name 'a'"),
        ('[[models]]\nname = "sdxl"\nsource = "x"\nwidht = 512\n', "'sdxl': unknown key 'widht', did you mean 'width'"),
        ('[[models]]\nname = "a"\nsource = "x"\nxyzzy = 1\n', "'a': unknown key 'xyzzy'$"),
        ('[[models]]\nname = "a"\nengine = "pipline"\n', "'a': engine = 'pipline': must be .*'pipeline'"),
        ('[[models]]\nname = "a"\nsource = "x"\nwidth = "wide"\n', "'a': width = 'wide': must be a valid integer"),
        ('[[models]]\nname = "a"\nsource = "x"\nmax_batch = 0\n', "'a': max_batch = 0: must be greater"),
        ('[[models]]\nname = "a"\nsource = "x"\ndevice = "gpu"\n', "'a': device = 'gpu': must be auto, cpu, cuda or"),
        ('[[models]]\nname = "a"\nsource = "x"\ndevice = ""\n', "'a': device = '': must be auto"),
        ('[[models]]\nname = "a"\nsource = ""\n', "'a': engine pipeline needs a source"),
        ('[[models]]\nname = ""\nsource = "x"\n', "model 1: name = '': must be 1 to 64 letters"),
        ('[[models]]\nsource = "x"\n', "model 1: needs a name"),
        ('[[model]]\nname = "a"\n', "unknown key 'model', did you mean 'models'"),
        ('[models]\nname = "a"\n', r"holds no \[\[models\]\]"),
        ('name = "a"\n[[models]]\nname = "a"\nengine = "emulated"\n', "unknown key 'name'"),
    ],
)
def test_a_wrong_file_is_a_configuration_error(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(write(tmp_path, text))


def test_a_missing_file_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DARKROOM_MODELS_FILE"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("source", "revision", "fine"),
    [("owner/model", "abc123", True), ("owner/model", "", False), ("weights/is/gone", "abc123", False)],
)
def test_a_source_is_a_folder_or_a_pinned_hub_id(tmp_path: Path, source: str, revision: str, fine: bool) -> None:
    entries = load(write(tmp_path, f'[[models]]\nname = "a"\nsource = "{source}"\nrevision = "{revision}"\n'))
    if fine:
        require_sources(entries)
    else:
        with pytest.raises(ConfigError, match=source):
            require_sources(entries)


@pytest.mark.parametrize("source", ["~/models/x", "~/models/x.safetensors"])
def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config").mkdir()
    there = tmp_path / source.removeprefix("~/")
    there.write_bytes(b"") if there.suffix else there.mkdir()
    (entry,) = load(write(tmp_path, f'[[models]]\nname = "a"\nsource = "{source}"\nconfig = "~/models/config"\n'))
    assert (entry.source, entry.config) == (str(there), str(tmp_path / "models" / "config"))
    require_sources([entry])


@pytest.mark.parametrize(
    ("source", "more", "complaint"),
    [
        ("~/models/gone", 'revision = "abc123"', "models/gone is no folder"),
        ("~nobody-of-that-name/model", 'revision = "abc123"', "~nobody-of-that-name/model is no folder"),
        ("owner/model", "", "needs revision"),
        ("model.ckpt", "", "loads no pickles"),
        ("model.gguf", "", "GGUF"),
        ("model.safetensors", "", "config must be a folder"),
        ("model.safetensors", 'config = "gone"', "config must be a folder"),
    ],
)
def test_a_source_that_cannot_be_one_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, more: str, complaint: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in ("model.ckpt", "model.gguf", "model.safetensors"):
        (tmp_path / file).write_bytes(b"")
    entries = load(write(tmp_path, f'[[models]]\nname = "a"\nsource = "{source}"\n{more}\n'))
    with pytest.raises(ConfigError, match=f"model 'a': .*{complaint}"):
        require_sources(entries)


@pytest.mark.parametrize(("device", "fine"), [("cuda:1", True), ("cuda", True), ("gpu", False), ("cuda:", False)])
def test_a_device_may_have_a_number(tmp_path: Path, device: str, fine: bool) -> None:
    path = write(tmp_path, f'[[models]]\nname = "a"\nsource = "x"\ndevice = "{device}"\n')
    if fine:
        assert load(path)[0].device == device
    else:
        with pytest.raises(ConfigError, match="device"):
            load(path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'[[models]]\nname = "a"\nengine = "emulated"\n')
    assert [entry.name for entry in load(path)] == ["a"]
