"""Settings come from the environment; all problems are told at once, and no secret."""

from pathlib import Path

import pytest

from core.config import CoreSettings
from gateway.config import GatewaySettings
from infra.lifecycle import ConfigError
from infra.local import checks
from infra.local.layout import Stack
from infra.settings import OWNERS, SHIPPED_MODELS_FILE, Settings, is_http_address, is_loopback, load, variable
from worker.config import WorkerSettings
from worker.engine_server.config import EngineServerSettings


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


def test_a_variable_that_is_no_setting_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_MODEL_FILE", "canary")
    monkeypatch.setenv("DARKROOM_XYZZY", "canary")
    with pytest.raises(ConfigError) as caught:
        load(Settings)
    assert "DARKROOM_MODEL_FILE: there is no such setting, did you mean DARKROOM_MODELS_FILE?" in str(caught.value)
    assert "DARKROOM_XYZZY: there is no such setting" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "DARKROOM_GATEWAY_PROT",  # the gateway's own to refuse
        "DARKROOM_LOCAL_WORKERS",
        "DARKROOM_GATEWAY_SERVICE_HOST",  # Kubernetes, for a service named darkroom-gateway
        "DARKROOM_SERVICE_PORT_HTTP",
        "DARKROOM_PORT_8080_TCP_ADDR",
        "DARKROOM_WORKER_PORT",
        "DARKROOM_BIND",
        "darkroom_model_file",
        "NOT_DARKROOM_MODEL_FILE",
    ],
)
def test_what_is_not_ours_to_judge_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    load(Settings)


@pytest.mark.parametrize("cls", [CoreSettings, GatewaySettings, WorkerSettings, EngineServerSettings])
def test_each_service_refuses_its_own_typos(monkeypatch: pytest.MonkeyPatch, cls: type[Settings]) -> None:
    names = [variable(name) for name in cls.model_fields if name.startswith(cls.owner.lower())]
    assert names
    for name in names:
        with monkeypatch.context() as patched:
            patched.setenv(f"{name}X", "1")
            with pytest.raises(ConfigError, match=rf"{name}X: .* did you mean {name}\?"):
                load(cls)


def test_the_owners_are_the_words_that_settings_begin_with() -> None:
    for cls in (CoreSettings, GatewaySettings, WorkerSettings, EngineServerSettings):
        assert cls.owner in OWNERS
        for name in cls.model_fields.keys() - Settings.model_fields.keys():
            assert name.upper().startswith(tuple(f"{owner}_" for owner in OWNERS)), name


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CoreSettings.model_fields.keys() - {"core_target"}:
        monkeypatch.setenv(variable(name), "")
    assert load(CoreSettings).model_dump() == {name: field.default for name, field in CoreSettings.model_fields.items()}
    monkeypatch.setenv("DARKROOM_CORE_TARGET", "")
    assert load(WorkerSettings).core_target == "", "a worker without core"


def test_the_local_stack_knows_every_setting_of_every_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (CoreSettings, GatewaySettings, WorkerSettings, EngineServerSettings):
        checks.settings({variable(name): "" for name in cls.model_fields})
    with pytest.raises(ConfigError, match=r"DARKROOM_GATWAY_PORT: .* did you mean DARKROOM_GATEWAY_PORT\?"):
        checks.settings({"DARKROOM_GATWAY_PORT": "1"})
    with pytest.raises(ConfigError, match=r"DARKROOM_LOCAL_WORKER: .* did you mean DARKROOM_LOCAL_WORKERS\?"):
        checks.settings({"DARKROOM_LOCAL_WORKER": "1"})


NO_ADDRESSES = (
    *("darkroom.example", "127.0.0.1:4566", "//x", "ftp://x", "file:///x", "http://", "http:///x", "https://:80"),
    *(
        "http://a b",
        "http://x\n",
        "http://x\t",
        "http://x\\y",
        "http://x:0",
        "http://x:99999",
        "http://x:y",
        "http://[::1",
    ),
    *("http://x?y", "http://x?", "http://x/#a", "http://x#", "http://u:p@x", "http://u@x"),
)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_told_by_its_setting(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert not is_http_address(text)
    for name in ("DARKROOM_GATEWAY_PUBLIC_URL", "DARKROOM_GATEWAY_LINK_ENDPOINT_URL", "DARKROOM_GATEWAY_CORS_ORIGINS"):
        with monkeypatch.context() as patched:
            patched.setenv(name, text.strip() + "\\" * (text != text.strip()))  # origins are stripped
            with pytest.raises(ConfigError, match=rf"^{name}: (must|origins)"):
                load(GatewaySettings)


@pytest.mark.parametrize(
    "text", ["http://x", "https://x:443/a/b", "http://[::1]:8080", "http://127.0.0.1:1", "https://ü.de"]
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert is_http_address(text)
    monkeypatch.setenv("DARKROOM_GATEWAY_PUBLIC_URL", text)
    assert load(GatewaySettings).gateway_public_url == text


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False)),
    ],
)
def test_is_loopback(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here
