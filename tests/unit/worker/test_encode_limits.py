"""An encoder without memory, and files that make it raise unexpected errors."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.engine_processes import ROOT
from worker.engines.contract import EncodedPicture
from worker.engines.errors import BadOutput
from worker.output import encode

WITHOUT_MEMORY = """
import os, resource
from pathlib import Path
from worker.output import encode
from worker.engines.contract import Picture

noise = Picture(width=512, height=512, rgb=os.urandom(512 * 512 * 3))
for form in (1, 2, 3):
    encode.encode(noise, form)
for extra in (0, 100_000, 1_000_000, 2_000_000, 3_000_000):
    for form in (1, 2, 3):
        if os.fork():
            assert os.wait()[1] == 0, (extra, form)
            continue
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + extra, -1))
        try:
            encode.encode(noise, form)
        except MemoryError:
            os._exit(0)
        except BaseException:
            os._exit(1)
        os._exit(0)
"""


def test_row_42_a_picture_is_never_blamed_for_want_of_memory() -> None:
    """Pillow says OSError when zlib finds no memory, and ValueError when WebP does."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEMORY],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", [KeyError, ZeroDivisionError, RuntimeError])
def test_row_41_whatever_a_file_makes_its_reader_raise_it_is_no_picture(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> Image.Image:
        raise error("text of a file")

    monkeypatch.setattr(Image, "open", broken)
    picture = EncodedPicture(width=64, height=64, data=b"\x89PNG", media_type="image/png")
    with pytest.raises(BadOutput, match=rf"^cannot be encoded as PNG \({error.__name__}\)$"):
        encode.encode(picture, 1)
