"""`python -m infra.local.launch NAME`: becomes one program of the stack in whose data folder it is started.

supervisord starts this, so that its configuration file needs no path of the user: the file's syntax cannot express
every path. The program writes its log itself, so it outlives supervisord, and a full disk does not end it.
"""

import json
import os
import sys
from pathlib import Path

from infra.local.rotation import Rotated

_OWN = ("DARKROOM_LOCAL_PYTHON",)


def main(name: str) -> None:
    """Does not return."""
    state = json.loads(Path("local", "stack.json").read_text("utf-8"))
    program = state["programs"][name]
    _redirect(Path("logs", f"{name}.log"))
    os.chdir(state["cwd"])  # relative paths in settings and in the models file are the caller's
    environment = {key: value for key, value in os.environ.items() if key not in _OWN} | program["own"]
    options = ["-X", program["mark"], "-P"]  # -P: `core` or `worker` in the caller's folder must not shadow ours
    os.execve(sys.executable, [sys.executable, *options, "-m", *program["module"]], environment)  # noqa: S606


def _redirect(log: Path) -> None:
    """Output goes to the log, or nowhere when that cannot be opened."""
    Rotated(log).rotate_if_large()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        descriptor = os.open(log, flags, 0o600)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1])
