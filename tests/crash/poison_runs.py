"""Poison in a batch, many times, through a whole real stack whose model lives in a process of its own.

A run is eight images of one batch key, one of which, anywhere among them, is poison of one of five kinds. The runs
share one stack; each has a picture size of its own, so that no run's images go through the model with another's.
Seven mates must succeed, the culprit must fail for its reason after at most three starts alone, and the worker's
process must live on. `python -m tests.crash.poison_runs --runs 100 --seed 1` (or `just poison`) ends in a line of JSON.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from core.domain import events as e
from tests.api import ENDED, Body
from tests.cloud import JOBS
from tests.crash.poison_engine_server import IN_A_STEP
from tests.e2e import invariants
from tests.engine_processes import ROOT
from tests.eventually import Hopeless, until
from tests.process import module
from tests.stack import Stack

TOGETHER = 8
STEPS = 6
HANG_S = 0.4
ALONE_AT_MOST = 10
"""In one of so many runs at most may the poison strike beside no mate: such a run shows nothing."""
SIZES = list(product(range(64, 264, 8), range(64, 264, 8)))
REASONS = {
    "raise": e.Failure.MODEL_ERROR,
    "nan": e.Failure.BAD_OUTPUT,
    "memory": e.Failure.OUT_OF_MEMORY,
    "segfault": e.Failure.MODEL_ERROR,
    "hang": e.Failure.HUNG,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Which kind of poison, at which of the eight places, and from which step on; `ids` are the eight, in order."""

    kind: str
    place: int
    step: int
    ids: Sequence[str]

    @property
    def culprit(self) -> str:
        return self.ids[self.place]

    @property
    def mates(self) -> Sequence[str]:
        return [each for each in self.ids if each != self.culprit]


