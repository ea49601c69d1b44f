"""Settings come from the environment; all problems are told at once, and no secret."""

from pathlib import Path

import pytest

from infra.lifecycle import ConfigError
from infra.local.layout import Stack
from infra.settings import SHIPPED_MODELS_FILE, Settings, is_loopback, load


def test_defaults_need_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_DATA_DIR", "/elsewhere")
    settings = load(Settings)
    assert settings.data_dir == Path("/elsewhere")
    assert settings.jobs_queue == "darkroom-jobs"
    assert settings.models_file == SHIPPED_MODELS_FILE
    assert settings.models_file.is_file()


def test_every_problem_is_told_by_its_variable_and_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_LOG_LEVEL", "canary-loud")
    monkeypatch.setenv("DARKROOM_VISIBILITY_S", "canary-long")
    with pytest.raises(ConfigError) as caught:
        load(Settings)
    assert "DARKROOM_LOG_LEVEL" in str(caught.value)
    assert "DARKROOM_VISIBILITY_S" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_tilde_in_a_path_is_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setenv("DARKROOM_DATA_DIR", "~/data")
    monkeypatch.setenv("DARKROOM_MODELS_FILE", "~/models.toml")
    settings = load(Settings)
    assert (settings.data_dir, settings.models_file) == (Path("/homes/me/data"), Path("/homes/me/models.toml"))
    assert Stack.from_env({"DARKROOM_DATA_DIR": "~/data"}).data_dir == settings.data_dir
    monkeypatch.setenv("DARKROOM_DATA_DIR", "~no-such-user/data")
    with pytest.raises(ConfigError, match=r"DARKROOM_DATA_DIR.* user that does not exist"):
        load(Settings)
    with pytest.raises(ConfigError, match=r"DARKROOM_DATA_DIR.* user that does not exist"):
        Stack.from_env({"DARKROOM_DATA_DIR": "~no-such-user/data"})


def test_the_token_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_INTERNAL_TOKEN", "canary-token")
    settings = load(Settings)
    assert settings.internal_token.get_secret_value() == "canary-token"
    assert "canary" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False)),
    ],
)
def test_is_loopback(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here
