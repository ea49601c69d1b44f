"""What `bench gpu` measures of one model: the bare diffusers loop, our steps and decoding, and the whole worker.

Every timed region begins and ends with `torch.cuda.synchronize`, so that work under way is neither given away nor paid
twice. Peaks are the allocator's, of all that lives on the device at that moment, weights included.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO

import torch
from PIL import Image

from infra.models import ModelEntry
from loadtests.bench.engine import TimedEngine
from loadtests.bench.rig import Request, serving
from worker.engines.contract import Done, Engine
from worker.engines.devices import Device
from worker.engines.errors import OutOfMemory
from worker.engines.factory import build
from worker.engines.loading import open_pipeline

STORE_S = 0.2
MIB = 1 << 20
Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    batches: Sequence[int]
    images: int
    """Of each round of the whole worker, and of the bare loop beside it."""
    rounds: int


class Model:
    """One model: stock diffusers and our engine over the same folder, with the same requests."""

    def __init__(self, entry: ModelEntry, plan: Plan) -> None:
        self._entry = entry
        self._plan = plan
        self._request = Request(
            model=entry.name,
            side_px=entry.width,
            steps=entry.num_inference_steps,
            guidance_scale=entry.guidance_scale,
        )
        wish = Device(name=entry.device, dtype=entry.dtype, threads=1)
        self._stock, self._device = open_pipeline(entry.source, entry.revision, wish)
        self._engine = build(entry, torch_threads=1)
        self._prompts = 0

    def measure(self) -> Json:
        """Everything, one after the other; the stock pipeline is off the device while ours is measured alone."""
        entry = self._entry
        bare = self._bare_sizes()
        self._stock.to("cpu")
        Device.free()
        self._engine.load()
        steps = {size: found for size in bare if (found := self._tried(partial(self._step_ms, size)))}
        alone = {"curve_ms": _rounded(steps), "alpha": alpha(steps), **self._overlap(max(steps))}
        self._stock.to(self._device)
        whole = self._whole(max(bare, key=lambda size: bare[size][0]))
        self._engine.unload()
        del self._stock
        Device.free()
        return {
            "px": entry.width,
            "steps": entry.num_inference_steps,
            "guidance_scale": entry.guidance_scale,
            "dtype": entry.dtype,
            **whole,
            **alone,
            "bare": {size: {"images_per_s": round(per_s, 3), "peak_mib": peak} for size, (per_s, peak) in bare.items()},
        }

    def _bare_sizes(self) -> dict[int, tuple[float, int]]:
        """Images a second and the peak, by batch size, up to the first that does not fit."""
        found = {}
        for size in self._plan.batches:
            self._tried(partial(self._bare, size, size))  # chooses kernels, warms
            _reset_peak()
            calls = [self._tried(partial(self._bare, size, size)) for _ in range(self._plan.rounds)]
            times = [each for each in calls if each]
            if len(times) < self._plan.rounds:
                break
            found[size] = (statistics.median(times), _peak_mib())
            print(f"{self._entry.name}: bare loop, batches of {size}: {found[size][0]:.3f} images/s", flush=True)
        return found

    def _bare(self, batch: int, images: int) -> float:
        """Images a second of stock diffusers, from prompts to PIL pictures."""
        request, took_s = self._fresh(images), 0.0
        for at in range(0, images, batch):
            numbers = range(at, min(at + batch, images))
            began_s = _now_s()
            made = self._stock(
                prompt=[request.prompt(number) for number in numbers],
                width=request.side_px,
                height=request.side_px,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(number) for number in numbers],
            ).images
            took_s += _now_s() - began_s
            if [image.size for image in made] != [(request.side_px, request.side_px)] * len(numbers):
                raise RuntimeError("the bare loop made other pictures than were asked for")
        return images / took_s

    def _step_ms(self, size: int) -> float:
        """One step of a batch: the median of rounds, each all steps but the last, after a whole batch to warm."""
        self._batch(size)
        return statistics.median(self._batch(size) for _ in range(self._plan.rounds))

    def _batch(self, size: int) -> float:
        request = self._fresh(size)
        self._engine.admit([request.job(number) for number in range(size)])
        began_s = _now_s()
        for _ in range(request.steps - 1):
            self._engine.step(_ignore)
        took_s = _now_s() - began_s
        self._decode(self._engine.step(_ignore).finished)
        return 1000 * took_s / (request.steps - 1)

    def _overlap(self, size: int) -> Json:
        """How much of a decoding disappears behind the steps of the others.

        Beside a batch of `size` - 1, an image of a single step joins at every step and is decoded when the worker would
        decode it. The time includes its admission, so the hidden share is an underestimate.
        """
        decode_ms = statistics.median(self._decode_ms() for _ in range(self._plan.rounds + 1))
        self._steps_ms(size, joining=True)
        step_ms = statistics.median(self._steps_ms(size, joining=False) for _ in range(self._plan.rounds))
        with_decoding_ms = statistics.median(self._steps_ms(size, joining=True) for _ in range(self._plan.rounds))
        figures: Json = {
            "decode_ms": round(decode_ms, 3),
            "overlap": {
                "batch": size,
                "step_ms": round(step_ms, 3),
                "step_with_a_decoding_ms": round(with_decoding_ms, 3),
                "decoding_hidden_pct": round(100 * (step_ms + decode_ms - with_decoding_ms) / decode_ms, 1),
            },
        }
        print(f"{self._entry.name}: {figures}", flush=True)
        return figures

    def _decode_ms(self) -> float:
        """One picture: what the last step and its decoding take, less a step."""
        request = self._fresh(1)
        self._engine.admit([replace(request.job(0), num_inference_steps=3)])
        self._engine.step(_ignore)
        began_s = _now_s()
        self._engine.step(_ignore)
        between_s = _now_s()
        self._decode(self._engine.step(_ignore).finished)
        return 1000 * max(1e-6, _now_s() - between_s - (between_s - began_s))

    def _steps_ms(self, size: int, *, joining: bool) -> float:
        """A step of `size` images, of which one is new and done at each step or, without `joining`, none."""
        request = self._fresh(size)
        jobs = [request.job(number) for number in range(size)]
        self._engine.admit(jobs[joining:])
        done: Sequence[Done] = ()
        began_s = _now_s()
        for number in range(request.steps - 1):
            if joining:  # the empty prompt is known: no text is encoded
                self._engine.admit([replace(jobs[0], id=f"joins/{number}", prompt="", num_inference_steps=1)])
            stepped = self._engine.step(_ignore)
            if stepped.ahead:  # as the worker does it: those that finished with the step before
                self._decode(done)
                done = stepped.finished
            else:
                self._decode(stepped.finished)
        self._decode(done)
        took_s = _now_s() - began_s
        self._decode(self._engine.step(_ignore).finished)
        return 1000 * took_s / (request.steps - 1)

    def _decode(self, done: Sequence[Done]) -> None:
        for each in done:
            self._engine.decode(each)

    def _whole(self, bare_batch: int) -> Json:
        """The worker from message to upload, alternating with the bare loop at its best batch size."""
        self._serve(self._plan.batches[-1])
        bare, served = [], []
        for _ in range(self._plan.rounds):
            bare.append(self._bare(bare_batch, self._plan.images))
            served.append(self._serve(self._plan.images))
            timed, _ = served[-1]
            print(
                f"{self._entry.name}: worker {timed.images_per_s:.3f}/s, idle {timed.idle_pct:.2f} %; "
                f"bare {bare[-1]:.3f}/s",
                flush=True,
            )
        ratios = [timed.images_per_s / per_s for (timed, _), per_s in zip(served, bare, strict=True)]
        return {
            "ratio": round(statistics.median(ratios), 4),
            "ratios": [round(each, 4) for each in ratios],
            "images_per_s": round(statistics.median(timed.images_per_s for timed, _ in served), 3),
            "bare_images_per_s": round(statistics.median(bare), 3),
            "bare_batch": bare_batch,
            "gpu_idle_pct": round(statistics.median(timed.idle_pct for timed, _ in served), 3),
            "mean_batch": round(statistics.median(timed.mean_batch for timed, _ in served), 2),
            "images": self._plan.images,
            "peak_mib": max(peak for _, peak in served),
        }

    def _serve(self, images: int) -> tuple[TimedEngine, int]:
        request = self._fresh(images)
        return asyncio.run(_served(self._engine, request, images))

    def _fresh(self, images: int) -> Request:
        """The same request with prompts that neither side has rendered yet: cached text encodings must not help."""
        request = replace(self._request, first_prompt=self._prompts)
        self._prompts += images
        return request

    def _tried(self, work: Callable[[], float]) -> float | None:
        """The result of `work`, or None if the device runs out of memory."""
        try:
            return work()
        except (OutOfMemory, torch.OutOfMemoryError):
            pass
        self._engine.reset()  # outside of the except block: its traceback holds tensors
        Device.free()
        print(f"{self._entry.name}: out of memory", flush=True)
        return None


async def _served(engine: Engine, request: Request, images: int) -> tuple[TimedEngine, int]:
    """What the GPU thread's clock says, and the peak. The engine begins a new peak at each step."""
    peak = 0

    def heard(*_: object) -> None:
        nonlocal peak
        peak = max(peak, _peak_mib())

    async with serving(engine, check=partial(_check, request.side_px), latency_s=STORE_S) as rig:
        rig.engine.on_span = heard
        rig.feed(request, range(images))
        await rig.done(deadline_s=1800)
    rig.verify()
    return rig.engine, peak


def alpha(step_ms: Mapping[int, float]) -> float | None:
    """α of t(b) = t(1)·(1−α+αb), by least squares; None for a single size. 1: batching gains nothing, 0: it is free."""
    if len(step_ms) < 2:
        return None
    slope, base = statistics.linear_regression(list(step_ms), list(step_ms.values()))
    return round(slope / (base + slope), 4)


def _rounded(step_ms: Mapping[int, float]) -> dict[int, float]:
    return {size: round(each, 3) for size, each in step_ms.items()}


def _check(side_px: int, _: int, data: bytes) -> str:
    with Image.open(BytesIO(data)) as image:
        return "" if (image.format, image.size) == ("PNG", (side_px, side_px)) else "of another kind"


def _ignore(_: object) -> None:
    pass


def _now_s() -> float:
    """The time in seconds, taken once all launched GPU work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_mib() -> int:
    return torch.cuda.max_memory_allocated() // MIB if torch.cuda.is_available() else 0
