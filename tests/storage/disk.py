"""A small disk of its own that a scenario can fill and free: a tmpfs, mounted by root or in a namespace of one's own.

`run` is for tests; scenarios stand in `tests/storage/full_disk.py` and run in a process of their own, because only a
process can enter a namespace.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 16 * 1024 * 1024
FAILED, NOT_MOUNTED = 3, 4
"""Exit codes of a scenario's process."""
UNSHARED = ("unshare", "--user", "--map-root-user", "--mount")
ROOT = Path(__file__).parents[2]


class SmallDisk:
    """Filled by a file that takes all the room there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        self._ballast.unlink()


class NotMounted(Exception):
    """Mounting is not allowed to this process."""


@contextmanager
def mounted(folder: Path, size: int = SIZE) -> Iterator[SmallDisk]:
    """A disk of `size` bytes, mounted in `folder` as long as the block lasts. Raises NotMounted."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "darkroom-test", str(place)]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise NotMounted(error.stderr.strip()) from None
    except OSError as error:
        raise NotMounted(f"mount: {error.strerror}") from None
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def run(scenario: str, folder: Path) -> None:
    """Fails the test as the scenario fails, and where no disk can be mounted: it never skips."""
    command = [sys.executable, "-m", "tests.storage.full_disk", scenario, str(folder)]
    refusals = []
    for prefix in ((), UNSHARED):
        try:
            done = subprocess.run(
                [*prefix, *command], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
            )
        except FileNotFoundError as error:
            refusals.append(str(error))
            continue
        if not done.returncode:
            return
        if done.returncode == FAILED:
            pytest.fail(f"{scenario}: {done.stdout[-6000:]}{done.stderr[-6000:]}")
        refusals.append(done.stderr.strip()[-300:])
    pytest.fail(
        "a full disk needs a small tmpfs, and mounting one is allowed neither here nor in a namespace of its own "
        f"(run the tests as root, or allow user namespaces): {refusals}"
    )
