"""What a model cannot do is answered once, as final and with the reason, wherever the engine finds out; mates go on."""

from collections.abc import Sequence

import pytest

from schema import fast, pb
from tests.eventually import eventually
from tests.unit.worker.rig import FaultyEngine, Rig, job, running, some
from worker.engines.contract import BatchKey, RenderJob, Report, Stepped
from worker.engines.errors import Incapable, Unsupported

pytestmark = pytest.mark.asyncio
F = pb.AttemptFailure
WRONG = 4_000_000_007
"""The seed that gives it away."""
WHY = "scheduler must be one of ddim, euler for this model"


class Choosy(FaultyEngine):
    """Finds out about `wrong` jobs `at` key, admit or step."""

    def __init__(self, at: str, error: Unsupported) -> None:
        super().__init__()
        self._at = at
        self._error = error
        self._held: Sequence[RenderJob] = ()

    def _check(self, at: str, jobs: Sequence[RenderJob]) -> None:
        if at == self._at and any(each.seed == WRONG for each in jobs):
            raise self._error

    def key(self, job: RenderJob) -> BatchKey:
        self._check("key", [job])
        return super().key(job)

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        self._check("admit", jobs)
        self._held = [*self._held, *jobs]
        super().admit(jobs)

    def step(self, report: Report) -> Stepped:
        self._check("step", self._held)
        stepped = super().step(report)
        gone = {each.job_id for each in stepped.finished} | set(stepped.evicted)
        self._held = [each for each in self._held if each.id not in gone]
        return stepped

    def reset(self) -> None:
        self._held = ()
        super().reset()


@pytest.mark.parametrize("at", ["key", "admit", "step"])
@pytest.mark.parametrize(
    ("error", "failure"), [(Incapable(WHY), F.REFUSED), (Unsupported(WHY), F.UNSUPPORTED)], ids=["never", "not here"]
)
async def test_it_is_refused_with_the_reason_and_its_mates_are_rendered(
    at: str, error: Unsupported, failure: int
) -> None:
    made = Rig(Choosy(at, error))
    async with running(made):
        wrong = job(7, image_seed=WRONG)
        await made.send(*some(range(5)), wrong)
        await eventually(lambda: len(made.rendered()) == 5 and len(made.failed()) == 1, 30, what="all are answered")
    (said,) = made.of(fast.ImageAttemptFailed)
    assert (int(said.failure), said.detail) == (int(failure), WHY)
    assert said.image.generation_id == wrong.image.generation_id
