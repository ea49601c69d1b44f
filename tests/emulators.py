"""Emulators of SQS and S3 as child processes on free loopback ports, for tests that need the real adapters."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.local import layout
from infra.local.layout import HOST, emulator_environment

SECRET = "the-secret-of-the-emulators-that-tests-start"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A loopback port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """This process's environment without the AWS settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def aws_environment(endpoint_url: str) -> dict[str, str]:
    """What points botocore at an emulator of the tests, or at a proxy before one."""
    return layout.aws_environment(endpoint_url, SECRET)


def locked_environment(data_dir: Path, port: int) -> dict[str, str]:
    """The environment of the emulator that local stacks run; a proxy on any port may stand before it."""
    own = emulator_environment(data_dir, port) | aws_environment(f"http://{HOST}:{port}")
    return clean_environment() | own | {"DARKROOM_EMULATOR_HOSTS": f"{HOST}:*"}


@contextmanager
def ministack(data_dir: Path, port: int | None = None) -> Iterator[str]:
    """The emulator that local stacks run, with its data in `data_dir`; gives its URL."""
    port = port or free_port()
    environment = locked_environment(data_dir, port)
    command = [sys.executable, "-m", "infra.local.emulator"]
    with _running(command, environment, port, data_dir / "emulator.log") as url:
        yield url


@contextmanager
def moto(log_dir: Path) -> Iterator[str]:
    """moto's server, the second opinion on what AWS does; gives its URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with _running(command, clean_environment(), port, log_dir / "moto.log") as url:
        yield url


@contextmanager
def _running(command: list[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[str]:
    url = f"http://{HOST}:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_until_it_answers(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"{process.args!r} ended: {log.read_text()[-2000:]}")
        try:
            _OPENER.open(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{url} does not answer: {log.read_text()[-2000:]}")
