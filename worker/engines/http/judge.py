"""Decides for `HttpEngine` whether an answer without a picture is the image's fault or the server's.

A status such as 403 may mean that a content filter refuses one prompt, or that a key has expired. What tells them apart
is a *witness*: a picture that the server has given within the last ten minutes. With a witness, an image that is
refused twice while requested alone fails; after three such images in a row the witness no longer counts, since the key
may have expired meanwhile. Without a witness it is an outage: the model is away. An image that was refused alone five
times over ten minutes fails in any case, so that every image comes to an end. A broken connection or a missing answer
may be one image's doing too: the image is then requested alone, and fails if that happens twice. An image that has to
wait is given back alone, and is not requested again before its time.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.engines.errors import EngineAway
from worker.engines.http.calls import LONG_S, Denied, Refusal, Unreachable

WITNESS_S: Final = 600.0
WITNESSES_OF_ONE_PICTURE: Final = 3
"""How many images in a row may fail on the evidence of one picture."""

STRANGERS: Final = 3
"""How many different images have to wait, with no picture between them, before it counts as an outage."""

OUTAGE_S: Final = 30.0
"""How long images that were denied in an outage are held back, so that others go first and may show that the server
works.
"""

REFUSALS: Final = 2
REFUSALS_REGARDLESS: Final = 5
REGARDLESS_S: Final = 600.0
MOST_S: Final = 60.0
"""The longest pause; a longer `Retry-After` is cut to it."""

_FIRST_S: Final = 1.0
_REMEMBERED: Final = 1_024


@dataclass(slots=True)
class _Record:
    """One image that got no picture. Of the requests made for it alone, `alone` counts refusals, `broke` broken
    connections and missing answers. `pictures`: how many the server had given when the record began.
    """

    first_s: float
    alone: int = 0
    broke: int = 0
    pictures: int = 0
    not_before_s: float = 0.0
    why: str = ""


@dataclass(slots=True)
class Ruling:
    """The verdict on images that got no picture; an image in none of the mappings is requested again. `to_check`: these
    fail, unless the server turns out to be unhealthy. `later`: these are given back, with the reason.
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
        """Forget an image that has its picture, has failed or was evicted."""
        self._records.pop(job_id, None)

    def to_ask(self, job_ids: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str]]:
        """The images to request now: all without a record together, or else one of the others alone; and those whose
        time has not come, with the reason.
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
        """The verdict on `outcomes`, the images that got no picture. `asked` images were requested together, `answered`
        of them got one.
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
        """An error status, or no connection. A busy server (429, 5xx) says something about the image only with a long
        `Retry-After`, and if another image has got its picture since.
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
            # While the server gives pictures, the `Retry-After` of one image requested alone delays only that image.
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
