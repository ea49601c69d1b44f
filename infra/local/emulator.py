"""Runs the embedded emulator of SQS and S3 (ministack) behind a lock: `python -m infra.local.emulator`.

`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` are the one key that it answers to; address, port and folders are
ministack's own variables, `DARKROOM_EMULATOR_HOSTS` names it on a network. What ministack would open beside S3 and SQS
stays closed, and its files are their owner's alone.

Serves ministack's ASGI application itself, and not by ministack's `main`: a version that starts differently can then
not be served without the lock. Known: 1.5.33.
"""

import asyncio
import importlib
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.lifecycle import EXIT_MISCONFIGURED, ConfigError, print_config_error
from infra.local.emulator_lock import App, Lock
from infra.local.sigv4 import Key

if TYPE_CHECKING:
    from hypercorn.config import Config

KNOWN_VERSION = "1.5.33"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})
_SHORTEST_SECRET = 16
_KEEP_ALIVE_S = 75.0
_FORCED = {
    "AUTH": "true",  # a second check, and no CORS headers of its own
    "SERVICES": "s3,sqs",
    "IOT_MTLS_ENABLED": "0",  # listens on every interface, port 8883, otherwise
    "SFTP_ENABLED": "0",
    "USE_SSL": "0",  # would bind port 443 too
}
_FOLDERS = ("STATE_DIR", "S3_DATA_DIR", "TMPDIR")


def key_from(environ: Mapping[str, str]) -> Key:
    """The key that opens the lock. Raises ConfigError where it is missing or could be guessed."""
    name, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not name:
        raise ConfigError("AWS_ACCESS_KEY_ID is empty: the emulator answers no request without it")
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(
            f"AWS_SECRET_ACCESS_KEY must have {_SHORTEST_SECRET} characters or more: put a long random text into it"
        )
    return Key(id=name, secret=secret)


def hosts_from(environ: Mapping[str, str]) -> frozenset[str]:
    """What the Host header may be: loopback, the address bound, and `DARKROOM_EMULATOR_HOSTS` (comma-separated)."""
    port = _port(environ)
    bound = environ.get("BIND_HOST", _LOOPBACK[0])
    names = [*_LOOPBACK, *([] if bound in _EVERYWHERE else [f"[{bound}]" if ":" in bound else bound])]
    extra = [each.strip() for each in environ.get("DARKROOM_EMULATOR_HOSTS", "").split(",") if each.strip()]
    return frozenset([*(f"{name}:{port}" for name in names), *(e if ":" in e else f"{e}:{port}" for e in extra)])


def locked(app: App, environ: Mapping[str, str]) -> Lock:
    """The application behind the lock. Raises ConfigError."""
    return Lock(app, key_from(environ), hosts=hosts_from(environ))


def server_config(environ: Mapping[str, str]) -> "Config":
    """Hypercorn's settings, as ministack's own `main` has them. Raises ConfigError."""
    from hypercorn.config import Config  # noqa: PLC0415  (after the environment is set)

    config = Config()
    bound = environ.get("BIND_HOST", _LOOPBACK[0])
    config.bind = [f"[{bound}]:{_port(environ)}" if ":" in bound else f"{bound}:{_port(environ)}"]
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.loglevel = environ.get("LOG_LEVEL", "WARNING").upper()
    config.accesslog = None  # a signed link is a secret
    return config


def main() -> int:
    """Serves until SIGTERM. Exit codes: 0, 2 for a misconfiguration."""
    os.umask(0o077)
    try:
        key_from(os.environ)
        os.environ.update(_FORCED)
        for name in _FOLDERS:
            _own(name)
        config = server_config(os.environ)
        from hypercorn.asyncio import serve  # noqa: PLC0415

        _raise_file_limit()
        app: Any = locked(importlib.import_module("ministack.app").app, os.environ)
        asyncio.run(serve(app, config, mode="asgi"))
    except ConfigError as error:
        print_config_error(error)
        return EXIT_MISCONFIGURED
    except OSError as error:
        print_config_error(ConfigError(f"the emulator cannot listen: {error.strerror or error}; set GATEWAY_PORT"))
        return EXIT_MISCONFIGURED
    return 0


def _raise_file_limit() -> None:
    """Raises the soft limit of open files, usually 1,024, to the hard one: bursts of connections need more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("GATEWAY_PORT", "4566")
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65_535):
        raise ConfigError("GATEWAY_PORT must be a number from 1 to 65535")
    return int(text)


def _own(variable: str) -> None:
    """Makes the folder named by `variable` private to its owner, also one that an earlier version left readable."""
    if not os.environ.get(variable):
        return
    folder = Path(os.environ[variable])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{variable} {folder}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
