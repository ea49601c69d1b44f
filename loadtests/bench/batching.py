"""`just bench batching`: step-level admission against the best static batches, in virtual time.

The policy is the worker's own (`worker.batching.policy.next_step`, asked before every step); the GPU is t(b) =
t(1)·(1−α+αb) with t(1) = 50 ms and at most eight images at a time. **Baseline**: greedy static batches (first come,
first served: when the GPU is free, all waiting images start, up to a cap and whatever their step counts, and all finish
with the longest), with the best cap of 1, 2, 4 and 8 *for each cell*: the one of lowest p50. p99 and mean are against
the same cap. **Load** is a share of the throughput of the best static cap when the queue never empties, so that the
baseline is stable in every cell; `load_stepwise` is the same load as a share of the throughput of batches of eight
admitted step by step (`--capacity stepwise` takes the loads from that, which overloads many baselines). Both sides get
the same arrivals.

Beyond the floors, each cell repeats the run with a curve that is learned from steps with 5 % noise, one in a thousand
of which takes ten times as long, and with only 16 waiting images visible. `images_robust` and `images_saturated` are
the numbers of images in these and in the saturated cases. The last line printed is JSON; the exit code is 1 when a
floor was missed.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

from loadtests.bench import floors
from loadtests.bench.batching_sim import (
    LIMIT,
    Noisy,
    all_at_once,
    figures,
    poisson,
    ratios,
    static,
    static_per_s,
    stepwise,
    times_s,
)

ALPHAS = (1.0, 0.8, 0.5, 0.3)
LOADS = (0.3, 0.5, 0.7, 0.9)
MIXES = {"20/30/50": (20, 30, 50), "4/30/50": (4, 30, 50)}
CAPS = (1, 2, 4, 8)
WINDOW = 2 * LIMIT
NOISE, PAUSES = 0.05, 0.001
FLOORS: floors.Floors = {
    "worst_p50_ratio": ("<=", 1.05),
    "worst_p99_ratio": ("<=", 1.10),
    "throughput_ratio": (">=", 0.98),
}
Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One cell, or with load 0 the saturated case."""

    alpha: float
    load: float
    mix: str
    images: int
    seed: int
    stepwise_capacity: bool
    robust: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. 1 when a floor was missed."""
    options = _options(argv)
    if options.real:
        from loadtests.bench import batching_real  # noqa: PLC0415  (the rest needs no worker but its policy)

        return floors.ended(batching_real.run(options), [])
    began = time.monotonic()
    cells, saturated = _measure(options)
    result: Json = {
        "bench": "batching",
        **summary(cells),
        "throughput_ratio": min(_number(each["throughput_ratio"]) for each in saturated),
        "images_per_cell": options.images,
        "images_saturated": options.images,
        "images_robust": 0 if options.no_robust else options.images,
        "seed": options.seed,
        "capacity": options.capacity,
        "device": "virtual time, emulated curve, t(1) = 50 ms, batch <= 8",
        "seconds": round(time.monotonic() - began),
        "saturated": saturated,
        "cells": cells,
    }
    return floors.ended(result, floors.missed(result, FLOORS))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench batching", description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="per cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="2,000 images per cell")
    parser.add_argument("--capacity", choices=("static", "stepwise"), default="static")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-robust", action="store_true", help="leave out the learned curve and the window")
    parser.add_argument("--real", action="store_true", help="three cells in real time through the worker's own loop")
    options = parser.parse_args(argv)
    if options.quick:
        options.images = min(options.images, 2_000)
    return options


def _measure(options: argparse.Namespace) -> tuple[list[Json], list[Json]]:
    def task(alpha: float, mix: str, load: float) -> Task:
        return Task(
            alpha=alpha,
            load=load,
            mix=mix,
            images=options.images,
            seed=options.seed,
            stepwise_capacity=options.capacity == "stepwise",
            robust=not options.no_robust,
        )

    tasks = [task(*each) for each in product(ALPHAS, MIXES, (*LOADS, 0.0))]
    cells, saturated = list[Json](), list[Json]()
    with ProcessPoolExecutor(options.processes) as pool:
        results: Iterable[Json] = pool.map(measure, tasks) if options.processes > 1 else map(measure, tasks)
        for each in results:
            (cells if "load" in each else saturated).append(each)
            print(_line(each), flush=True)
    return cells, saturated


def measure(task: Task) -> Json:
    """One cell."""
    return _cell(task) if task.load else _saturated(task)


def _cell(task: Task) -> Json:
    mix, times = MIXES[task.mix], times_s(task.alpha)
    best_static_per_s = max(static_per_s(times, mix, cap) for cap in CAPS)
    stepwise_per_s = LIMIT / (times[LIMIT] * statistics.mean(mix))
    per_s = task.load * (stepwise_per_s if task.stepwise_capacity else best_static_per_s)
    crowd = poisson(random.Random(task.seed), mix, task.images, per_s)
    base, cap = min(((figures(static(crowd, times, cap)), cap) for cap in CAPS), key=lambda each: each[0]["p50"])
    outcome = stepwise(crowd, times)
    ours = figures(outcome)
    cell: Json = {
        "alpha": task.alpha,
        "load": task.load,
        "load_stepwise": round(per_s / stepwise_per_s, 3),
        "mix": task.mix,
        **ratios(ours, base),
        "baseline_cap": cap,
        **{f"{name}_s": round(value, 3) for name, value in ours.items()},
        **{f"baseline_{name}_s": round(value, 3) for name, value in base.items()},
        "mean_batch": round(sum(crowd.steps) / outcome.steps, 2),
        "parkings_per_image": round(outcome.parkings / task.images, 3),
        "most_parked": outcome.most_parked,
    }
    if task.robust:
        noisy = Noisy(random.Random(task.seed), noise=NOISE, pauses=PAUSES)
        cell["learned_curve"] = ratios(figures(stepwise(crowd, times, noisy=noisy)), base)
        cell["window_16"] = ratios(figures(stepwise(crowd, times, window=WINDOW)), base)
    return cell


def _saturated(task: Task) -> Json:
    """Every image waits from the start; the policy sees two batches of them, as in production."""
    times = times_s(task.alpha)
    crowd = all_at_once(random.Random(task.seed), MIXES[task.mix], task.images)
    best_s, cap = min((static(crowd, times, cap).makespan_s, cap) for cap in CAPS)
    ours_s = stepwise(crowd, times, window=WINDOW).makespan_s
    return {
        "alpha": task.alpha,
        "mix": task.mix,
        "throughput_ratio": round(best_s / ours_s, 3),
        "baseline_cap": cap,
        "images_per_s": round(task.images / ours_s, 3),
    }


def summary(cells: Sequence[Json]) -> Json:
    """What the floors are about. The figures at 70 % load are those of the worse mix."""

    def worst(name: str, chosen: Callable[[Json], bool] = lambda _: True) -> float:
        return max(_number(cell[name]) for cell in cells if chosen(cell))

    return {
        "p50_ratio_alpha05_load70": worst("p50_ratio", lambda cell: (cell["alpha"], cell["load"]) == (0.5, 0.7)),
        "p50_ratio_alpha03_load70": worst("p50_ratio", lambda cell: (cell["alpha"], cell["load"]) == (0.3, 0.7)),
        "worst_p50_ratio": worst("p50_ratio"),
        "worst_p99_ratio": worst("p99_ratio"),
        "worst_mean_ratio": worst("mean_ratio"),
        **{
            f"worst_{name}_{part}": max(
                (_number(_table(cell[part])[name]) for cell in cells if part in cell), default=None
            )
            for part in ("learned_curve", "window_16")
            for name in ("p50_ratio", "p99_ratio")
        },
    }


def _table(value: object) -> Json:
    assert isinstance(value, dict)
    return value


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value


def _line(each: Json) -> str:
    head = f"alpha {each['alpha']} steps {each['mix']:9}"
    if "load" not in each:
        return f"{head} saturated: throughput x {each['throughput_ratio']} of static batches of {each['baseline_cap']}"
    return (
        f"{head} load {each['load']}: p50 x {each['p50_ratio']} p99 x {each['p99_ratio']} mean x {each['mean_ratio']}"
        f" of static batches of {each['baseline_cap']}; learned curve {each.get('learned_curve')},"
        f" window {each.get('window_16')}, batch {each['mean_batch']}, parked {each['parkings_per_image']}"
    )
