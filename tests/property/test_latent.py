"""Whatever joins, stands aside, comes back and leaves: every picture of the latent engine is its own.

Random schedules over images with step counts, seeds, guidance values and schedulers of their own, in one engine.
Each picture must be that of the same image alone within 2/255, the evicted must be gone with the next step, and
every image must take exactly its own number of steps.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from worker.engines.base import Bounds, WeightSource
from worker.engines.contract import Picture, Progress, RenderJob
from worker.engines.devices import Device
from worker.engines.latent.engine import LatentEngine

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2
NOBODY = "nobody"

IMAGES = st.builds(
    RenderJob,
    id=st.just(""),
    model=st.just("m"),
    width=st.just(64),
    height=st.just(64),
    num_inference_steps=st.integers(1, 6),
    guidance_scale=st.sampled_from([1.5, 3.0, 8.0]),
    seed=st.integers(0, 3),
    scheduler=st.sampled_from(["", "ddim", "euler", "dpmpp_2m"]),
    prompt=st.sampled_from(["red", "a blue one"]),
    negative_prompt=st.sampled_from(["", "green"]),
)
ACTIONS = st.sampled_from(["admit", "admit", "step", "step", "step", "park", "unpark", "evict"])


@cache
def opened(folder: Path) -> LatentEngine:
    made = LatentEngine(
        WeightSource(model="m", source=str(folder)), Device(name="cpu", threads=1), bounds=Bounds.square(64)
    )
    made.load()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.engines import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


@cache
def alone(folder: Path, job: RenderJob) -> bytes:
    engine = opened(folder)
    engine.reset()
    engine.admit([job])
    while not (finished := engine.step(lambda _: None).finished):
        pass
    picture = engine.decode(finished[0])
    assert isinstance(picture, Picture)
    return picture.rgb


@dataclass(slots=True, kw_only=True)
class Run:
    """What the engine has been told, beside what it does."""

    engine: LatentEngine
    waiting: list[RenderJob]
    inside: dict[str, RenderJob] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)
    unwanted: set[str] = field(default_factory=set)
    steps: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def admit(self, some: int) -> None:
        jobs = [self.waiting.pop() for _ in range(min(some, len(self.waiting)))]
        self.engine.admit(jobs)
        self.inside |= {job.id: job for job in jobs}
        self.steps |= {job.id: 0 for job in jobs}

    def park(self, job_id: str) -> None:
        if job_id in self.inside and job_id not in self.parked:
            self.engine.park(job_id)
            self.parked.add(job_id)

    def unpark(self, job_id: str) -> None:
        if job_id in self.parked:
            self.engine.unpark(job_id)
            self.parked.discard(job_id)

    def evict(self, job_id: str) -> None:
        self.engine.evict(job_id)
        if job_id in self.inside:
            self.unwanted.add(job_id)

    def step(self) -> None:
        expected = {job_id: self.steps[job_id] + 1 for job_id in self.inside}
        for job_id in self.parked | self.unwanted:
            expected.pop(job_id, None)
        reports: list[dict[str, int]] = []

        def report(progress: Progress) -> None:
            reports.append(dict(progress.steps))

        stepped = self.engine.step(report)
        assert reports == ([expected] if expected else [])
        self.steps |= expected
        assert set(stepped.evicted) == self.unwanted
        for job_id in stepped.evicted:
            self._gone(job_id)
        done = {job_id for job_id in expected if expected[job_id] == self.inside[job_id].num_inference_steps}
        assert {each.job_id for each in stepped.finished} == done
        for each in stepped.finished:
            picture = self.engine.decode(each)
            assert isinstance(picture, Picture)
            self.pictures[each.job_id] = picture.rgb
            self._gone(each.job_id)

    def _gone(self, job_id: str) -> None:
        del self.inside[job_id]
        self.parked.discard(job_id)
        self.unwanted.discard(job_id)


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking took minutes, and ended in the test's timeout
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(images=st.lists(IMAGES, min_size=1, max_size=6), data=st.data())
def test_every_picture_is_its_own(folder: Path, images: list[RenderJob], data: st.DataObject) -> None:
    expected = {f"g_{number}/0": alone(folder, image) for number, image in enumerate(images)}
    engine = opened(folder)
    engine.reset()
    run = Run(engine=engine, waiting=[replace(image, id=f"g_{number}/0") for number, image in enumerate(images)])
    for _ in range(data.draw(st.integers(0, 25), label="turns")):
        action = data.draw(ACTIONS, label="action")
        somebody = data.draw(st.sampled_from([NOBODY, *run.inside]), label="who") if action != "step" else NOBODY
        match action:
            case "admit":
                run.admit(data.draw(st.integers(1, 3), label="some"))
            case "park":
                run.park(somebody)
            case "unpark":
                run.unpark(somebody)
            case "evict":
                run.evict(somebody)
            case _:
                run.step()
    while run.waiting or run.inside:
        run.admit(len(run.waiting))
        for job_id in list(run.parked):
            run.unpark(job_id)
        run.step()
    for job_id, rgb in run.pictures.items():
        assert max(abs(a - b) for a, b in zip(rgb, expected[job_id], strict=True)) <= 2
