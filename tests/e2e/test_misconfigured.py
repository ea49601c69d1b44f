"""Mistakes in settings and files: one line that names setting, file or model, exit code 2, and nothing left running."""

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.emulators import aws_environment, free_port
from tests.local_stack import MODELS, Local
from tests.process import module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
COMMANDS = {
    "up": module("infra.local", "up"),
    "demo": module("infra.local", "demo", "a ring"),
    "core": module("core", "serve"),
    "gateway": module("gateway"),
    "worker": module("worker"),
}
PIPELINE = '[[models]]\nname = "first"\nsource = "{}"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong: variables (None: unset; `{folder}` is the test's folder), files in the folder, and `prepared`."""

    who: str
    told: str
    """A pattern of the line."""
    variables: tuple[tuple[str, str | None], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    prepared: Callable[[Path], None] = lambda _: None


def of(who: str, told: str, **variables: str | None) -> Mistake:
    return Mistake(who=who, told=told, variables=tuple(variables.items()))


def model_file(who: str, told: str, text: str) -> Mistake:
    return Mistake(who=who, told=rf"models\.toml.*{told}", files=(("models.toml", text),))


def other_file(who: str, told: str, variable: str, text: str) -> Mistake:
    return Mistake(who=who, told=told, files=(("given", text),), variables=((variable, "{folder}/given"),))


TAKEN = "TAKEN"
"""Stands for a port on which something listens."""
MISTAKES = {
    "port in use": of("up", "port TAKEN on 127.0.0.1 is in use.*DARKROOM_GATEWAY_PORT", DARKROOM_GATEWAY_PORT=TAKEN),
    "port in use, gateway": of("gateway", "TAKEN.*DARKROOM_GATEWAY_PORT", DARKROOM_GATEWAY_PORT=TAKEN),
    "port in use, core": of("core", "TAKEN.*DARKROOM_CORE_ADMIN_PORT", DARKROOM_CORE_ADMIN_PORT=TAKEN),
    "port in use, worker": of("worker", "TAKEN.*DARKROOM_WORKER_ADMIN_PORT", DARKROOM_WORKER_ADMIN_PORT=TAKEN),
    "ports equal": of(
        "up",
        "port 14001 would be used twice: set DARKROOM_\\w+_PORT or DARKROOM_\\w+_PORT",
        DARKROOM_CORE_PORT="14001",
        DARKROOM_GATEWAY_PORT="14001",
    ),
    "port is no number": of("up", "DARKROOM_CORE_PORT must be a number", DARKROOM_CORE_PORT="many"),
    "data folder cannot be made": of("up", "/proc/darkroom.*DARKROOM_DATA_DIR", DARKROOM_DATA_DIR="/proc/darkroom"),
    "data folder cannot be made, gateway": of(
        "gateway", "/proc/darkroom.*DARKROOM_DATA_DIR", DARKROOM_DATA_DIR="/proc/darkroom"
    ),
    "data folder is a file": other_file("up", "given.*DARKROOM_DATA_DIR", "DARKROOM_DATA_DIR", ""),
    "data folder is a file, core": other_file("core", "given.*DARKROOM_DATA_DIR", "DARKROOM_DATA_DIR", ""),
    "data folder is a file, gateway": other_file("gateway", "given.*DARKROOM_DATA_DIR", "DARKROOM_DATA_DIR", ""),
    "typo in a setting": of(
        "up",
        "DARKROOM_GATWAY_PORT: there is no such setting, did you mean DARKROOM_GATEWAY_PORT",
        DARKROOM_GATWAY_PORT="1",
    ),
    "typo in a setting, demo": of("demo", "DARKROOM_MODEL_FILE.*DARKROOM_MODELS_FILE", DARKROOM_MODEL_FILE="x"),
    "typo in a setting, core": of("core", "DARKROOM_CORE_PROT.*DARKROOM_CORE_PORT", DARKROOM_CORE_PROT="1"),
    "bad number": of("core", "DARKROOM_CORE_BACKLOG_CAP: .*integer", DARKROOM_CORE_BACKLOG_CAP="lots"),
    "bad number, up": of("up", "DARKROOM_VISIBILITY_S: .*integer", DARKROOM_VISIBILITY_S="a minute"),
    "number out of bounds": of("worker", "DARKROOM_WORKER_UPLOADS: .*256", DARKROOM_WORKER_UPLOADS="100000"),
    "unknown log level": of("up", "DARKROOM_LOG_LEVEL: must be 'debug', 'info'", DARKROOM_LOG_LEVEL="loud"),
    "models file missing": of("up", "/nowhere.toml.*DARKROOM_MODELS_FILE", DARKROOM_MODELS_FILE="/nowhere.toml"),
    "models file missing, worker": of("worker", "/nowhere.toml.*MODELS_FILE", DARKROOM_MODELS_FILE="/nowhere.toml"),
    "models file is no TOML": model_file("up", "'\\]\\]'", "[[models"),
    "unknown key": model_file(
        "up", "model 'emulated': unknown key 'stepms', did you mean 'step_ms'", MODELS.replace("step_ms", "stepms")
    ),
    "duplicate name": model_file("gateway", "duplicate model name 'emulated'", MODELS + MODELS),
    "bad device": model_file(
        "worker", "model 'emulated': device = 'gpu': must be auto, cpu, cuda", MODELS + 'device = "gpu"\n'
    ),
    "weights missing": Mistake(
        who="up",
        told="model 'first': weights is no folder",
        files=(("models.toml", PIPELINE.format("weights")),),
    ),
    "hub id without revision": Mistake(
        who="up",
        told="model 'first': .*needs revision",
        files=(("models.toml", PIPELINE.format("someone/model")),),
    ),
    "http source": model_file(
        "up", "model 'far'.*http://host:port", '[[models]]\nname = "far"\nengine = "http"\nsource = "http://h:99999"\n'
    ),
    "typo in rules": other_file(
        "gateway", "rules file .*given.*limt", "DARKROOM_GATEWAY_RULES_FILE", '[[rules]]\nlimt = "1/s"\n'
    ),
    "rules are no TOML": other_file("gateway", "rules file .*given", "DARKROOM_GATEWAY_RULES_FILE", "[[rules"),
    "keys file cannot be read": of(
        "gateway", "keys file /.*DARKROOM_GATEWAY_KEYS_FILE", DARKROOM_GATEWAY_KEYS_FILE="/"
    ),
    "keys file is no JSON": other_file(
        "gateway", "keys file .*given.*DARKROOM_GATEWAY_KEYS_FILE", "DARKROOM_GATEWAY_KEYS_FILE", "{"
    ),
    "retention file": other_file("core", "given.*dayz", "DARKROOM_CORE_RETENTION_FILE", "dayz = 3\n"),
    "no token beyond loopback": of("core", "0.0.0.0.*DARKROOM_INTERNAL_TOKEN", DARKROOM_CORE_HOST="0.0.0.0"),
    "no key beyond loopback": of("gateway", "0.0.0.0.*keys create TENANT", DARKROOM_GATEWAY_HOST="0.0.0.0"),
    **{
        f"public URL {url}": of("gateway", "DARKROOM_GATEWAY_PUBLIC_URL: .*https://", DARKROOM_GATEWAY_PUBLIC_URL=url)
        for url in ("darkroom.example", "http://u:p@x")
    },
    **{
        f"endpoint {url}, {who}": of(who, "AWS_ENDPOINT_URL.*" + re.escape(url), AWS_ENDPOINT_URL=url)
        for who, url in (("core", "127.0.0.1:4566"), ("gateway", "ftp://x"), ("worker", "http://x:99999"))
    },
    **{
        f"no credentials, {who}": of(who, "AWS_ACCESS_KEY_ID.*`just dead-letters`", AWS_ACCESS_KEY_ID=None)
        for who in ("core", "gateway", "worker")
    },
    "half of the credentials": of("core", "AWS_SECRET_ACCESS_KEY", AWS_SECRET_ACCESS_KEY=None),
    "no region": of("core", "AWS_DEFAULT_REGION", AWS_DEFAULT_REGION=None),
    "origin": of("gateway", "DARKROOM_GATEWAY_CORS_ORIGINS: origins", DARKROOM_GATEWAY_CORS_ORIGINS="app.example.org"),
    "port of an origin": of("gateway", "CORS_ORIGINS: origins", DARKROOM_GATEWAY_CORS_ORIGINS="http://x:99999"),
    "image mode": of("gateway", "DARKROOM_GATEWAY_IMAGES: must be 'stream' or", DARKROOM_GATEWAY_IMAGES="send"),
    "image mode, up": of("up", "DARKROOM_GATEWAY_IMAGES: must be 'stream' or", DARKROOM_GATEWAY_IMAGES="send"),
    "address of core": of("gateway", "DARKROOM_CORE_TARGET", DARKROOM_CORE_TARGET="nonsense"),
    "device of a worker": of("up", "DARKROOM_LOCAL_DEVICES.*'first'", DARKROOM_LOCAL_DEVICES="first"),
}


@contextmanager
def taken_port() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    mistake, local = MISTAKES[name], Local(tmp_path)
    for file, text in mistake.files:
        (tmp_path / file).write_text(text)
    aws = aws_environment(f"http://127.0.0.1:{free_port()}")
    given: dict[str, str | None] = {**local.environment, **aws, "AWS_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    with taken_port() as taken:
        given.update(mistake.variables)
        environment = {
            key: taken if value == TAKEN else value.replace("{folder}", str(tmp_path))
            for key, value in given.items()
            if value is not None
        }
        done = subprocess.run(
            COMMANDS[mistake.who],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        told = mistake.told.replace(TAKEN, taken)
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = [each for each in done.stderr.splitlines() if not each.startswith("{")]  # lines of the log
    assert line.startswith("darkroom: ")
    assert re.search(told, line)
    assert "Traceback" not in done.stderr
    assert local.marked() == {}
