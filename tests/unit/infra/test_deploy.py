"""infra/deploy without a container engine: what can be wrong in the text is found here."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from core.config import CoreSettings
from gateway.access.rate_limits import load_rules
from gateway.config import GatewaySettings
from infra.lifecycle import ConfigError
from infra.local.emulator import hosts_from, key_from
from infra.local.emulator_lock import ALIVE_PATH
from infra.settings import PREFIX, SHIPPED_MODELS_FILE
from worker.config import WorkerSettings

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "infra" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
JAEGER: dict[str, Any] = yaml.safe_load((DEPLOY / "jaeger.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
KNOWN = {PREFIX + name.upper() for cls in (CoreSettings, GatewaySettings, WorkerSettings) for name in cls.model_fields}


def resolved(text: str) -> str:
    """As compose reads it when no variable is set."""
    return re.sub(r"\$\{[A-Z_]+(?::?-([^}]*))?(?::?\?[^}]*)?\}", lambda found: found[1] or "", text)


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [resolved(volume).split(":") for volume in service.get("volumes", [])]
    return [(source, target) for source, target, *_ in parts]


def test_the_whole_system_is_there() -> None:
    assert set(SERVICES) == {"gateway", "core", "worker", "emulator", "jaeger"}


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" in SERVICES[name]])
def test_every_built_service_has_its_target(name: str) -> None:
    build = SERVICES[name]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DEPLOY / "Dockerfile"
    assert re.search(rf"^FROM runtime AS {build['target']}$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_restarted_checked_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["cap_drop"] == ["ALL"]
    assert not service.get("privileged")
    assert re.search(r":[0-9]+\.[0-9]+\.[0-9]+$", service["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_unless_asked(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith(("127.0.0.1:", "${DARKROOM_BIND:-127.0.0.1}:"))


def test_every_volume_is_declared_and_used() -> None:
    used = {source for service in SERVICES.values() for source, _ in mounts(service) if not source.startswith(".")}
    assert used == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for source, _ in mounts(service):
            assert not source.startswith(".") or (DEPLOY / source).exists()


@pytest.mark.parametrize("name", ["gateway", "core", "worker"])
def test_every_setting_exists(name: str) -> None:
    ours = {variable for variable in SERVICES[name]["environment"] if variable.startswith(PREFIX)}
    assert ours <= KNOWN
    assert "DARKROOM_INTERNAL_TOKEN" in ours


@pytest.mark.parametrize("name", ["gateway", "core", "worker"])
def test_every_service_reaches_a_queue_and_a_store_outside(name: str) -> None:
    """A network that is internal leads nowhere else, so a service on that alone could not use AWS."""
    assert any(not (COMPOSE["networks"][each] or {}).get("internal") for each in SERVICES[name]["networks"])


def test_a_missing_token_stops_compose() -> None:
    for name in ("gateway", "core", "worker"):
        assert SERVICES[name]["environment"]["DARKROOM_INTERNAL_TOKEN"].startswith("${DARKROOM_INTERNAL_TOKEN:?")


def test_the_emulator_is_locked_with_a_secret_of_its_owner() -> None:
    service = SERVICES["emulator"]["environment"]
    assert re.search(r'^ENTRYPOINT \["python", "-m", "infra\.local\.emulator"\]$', DOCKERFILE, re.MULTILINE)
    assert '"ministack"]' not in DOCKERFILE
    for name in ("gateway", "core", "worker", "emulator"):
        environment = SERVICES[name]["environment"]
        assert environment["AWS_SECRET_ACCESS_KEY"].startswith("${AWS_SECRET_ACCESS_KEY?put "), "no known default"
        assert environment["AWS_ACCESS_KEY_ID"] == service["AWS_ACCESS_KEY_ID"]
    default = re.fullmatch(r"\$\{AWS_ENDPOINT_URL-http://(\S+)\}", SERVICES["core"]["environment"]["AWS_ENDPOINT_URL"])
    assert default is not None
    assert default[1] in hosts_from(service)
    assert "ports" not in SERVICES["emulator"], "pictures come from the gateway"
    assert SERVICES["gateway"]["environment"]["DARKROOM_GATEWAY_IMAGES"] == "${DARKROOM_GATEWAY_IMAGES-stream}"
    assert ALIVE_PATH in " ".join(SERVICES["emulator"]["healthcheck"]["test"])
    assert re.search(r"^AWS_SECRET_ACCESS_KEY=$", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    with pytest.raises(ConfigError):
        key_from({"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": ""})


def test_health_checks_ask_the_ports_that_are_served() -> None:
    ports = {
        name: re.findall(r"127\.0\.0\.1:(\d+)", " ".join(SERVICES[name]["healthcheck"]["test"])) for name in SERVICES
    }
    fields: dict[str, type[BaseSettings]] = {"gateway": GatewaySettings, "core": CoreSettings, "worker": WorkerSettings}
    for name, cls in fields.items():
        assert ports[name] == [str(cls.model_fields[f"{name}_admin_port"].default)]
    assert ports["emulator"] == [SERVICES["emulator"]["environment"]["GATEWAY_PORT"]]
    assert JAEGER["extensions"]["healthcheckv2"]["http"]["endpoint"].endswith(f":{ports['jaeger'][0]}")


def test_jaeger_takes_and_keeps_what_the_services_send() -> None:
    exported = SERVICES["core"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert JAEGER["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2] in exported
    backends = JAEGER["extensions"]["jaeger_storage"]["backends"]
    store = JAEGER["extensions"]["jaeger_query"]["storage"]["traces"]
    assert JAEGER["exporters"]["jaeger_storage_exporter"]["trace_storage"] == store
    badger = backends[store]["badger"]
    assert badger["ephemeral"] is False
    kept = dict(mounts(SERVICES["jaeger"]))["traces"]
    assert all(folder.startswith(kept + "/") for folder in badger["directories"].values())
    pipeline = JAEGER["service"]["pipelines"]["traces"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) <= set(JAEGER[kind])
    assert set(JAEGER["service"]["extensions"]) == set(JAEGER["extensions"])


def test_images_are_pinned_run_without_root_and_install_one_extra_each() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert "USER root" not in DOCKERFILE
    for name in ("gateway", "core", "worker", "emulator"):
        assert f'-c constraints.txt ".[{name}]"' in DOCKERFILE
    for source in re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE, re.MULTILINE):
        for each in source.split():
            assert (ROOT / each).exists()


def test_the_gpu_overlay_names_an_existing_service() -> None:
    overlay = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
    assert set(overlay["services"]) == {"worker", "worker-2"}
    second = overlay["services"]["worker-2"]
    assert second["extends"] == {"file": "compose.yaml", "service": "worker"}
    assert second["profiles"], "one GPU is the usual number"
    devices = [each["deploy"]["resources"]["reservations"]["devices"] for each in overlay["services"].values()]
    assert [device["device_ids"] for (device,) in devices] == [["0"], ["1"]]


@pytest.mark.parametrize("name", ["gateway", "core", "worker"])
def test_every_service_reads_one_models_file_that_can_be_replaced(name: str) -> None:
    inside = SERVICES[name]["environment"]["DARKROOM_MODELS_FILE"]
    (source,) = [source for source, target in mounts(SERVICES[name]) if target == inside]
    assert (DEPLOY / source).resolve() == SHIPPED_MODELS_FILE
    assert all(volume.endswith(":ro") for volume in SERVICES[name]["volumes"] if inside in volume)


def test_weights_and_rules_are_mounted_and_the_shipped_rules_are_valid() -> None:
    assert ("weights", "/weights") in mounts(SERVICES["worker"])
    inside = SERVICES["gateway"]["environment"]["DARKROOM_GATEWAY_RULES_FILE"]
    (source,) = [source for source, target in mounts(SERVICES["gateway"]) if target == inside]
    assert load_rules(DEPLOY / source, []) == ()
    lines = (DEPLOY / source).read_text().splitlines()
    example = "\n".join(line[1:] for line in lines if re.match(r"#(\[\[|\w+ = )", line))
    (rule,) = tomllib.loads(example)["rules"]
    assert rule["operations"] == ["createGeneration"]


@pytest.mark.parametrize("name", ["gateway", "core", "worker"])
def test_metrics_can_be_scraped_in_the_network_and_are_not_published(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"][f"DARKROOM_{name.upper()}_ADMIN_HOST"] == "0.0.0.0"
    fields: dict[str, type[BaseSettings]] = {"gateway": GatewaySettings, "core": CoreSettings, "worker": WorkerSettings}
    port = fields[name].model_fields[f"{name}_admin_port"].default
    assert not [each for each in service.get("ports", []) if str(port) in each]
    assert "internal" in service["networks"]


def test_the_gateway_waits_for_its_first_key() -> None:
    assert SERVICES["gateway"]["environment"]["DARKROOM_GATEWAY_AWAIT_KEYS"] == "true"


def test_the_example_settings_are_those_that_compose_reads() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    named = re.findall(r"^#?([A-Z_]+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    assert named
    for name in named:
        assert name == "COMPOSE_PROFILES" or f"${{{name}" in text
