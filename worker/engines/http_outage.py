"""What `HttpEngine` makes of a model server that answers nobody: how long that may last, and who may be the reason.

A status such as 503 or 404, or a refused connection, says nothing about the pictures. A connection that broke, or an
answer that never came, may be the work of one of those asked for: they are asked for one at a time from then on, and
who does it twice alone is to blame. Otherwise a picture that breaks its server would stop every worker for ever.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from infra.retry import backoff_s
from worker.engines.http_calls import Unreachable
from worker.errors import LoadFailed

_STRIKES: Final = 2
_REMEMBERED: Final = 1_024
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0


class Outage:
    """Used on the GPU thread. `limit_s`: so long nobody may be answered, while no new suspect is found."""

    def __init__(self, *, limit_s: float, clock: Callable[[], float], rng: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._rng = rng
        self._since_s: float | None = None
        self._rounds = 0
        self._why = ""
        self._strikes: dict[str, int] = {}

    @property
    def lasts(self) -> bool:
        """Whether nobody was answered the last time."""
        return self._since_s is not None

    def to_ask(self, job_ids: Sequence[str]) -> Sequence[str]:
        """One suspect alone while there is one; else everybody."""
        suspect = next((each for each in job_ids if each in self._strikes), None)
        return job_ids if suspect is None else [suspect]

    def gone(self, job_id: str) -> None:
        """It has been answered, or left."""
        self._strikes.pop(job_id, None)

    def learn(self, unanswered: Mapping[str, Unreachable], *, answered: int) -> str:
        """How it went. Returns the job that is to blame, or nothing."""
        suspects = [job_id for job_id, outcome in unanswered.items() if outcome.suspect]
        alone = len(unanswered) == 1 and not answered
        for each in suspects:
            self._strikes[each] = self._strikes.get(each, 0) + alone
        while len(self._strikes) > _REMEMBERED:
            del self._strikes[next(iter(self._strikes))]
        if answered:
            self._since_s, self._rounds = None, 0
        elif unanswered:
            self._why = "; ".join(sorted({outcome.why for outcome in unanswered.values()}))
            self._rounds += 1
            if self._since_s is None or suspects:
                self._since_s = self._clock()
        return next((each for each in suspects if self._strikes.get(each, 0) >= _STRIKES), "")

    def wait_s(self) -> tuple[float, float]:
        """Seconds to wait before the server is asked again, and seconds that are left. Raises LoadFailed when its time
        is up.
        """
        assert self._since_s is not None  # noqa: S101  (asked only while it lasts)
        left_s = self._since_s + self._limit_s - self._clock()
        if left_s <= 0:
            self.over()
            raise LoadFailed(f"the model server answered nobody for {self._limit_s:g} s: {self._why}")
        wait_s = backoff_s(self._rounds - 1, first_s=_FIRST_WAIT_S, cap_s=_LONGEST_WAIT_S, draw=self._rng())
        return min(wait_s, left_s), left_s

    def over(self) -> None:
        """Begin to count anew; suspects stay."""
        self._since_s, self._rounds = None, 0
