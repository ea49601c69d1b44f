"""An engine without a model: sleeps as a GPU with a given batch curve would, and draws a picture that encodes its id.

For load tests and for measuring darkroom's own overhead; every result names the engine `emulated`. A step of a batch
of b takes t(b) = t(1)·(1−α+αb). The picture is a grid of light and dark cells that `read_emulated` decodes into
generation id, index and seed, so that tests detect swapped pictures. The grid survives JPEG and WebP at the worker's
quality.
"""

import struct
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from zlib import crc32

from schema import schedulers
from worker.engines.base import Bounds, NoProcess
from worker.engines.contract import (
    BatchKey,
    Capabilities,
    Done,
    EngineFacts,
    ModelAbilities,
    Picture,
    Progress,
    RenderJob,
    Report,
    Stepped,
)

_MAX_ID_BYTES = 64
_NUMBERS = struct.Struct(">BII")  # index, seed, checksum
_BITS = (1 + _MAX_ID_BYTES + _NUMBERS.size) * 8
_CELLS_PX = (16, 8, 4, 2)
_LIGHT = b"0" * 113 + b"1" * 143  # of each level of grey


_ABILITIES = ModelAbilities(negative_prompt=True, guidance="cfg", guidance_off=1.0, schedulers=schedulers.NAMES)
"""Everything that a request may contain: the engine accepts all options and ignores most of them."""


class NotEmulated(ValueError):
    """The picture was not drawn by the emulated engine, or is too damaged to be read."""


class EmulatedEngine(NoProcess):
    """Members may have different step counts: each leaves when its own steps are done."""

    def __init__(
        self,
        *,
        model: str,
        step_s: float,
        alpha: float,
        max_batch: int,
        bounds: Bounds,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._step_s = step_s
        self._alpha = alpha
        self._bounds = bounds
        self._sleep = sleep
        self._members: dict[str, tuple[RenderJob, int]] = {}
        self._evicted: set[str] = set()
        self._parked: set[str] = set()
        self.loaded = False
        self.capabilities = Capabilities(join_midway=True, evict_one=True, park=True, max_batch=max_batch)
        self.facts = EngineFacts(
            engine="emulated", model=model, model_revision="emulated", device="emulated", abilities=_ABILITIES
        )

    def key(self, job: RenderJob) -> BatchKey:
        """Images of one size share a batch."""
        self._bounds.require(job)
        return (job.model, job.width, job.height)

    def load(self) -> None:
        """Nothing to load."""
        self.loaded = True

    def unload(self) -> None:
        """Nothing to free."""
        self.reset()
        self.loaded = False

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """At any step."""
        for job in jobs:
            self._evicted.discard(job.id)
            self._parked.discard(job.id)
            self._members[job.id] = (job, 0)

    def step(self, report: Report) -> Stepped:
        """One step of all members that are not parked."""
        evicted = [job_id for job_id in self._members if job_id in self._evicted]
        for job_id in evicted:
            del self._members[job_id]
            self._evicted.discard(job_id)
            self._parked.discard(job_id)
        batch = [job_id for job_id in self._members if job_id not in self._parked]
        if not batch:
            return Stepped(evicted=evicted)
        self._sleep(self._step_s * (1 - self._alpha + self._alpha * len(batch)))
        for job_id in batch:
            job, done = self._members[job_id]
            self._members[job_id] = (job, done + 1)
        report(Progress(steps={job_id: self._members[job_id][1] for job_id in batch}))
        finished = [job for job, done in map(self._members.__getitem__, batch) if done >= job.num_inference_steps]
        for job in finished:
            del self._members[job.id]
        return Stepped(finished=[Done(job_id=job.id, result=job) for job in finished], evicted=evicted)

    def evict(self, job_id: str) -> None:
        """Leaves at the next step."""
        if job_id in self._members:
            self._evicted.add(job_id)

    def park(self, job_id: str) -> None:
        """The member takes no further step until `unpark`, and keeps its step count."""
        if job_id in self._members:
            self._parked.add(job_id)

    def unpark(self, job_id: str) -> None:
        """From the next step on."""
        self._parked.discard(job_id)

    def decode(self, done: Done) -> Picture:
        """Draw it."""
        job = done.result
        assert isinstance(job, RenderJob)  # noqa: S101  (our own `step` made it)
        generation_id, _, index = job.id.rpartition("/")
        rgb = draw(generation_id, int(index), job.seed, job.width, job.height)
        return Picture(width=job.width, height=job.height, rgb=rgb)

    def reset(self) -> None:
        """Forget all."""
        self._members.clear()
        self._evicted.clear()
        self._parked.clear()


def draw(generation_id: str, index: int, seed: int, width: int, height: int) -> bytes:
    """RGB pixels, rows from the top, of a picture that `read_emulated` can read; at least 64x64. Raises ValueError for
    an id of more than 64 characters.
    """
    name = generation_id.encode("ascii")
    if len(name) > _MAX_ID_BYTES:
        raise ValueError(f"a generation id may have at most {_MAX_ID_BYTES} characters")
    head = bytes((len(name),)) + name.ljust(_MAX_ID_BYTES, b"\0")
    data = head + _NUMBERS.pack(index, seed, crc32(head + bytes((index,)) + seed.to_bytes(4, "big")))
    bits = f"{int.from_bytes(data, 'big'):0{_BITS}b}".encode()
    cell = _cell_px(width, height)
    columns, rows = width // cell, height // cell
    tint = crc32(data)  # light cells have a colour of their own, bright enough to differ from dark ones
    light = bytes((192 + (tint & 63), 192 + (tint >> 8 & 63), 192 + (tint >> 16 & 63))) * cell
    dark = bytes((16, 16, 24)) * cell
    bits += b"01" * ((columns * rows - _BITS) // 2 + 1)
    lines = []
    for row in range(rows):
        cells = bits[row * columns : (row + 1) * columns]
        line = cells.replace(b"0", dark).replace(b"1", light)  # no byte of a dark cell is a "1"
        lines.append((line + line[-3:] * (width - columns * cell)) * cell)
    image = b"".join(lines)
    return image + image[-3 * width :] * (height - rows * cell)


def read_emulated(data: bytes) -> tuple[str, int, int]:
    """Generation id, index and seed of an encoded picture that the emulated engine drew. Raises NotEmulated."""
    from PIL import Image  # noqa: PLC0415  (drawing needs no Pillow)

    try:
        with Image.open(BytesIO(data)) as opened:
            image = opened.convert("L")
    except OSError as error:
        raise NotEmulated(f"no picture ({type(error).__name__})") from None
    width, height = image.size
    if width < 64 or height < 64:
        raise NotEmulated("too small")
    cell = _cell_px(width, height)
    columns = width // cell
    pixels = image.tobytes().translate(_LIGHT)
    middles = range((cell // 2) * width + cell // 2, width * height, width * cell)
    bits = b"".join(pixels[at : at + columns * cell : cell] for at in middles)[:_BITS]
    packed = int(bits, 2).to_bytes(_BITS // 8, "big")
    index, seed, checksum = _NUMBERS.unpack_from(packed, 1 + _MAX_ID_BYTES)
    head = packed[: 1 + _MAX_ID_BYTES]
    if checksum != crc32(head + bytes((index,)) + seed.to_bytes(4, "big")) or head[0] > _MAX_ID_BYTES:
        raise NotEmulated("the cells do not add up")
    return head[1 : 1 + head[0]].decode("ascii"), index, seed


def _cell_px(width: int, height: int) -> int:
    """The largest cells of which the picture holds enough."""
    return next(px for px in _CELLS_PX if (width // px) * (height // px) >= _BITS)
