"""The composition root of the engine server: one in-process engine behind a Unix domain socket or HTTP."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import structlog
from aiohttp import web

from infra import lifecycle, models, pages, settings, telemetry
from infra.clock import wall_ms
from infra.lifecycle import ConfigError
from worker.engine_server import over_http, over_uds
from worker.engine_server.config import EngineServerSettings
from worker.engine_server.images_api import Defaults
from worker.engines.contract import Engine
from worker.engines.factory import build

_log = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `engine-server`."""
    parser.add_argument("--model", required=True, help="a name in the models file")
    parser.add_argument("--models-file", type=Path, help="default: DARKROOM_MODELS_FILE")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", type=Path, metavar="PATH", help="a socket in a folder that only this user can enter")
    where.add_argument("--http", metavar="HOST:PORT", help="beyond loopback it needs DARKROOM_ENGINE_TOKEN")
    parser.add_argument(
        "--parent", type=int, default=0, metavar="PID", help="end with this process, which must be ours"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the server. Exit code: 2 for wrong settings, 1 after a failure, with `--uds` 3 if the device is lost."""
    try:
        config = settings.load(EngineServerSettings)
        entry = _entry(arguments.models_file or config.models_file, arguments.model)
        host, port, token = _address(arguments.http, config)
    except ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED
    flush = telemetry.set_up("darkroom-engine", config)
    engine = build(entry, torch_threads=config.worker_torch_threads)
    try:
        if arguments.uds:
            return _serve_uds(engine, arguments.uds, arguments.parent)
        _log.info("engine_server.starting", model=entry.name, engine=entry.engine)
        limits = over_http.Limits(
            waiting=config.engine_waiting, render_s=config.engine_render_s, hang_s=config.engine_hang_s
        )
        defaults = Defaults(
            model=entry.name,
            width=entry.width,
            height=entry.height,
            num_inference_steps=entry.num_inference_steps,
            guidance_scale=entry.guidance_scale,
        )
        server = over_http.Server(
            engine, defaults, limits, now_s=lambda: wall_ms() / 1000, token=token, complaint=_page_at(host)
        )
        return serve_http(server, host, port, flush)
    finally:
        flush()


def _page_at(host: str) -> Callable[[web.Request], str]:
    return lambda request: pages.complaint(request.headers, bound=host)


def serve_http(server: over_http.Server, host: str, port: int, flush: Callable[[], None]) -> int:
    """Serves until a signal. Returns the exit code; exits at once instead if the engine's thread is still busy."""
    code = lifecycle.run(lambda shutdown: server.serve(host, port, shutdown.wait))
    if server.left_behind:
        _log.warning("engine_server.thread_left_behind")
        lifecycle.leave(code, flush)
    return code


def _serve_uds(engine: Engine, path: Path, parent: int) -> int:
    os.umask(0o077)
    try:
        return over_uds.serve(engine, path, parent=parent)
    except OSError as error:
        lifecycle.print_config_error(ConfigError(f"--uds {path}: {error}"))
        return lifecycle.EXIT_MISCONFIGURED


def _entry(path: Path, name: str) -> models.ModelEntry:
    entries = models.load(path)
    entry = next((each for each in entries if each.name == name), None)
    if entry is None:
        raise ConfigError(f"models file {path}: no model {name!r}; it has {', '.join(each.name for each in entries)}")
    if not entry.in_process:
        raise ConfigError(f"model {name!r} has engine {entry.engine}: it is served elsewhere")
    models.require_sources([entry])
    return entry.model_copy(update={"engine": entry.in_process})


def _address(text: str | None, config: EngineServerSettings) -> tuple[str, int, str]:
    token = config.engine_token.get_secret_value()
    if text is None:
        return "", 0, token
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"--http {text}: not HOST:PORT")
    if not token and not settings.is_loopback(host):
        raise ConfigError(f"the engine would be open on {host}: set DARKROOM_ENGINE_TOKEN, or listen on 127.0.0.1")
    return host, int(port), token
