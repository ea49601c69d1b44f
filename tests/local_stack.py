"""The command line of the local stack, with a data folder and ports of its own, as a person uses it."""

import subprocess
import sys
from pathlib import Path

from infra.local import processes
from infra.local.marks import SUPERVISOR, Marked, find
from tests.emulators import clean_environment, free_port

PORTS = ("GATEWAY_PORT", "GATEWAY_ADMIN_PORT", "CORE_PORT", "CORE_ADMIN_PORT", "WORKER_ADMIN_PORT", "EMULATOR_PORT")
MODELS = '[[models]]\nname = "emulated"\nengine = "emulated"\nstep_ms = 5.0\nnum_inference_steps = 4\n'


class Local:
    """The command line with a data folder and ports of its own."""

    def __init__(self, folder: Path, data_dir: Path | None = None) -> None:
        self.folder = folder
        self.data_dir = data_dir or folder / "data"
        models = folder / "models.toml"
        models.write_text(MODELS)
        clean = {name: value for name, value in clean_environment().items() if not name.startswith("DARKROOM_")}
        self.environment = clean | {f"DARKROOM_{name}": str(free_port()) for name in PORTS}
        self.environment |= {"DARKROOM_DATA_DIR": str(self.data_dir), "DARKROOM_MODELS_FILE": str(models)}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "infra.local", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=200)
        finally:
            process.kill()
        return process.returncode, output, errors

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['DARKROOM_GATEWAY_PORT']}"

    def ports_in_use(self) -> list[str]:
        return [name for name in PORTS if not processes.port_is_free(int(self.environment[f"DARKROOM_{name}"]))]

    def marked(self) -> dict[str, Marked]:
        """The living processes of this stack by their names."""
        return {each.name: each for each in find(self.data_dir)}

    def supervisor(self) -> int:
        """Its pid."""
        return self.marked()[SUPERVISOR].pid
