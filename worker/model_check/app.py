"""`python -m worker models check`: prints what each entry of the models file is and whether it can be loaded."""

import argparse
import sys

from infra import models
from infra.lifecycle import EXIT_CRASHED, ConfigError
from worker.config import WorkerSettings
from worker.engines.check import Checked, check
from worker.engines.factory import build

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `models check`."""
    commands = parser.add_subparsers(dest="models_command", required=True)
    checking = commands.add_parser("check", help="say of each model what it is and whether it can be loaded")
    checking.add_argument("names", nargs="*", metavar="NAME", help="these models; left out: all of the models file")
    checking.add_argument("--load", action="store_true", help="load each one, which takes its time and memory")


def run(given: argparse.Namespace, settings: WorkerSettings) -> int:
    """Print the report. Returns exit code 1 if a model cannot be served, else 0. Raises ConfigError."""
    entries = models.load(settings.models_file)
    known = {entry.name for entry in entries}
    for name in given.names:
        if name not in known:
            raise ConfigError(
                f"models file {settings.models_file}: no model {name!r}; it has {', '.join(sorted(known))}"
            )
    broken = 0
    print(f"models file {settings.models_file}")
    for entry in entries:
        if not given.names or entry.name in given.names:
            found = _checked(entry, settings, load=given.load)
            broken += bool(found.problem)
            _show(entry, found)
    return EXIT_CRASHED if broken else 0


def _checked(entry: models.ModelEntry, settings: WorkerSettings, *, load: bool) -> Checked:
    try:
        models.require_sources([entry])
    except ConfigError as error:
        return Checked(problem=str(error).partition(": ")[2])
    threads, load_s = settings.worker_torch_threads, settings.worker_engine_load_s
    return check(entry, engine=(lambda: build(entry, torch_threads=threads, load_s=load_s)) if load else None)


def _show(entry: models.ModelEntry, found: Checked) -> None:
    mark, colour = ("✗", _RED) if found.problem else ("✓", _GREEN)
    engine = entry.engine + (f" of {entry.serves}" if entry.engine == "uds" else "")
    on_terminal = sys.stdout.isatty()
    print(f"\n{colour if on_terminal else ''}{mark} {entry.name}{_PLAIN if on_terminal else ''}  ({engine})")
    if found.problem:
        print(f"  cannot be served  {found.problem}")
    defaults = (
        f"{entry.width}x{entry.height}, {entry.num_inference_steps} steps, guidance {entry.guidance_scale:g}, "
        f"at most {entry.max_width}x{entry.max_height}, {entry.max_batch} at a time"
    )
    for name, value in (*found.lines, ("settings", defaults)):
        print(f"  {name:<16}  {value}")
