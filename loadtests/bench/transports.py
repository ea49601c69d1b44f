"""`just bench transports`: what it costs to get the same picture from an engine's process into the worker, three ways.

json: the OpenAI Images API, a PNG in base64 within JSON. raw: the pixels as the body of an HTTP answer. uds: the pixels
behind a frame on a Unix domain socket. Servers and clients are production's, each server a process of its own; the
engine behind them renders nothing (`still.py`). A run is one picture from `admit` to `decode`: over uds three calls,
over HTTP one request on a connection that stays open. Runs alternate, so that other load affects all three alike.

What the PNG costs depends on the picture. This one is a smooth gradient with noise in each channel, as the pictures of
an undertrained or grainy model are: it shrinks little, which makes PNG and base64 dear. `--smooth` leaves the noise
out. json's time ends with the file in hand, as the worker uploads it; `pixels_ms` adds its unpacking, which a reader
of pixels pays. The worker pays for PNG over raw and uds too, later, on its encode threads, beside the GPU.
The last line printed is JSON; the exit code is 1 when a floor was missed or pixels came out wrong.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops

from loadtests.bench import floors
from loadtests.bench.still import StillEngine
from loadtests.stack import ROOT, free_ports
from worker.engines.child_process.engine import UdsEngine
from worker.engines.contract import EncodedPicture, Engine, Picture, Progress, RenderJob
from worker.engines.http.calls import ModelServer
from worker.engines.http.engine import HttpEngine

SIDES = (256, 512, 1024)
NOISE_SIGMA = 12.0
WARM_UP = 5
FLOORS: floors.Floors = {
    "uds_over_json_1024": ("<=", 0.35),
    "uds_over_raw_1024": ("<=", 1.0),
    "uds_ms_256": ("<=", 1.0),
}


class WrongPixels(Exception):
    """A transport changed the picture."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. 1 when a floor was missed, or the pixels of any transport were not those of the engine."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench transports", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="pictures of each size over each transport")
    parser.add_argument("--smooth", action="store_true", help="a picture without noise")
    options = parser.parse_args(argv)
    try:
        result = measure(options.runs, smooth=options.smooth)
    except WrongPixels as error:
        print(f"bench transports: {error}", file=sys.stderr)
        return 1
    return floors.ended(result, floors.missed(result, FLOORS))


def measure(runs: int, *, smooth: bool = False) -> dict[str, object]:
    """All sizes over all transports. Raises WrongPixels."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder, ExitStack() as stack:
        expected = {side: _paint(Path(folder), side, smooth=smooth) for side in SIDES}
        engines = _engines(Path(folder), stack)
        if not all(_same(engine, side, pixels) for engine in engines.values() for side, pixels in expected.items()):
            raise WrongPixels("other pixels came out than went in")
        cells = [cell for side in SIDES for cell in _cells(engines, side, runs)]
    return _result(cells, smooth=smooth)


def _result(cells: list[dict[str, object]], *, smooth: bool) -> dict[str, object]:
    median = {(str(cell["transport"]), cell["size"]): float(str(cell["median_ms"])) for cell in cells}
    return {
        "bench": "transports",
        "uds_over_json_1024": round(median["uds", 1024] / median["json", 1024], 4),
        "uds_over_raw_1024": round(median["uds", 1024] / median["raw", 1024], 4),
        "uds_ms_256": median["uds", 256],
        "picture": "gradient" if smooth else f"gradient with noise, sigma {NOISE_SIGMA:g}",
        "cells": cells,
    }


def _paint(folder: Path, side: int, *, smooth: bool) -> bytes:
    """The picture of one size, also as a file for the servers."""
    ramp = Image.linear_gradient("L").resize((side, side))
    channels = [ramp, ramp.rotate(90), ramp.rotate(180)]
    if not smooth:
        noise = [Image.effect_noise((side, side), NOISE_SIGMA) for _ in channels]  # around 128
        channels = [ImageChops.add(each, grain, 1, -128) for each, grain in zip(channels, noise, strict=True)]
    pixels = Image.merge("RGB", channels).tobytes()
    (folder / f"{side}.rgb").write_bytes(pixels)
    return pixels


def _engines(folder: Path, stack: ExitStack) -> dict[str, Engine]:
    port = free_ports(1)[0]
    stack.enter_context(_http_server(folder, port))
    command = (sys.executable, "-m", "loadtests.bench.still", str(folder))
    base = f"http://127.0.0.1:{port}"
    engines: dict[str, Engine] = {
        "json": HttpEngine("still", ModelServer(base=base, api="openai")),
        "raw": HttpEngine("still", ModelServer(base=base, api="raw")),
        "uds": UdsEngine(StillEngine(folder), command),
    }
    for engine in engines.values():
        engine.load()
        stack.callback(engine.unload)
    return engines


@contextmanager
def _http_server(folder: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "loadtests.bench.still", str(folder), "--http", str(port)]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield
    finally:
        server.kill()
        server.wait()


def _picture(engine: Engine, side: int) -> Picture | EncodedPicture:
    job = RenderJob(
        id="gen_1/0",
        model="still",
        width=side,
        height=side,
        num_inference_steps=1,
        guidance_scale=0.0,
        seed=1,
        prompt="a picture",
    )
    engine.admit([job])
    (done,) = engine.step(_ignore).finished
    return engine.decode(done)


def _ignore(_: Progress) -> None:
    pass


def _same(engine: Engine, side: int, pixels: bytes) -> bool:
    return _pixels(_picture(engine, side)) == pixels


def _pixels(picture: Picture | EncodedPicture) -> bytes:
    if isinstance(picture, Picture):
        return picture.rgb
    with Image.open(BytesIO(picture.data)) as image:
        return image.tobytes()


def _cells(engines: dict[str, Engine], side: int, runs: int) -> list[dict[str, object]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    sizes: dict[str, int] = {}
    for run in range(WARM_UP + runs):
        for name, engine in engines.items():
            began = time.perf_counter()
            picture = _picture(engine, side)
            had = time.perf_counter()
            _pixels(picture)
            if run >= WARM_UP:
                times[name].append(((had - began) * 1000, (time.perf_counter() - began) * 1000))
            sizes[name] = len(picture.rgb if isinstance(picture, Picture) else picture.data)
    cells = []
    for name, measured in times.items():
        in_hand = sorted(each for each, _ in measured)
        median_ms, p90_ms = statistics.median(in_hand), in_hand[int(0.9 * (len(in_hand) - 1))]
        print(f"{name:5} {side:4}  median {median_ms:8.3f} ms  p90 {p90_ms:8.3f} ms  {sizes[name]:8} bytes")
        cell: dict[str, object] = {
            "transport": name,
            "size": side,
            "median_ms": round(median_ms, 3),
            "p90_ms": round(p90_ms, 3),
            "pixels_ms": round(statistics.median(each for _, each in measured), 3),
            "bytes": sizes[name],
            "runs": runs,
        }
        cells.append(cell)
    return cells
