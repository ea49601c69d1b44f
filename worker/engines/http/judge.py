"""Decides for `HttpEngine` whether an answer without a picture is the image's fault or the server's.

A status such as 403 may mean that a content filter refuses one prompt, or that a key has expired. The difference is a
*witness*: a picture that the server has given within ten minutes. With one, an image that is refused twice, requested
alone, fails alone; a few such in a row use the witness up, for a key may have expired since. Without a witness it is an
outage: the model is away. So that every image ends, one that was refused alone five times over ten minutes fails
regardless. A connection that broke, or an answer that never came, may be caused by one image too: it is then
requested alone, and fails if that happens twice. An image that has to wait is given back alone, and not requested again
before its time.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.engines.errors import EngineAway
from worker.engines.http.calls import LONG_S, Denied, Refusal, Unreachable

WITNESS_S: Final = 600.0
WITNESSES_OF_ONE_PICTURE: Final = 3
"""Images in a row that may be failed on the strength of one picture."""

STRANGERS: Final = 3
"""Images in a row without a picture, each refused alone, that make an outage."""

OUTAGE_S: Final = 30.0
"""After an outage, those that were refused in it are asked for so much later: others may get their pictures, and show
that the server works.
"""

REFUSALS: Final = 2
REFUSALS_REGARDLESS: Final = 5
REGARDLESS_S: Final = 600.0
MOST_S: Final = 60.0
"""A `Retry-After` is honoured for so long."""

_FIRST_S: Final = 1.0
_REMEMBERED: Final = 1_024


@dataclass(slots=True)
class _Record:
    """One image that got no picture. `alone`: refusals when nothing else was asked for; `broke` likewise."""

    first_s: float
    alone: int = 0
    broke: int = 0
    pictures: int = 0
    not_before_s: float = 0.0
    why: str = ""


@dataclass(slots=True)
class Ruling:
    """What becomes of those that got no picture; who is in none of these is asked for again. `to_check`: they fail
    unless the server turns out to be unwell.
    """

    failed: dict[str, Refusal] = field(default_factory=dict)
    to_check: dict[str, Refusal] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    away: EngineAway | None = None


class Judge:
    """Used on the GPU thread. `clock` in seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._pictured_s: float | None = None
        self._pictures = 0
        self._convicted: set[str] = set()
        self._strangers: set[str] = set()

    def pictured(self) -> None:
        """The server has given a picture: it works."""
        self._pictured_s = self._clock()
        self._pictures += 1
        self._convicted.clear()
        self._strangers.clear()

    def gone(self, job_id: str) -> None:
        """It has its picture, or has failed, or was evicted."""
        self._records.pop(job_id, None)

    def to_ask(self, job_ids: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str]]:
        """Whom to ask for now: those without a record together, else one of the others alone; and those whose time has
        not come, with the reason.
        """
        now_s = self._clock()
        early = {
            each: record.why
            for each in job_ids
            if (record := self._records.get(each)) is not None and now_s < record.not_before_s
        }
        left = [each for each in job_ids if each not in early]
        clean = [each for each in left if each not in self._records]
        return clean or left[:1], early

    def rule(self, outcomes: Mapping[str, Denied | Unreachable], *, asked: int, answered: int) -> Ruling:
        """`outcomes` of those that got no picture, of `asked` that were asked for together, `answered` of which got
        one.
        """
        ruling = Ruling()
        alone = asked == 1
        for job_id, outcome in outcomes.items():
            record = self._records.setdefault(job_id, _Record(self._clock(), pictures=self._pictures))
            record.why = outcome.why
            if isinstance(outcome, Unreachable) and outcome.suspect:
                self._broke(ruling, job_id, record, outcome, alone=alone, answered=answered)
            else:
                self._denied(ruling, job_id, record, outcome, alone=alone, answered=answered)
        while len(self._records) > _REMEMBERED:
            self._records.popitem(last=False)
        if not answered and outcomes:
            self._look_for_outage(ruling, outcomes, alone=alone)
        return ruling

    def _denied(
        self,
        ruling: Ruling,
        job_id: str,
        record: _Record,
        outcome: Denied | Unreachable,
        *,
        alone: bool,
        answered: int,
    ) -> None:
        """A status. Busy ones (429, 5xx) are about the image only with a long `Retry-After`, and when another has had
        its picture since.
        """
        busy = isinstance(outcome, Unreachable)
        counts = not busy or outcome.retry_after_s > LONG_S
        record.alone += alone and counts
        lasting = record.alone >= REFUSALS_REGARDLESS and self._clock() - record.first_s >= REGARDLESS_S
        since = self._pictures > record.pictures if busy else self._witnessed
        if lasting:
            ruling.failed[job_id] = Refusal(outcome.why, final=True)
        elif alone and counts and record.alone >= REFUSALS and since and self._witnessed:
            self._convicted.add(job_id)
            ruling.to_check[job_id] = Refusal(outcome.why, final=True)
        elif not busy and not alone and (answered or self._witnessed):
            pass  # asked for alone next
        else:
            self._wait(ruling, job_id, record, outcome.retry_after_s)

    def _broke(
        self, ruling: Ruling, job_id: str, record: _Record, outcome: Unreachable, *, alone: bool, answered: int
    ) -> None:
        """The connection broke, or no answer came in time."""
        record.broke += alone
        if record.broke >= REFUSALS:
            ruling.failed[job_id] = Refusal(f"{outcome.why}, asked alone and twice")
        elif alone or not answered:
            self._wait(ruling, job_id, record, 0.0)

    def _wait(self, ruling: Ruling, job_id: str, record: _Record, retry_after_s: float) -> None:
        pause_s = min(MOST_S, max(retry_after_s, _FIRST_S * 2.0 ** min(record.alone, 6)))
        record.not_before_s = self._clock() + pause_s
        ruling.later[job_id] = record.why
        self._strangers.add(job_id)

    def _look_for_outage(self, ruling: Ruling, outcomes: Mapping[str, Denied | Unreachable], *, alone: bool) -> None:
        gone = any(isinstance(each, Unreachable) and each.gone for each in outcomes.values())
        unheard = not alone and len(ruling.later) == len(outcomes)
        if gone or unheard or len(self._strangers) >= STRANGERS:
            why = "; ".join(sorted({each.why for each in outcomes.values()}))
            # Where there are pictures, what was said to one that was asked for alone holds up that one, by `_wait`.
            asked_s = 0.0 if alone and self._pictured_lately else max(each.retry_after_s for each in outcomes.values())
            pause_s = min(MOST_S, asked_s)
            ruling.away = EngineAway(f"the model server: {why}", pause_s=pause_s)
            self._strangers.clear()
            for job_id, outcome in outcomes.items():
                record = self._records[job_id]
                if isinstance(outcome, Denied):  # others first, when the model is tried again
                    record.not_before_s = max(record.not_before_s, self._clock() + OUTAGE_S)
                elif not outcome.suspect and not record.alone and not record.broke:  # nothing was said of it
                    self.gone(job_id)

    @property
    def _witnessed(self) -> bool:
        return self._pictured_lately and len(self._convicted) < WITNESSES_OF_ONE_PICTURE

    @property
    def _pictured_lately(self) -> bool:
        return self._pictured_s is not None and self._clock() - self._pictured_s <= WITNESS_S