class PoisonStack(Stack):
    """A stack whose one worker renders with `poison_engine_server`. So many images may be on the queue at once."""

    def __init__(self, folder: Path, *, images: int = 64) -> None:
        env = {"DARKROOM_WORKER_HANG_S": str(HANG_S), "DARKROOM_CORE_RUNWAY": str(images + 1)}
        super().__init__(folder, visibility_s=10, env=env)
        self.struck = folder / "struck.jsonl"
        self.struck.touch()
        self.worker = self.workers[0]
        self.worker.argv = module("tests.crash.faulty_engine_worker", "tests.crash.poison_engine_server")
        self.worker.argv += ["--struck", str(self.struck)]
        self.worker.env["PYTHONPATH"] = str(ROOT)

    def warm_up(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Eight healthy images of each size, from which the worker learns that eight go as quickly as one."""
        bodies: list[Body] = [
            {"width": width, "height": height, "n": TOGETHER, "num_inference_steps": STEPS} for width, height in sizes
        ]
        self.client().succeeded(self.client().submit_many(bodies), 60 + len(bodies))

    def submitted_together(self, bodies: Sequence[Body]) -> list[str]:
        """Their ids. The GPU is busy with something else until all of them are on the queue."""
        client = self.client()
        first = client.submit(prompt="wait", num_inference_steps=150, width=512)["id"]
        until(lambda: client.get(first)["status"] == "running", 30, what=self.worker.tail())
        parts = [bodies[at : at + TOGETHER] for at in range(0, len(bodies), TOGETHER)]
        ids = [each for part in parts for each in client.submit_many(part, at_once=TOGETHER)]  # batch after batch
        until(lambda: self.cloud.waiting(JOBS) > len(bodies), 60, what="all are on the queue")
        client.cancel(first)
        return ids

    def ends(self, ids: Sequence[str], deadline_s: float) -> Mapping[str, Body]:
        """Of all these, by id. The worker must live on."""

        def all_ended() -> Mapping[str, Body]:
            if not self.worker.alive:
                raise Hopeless(f"the worker has ended\n{self.worker.tail()}")
            bodies = {body["id"]: body for body in self.client().listed()}
            left = [each for each in ids if bodies[each]["status"] not in ENDED]
            assert not left, f"{len(left)} of {len(ids)} are open"
            return bodies

        return until(all_ended, deadline_s, what="all end", every_s=0.5)

    def strikes(self) -> Mapping[str, Sequence[Sequence[str]]]:
        """With whom each culprit shared the step, at each of its strikes, by generation."""
        found: dict[str, list[Sequence[str]]] = {}
        for line in self.struck.read_text().splitlines():
            strike = json.loads(line)
            together = [each.partition("/")[0] for each in strike["together"]]
            found.setdefault(strike["culprit"].partition("/")[0], []).append(together)
        return found


def begin(stack: PoisonStack, runs: int, seed: int) -> list[Run]:
    """Draw that many runs, as many of each kind as of any other, and submit them."""
    dice = random.Random(seed)
    kinds = [list(REASONS)[number % len(REASONS)] for number in range(runs)]
    dice.shuffle(kinds)
    sizes = dice.sample(SIZES, runs)
    plans = [(kind, dice.randrange(TOGETHER), dice.randrange(STEPS)) for kind in kinds]
    bodies = [
        _body(dice, size, f"{kind} at step {step}" if kind in IN_A_STEP else kind, poison=number == place)
        for (kind, place, step), size in zip(plans, sizes, strict=True)
        for number in range(TOGETHER)
    ]
    stack.warm_up(sizes)
    ids = stack.submitted_together(bodies)
    return [
        Run(kind=kind, place=place, step=step, ids=ids[TOGETHER * number : TOGETHER * (number + 1)])
        for number, (kind, place, step) in enumerate(plans)
    ]


def _body(dice: random.Random, size: tuple[int, int], fault: str, *, poison: bool) -> Body:
    width, height = size
    body: Body = {"width": width, "height": height, "num_inference_steps": STEPS, "seed": dice.randrange(2**31)}
    return body | ({"prompt": fault} if poison else {})


def judge(stack: PoisonStack, runs: Sequence[Run], ends: Mapping[str, Body]) -> tuple[dict[str, object], list[str]]:
    """The figures, and what was not as it must be."""
    reasons, alone = _from_the_log(stack)
    strikes = stack.strikes()
    wrong: list[str] = []
    by_fault = dict.fromkeys(REASONS, 0)
    for run in runs:
        what = f"{run.kind} at place {run.place} from step {run.step}: {run.culprit}"
        wrong += [f"{what}: a mate {ends[each]['status']}" for each in run.mates if ends[each]["status"] != "succeeded"]
        wrong += [f"{what}: a mate was suspected" for each in run.mates if each in alone]
        if ends[run.culprit]["status"] != "failed" or reasons.get(run.culprit) != REASONS[run.kind]:
            wrong.append(f"{what} {ends[run.culprit]['status']} {reasons.get(run.culprit)!r}")
        else:
            by_fault[run.kind] += 1
        if not 1 <= alone.get(run.culprit, 0) <= 3:
            wrong.append(f"{what}: {alone.get(run.culprit, 0)} starts alone")
        beside = set(strikes[run.culprit][0]) - {run.culprit}
        if not beside <= set(run.ids):
            wrong.append(f"{what}: {sorted(beside)} shared its first step")
    beside_it = [len(strikes[run.culprit][0]) - 1 for run in runs]
    if beside_it.count(0) > len(runs) // ALONE_AT_MOST:  # a culprit that is received last may find its mates gone
        wrong.append(f"poison struck nobody but itself in {beside_it.count(0)} of {len(runs)} runs")
    figures = {
        "runs": len(runs),
        "mates": sum(len(run.mates) for run in runs),
        "mates_failed": sum(ends[each]["status"] != "succeeded" for run in runs for each in run.mates),
        "culprits_failed": sum(ends[run.culprit]["status"] == "failed" for run in runs),
        "max_solo_starts": max(alone.get(run.culprit, 0) for run in runs),
        "mates_beside": beside_it,
        "by_fault": by_fault,
    }
    return figures, wrong


def _from_the_log(stack: Stack) -> tuple[dict[str, e.Failure], dict[str, int]]:
    """Why images failed, and how often each was started alone, by generation (all have one image)."""
    reasons: dict[str, e.Failure] = {}
    alone: dict[str, int] = {}
    for line in invariants.read_log(stack):
        if isinstance(line.event, e.ImageFailed):
            reasons[line.stream] = line.event.failure
        if isinstance(line.event, e.ImageStarted) and line.event.solo:
            alone[line.stream] = alone.get(line.stream, 0) + 1
    return reasons, alone


def run(stack: PoisonStack, runs: int, seed: int, *, deadline_s: float) -> tuple[dict[str, object], list[str]]:
    """The figures, and what was not as it must be. Every picture is looked at."""
    begun_s = time.monotonic()
    drawn = begin(stack, runs, seed)
    pid = stack.worker.pid
    ends = stack.ends([each for run in drawn for each in run.ids], deadline_s)
    figures, wrong = judge(stack, drawn, ends)
    invariants.check(stack)
    figures["worker_restarts"] = int(stack.worker.pid != pid or not stack.worker.alive)
    return figures | {"seed": seed, "seconds": round(time.monotonic() - begun_s, 1)}, wrong


def main() -> int:
    """0: all was as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.poison_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, choices=range(1, len(SIZES) + 1), metavar="N")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-poison-") as name:
        with PoisonStack(Path(name), images=TOGETHER * options.runs) as stack:
            figures, wrong = run(stack, options.runs, options.seed, deadline_s=60 + 20 * options.runs)
    for line in wrong[:20]:
        print(line)
    print(json.dumps(figures))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
