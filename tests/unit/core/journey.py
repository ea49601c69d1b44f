"""One generation driven by commands, as the writer does it: decide, apply, and every promise checked on the way."""

from dataclasses import dataclass, field

from core.domain import commands as c
from core.domain import events as e
from core.domain import stream_check
from core.domain.decide import Now, decide
from core.domain.events import (
    TYPES,
    Event,
    Failure,
    ImageAttemptFailed,
    ImageRendered,
    Recorded,
    RenderFacts,
    Timings,
    Trace,
)
from core.domain.projection import project, status_of
from core.domain.state import Ending, Generation, Image, Phase, apply, begin, fold
from schema import pb
from tests.core_events import NOON_MS, spec


@dataclass
class Journey:
    """`state` is None until the request. `running_ms` is moved by the test. The whole log is checked after each
    command; a test of thousands of them may put `each_checked` off for a while.
    """

    n: int = 2
    ttl_s: int = 0
    running_ms: int = 0
    state: Generation | None = None
    log: list[Recorded] = field(default_factory=list)
    each_checked: bool = True

    def do(self, command: c.Command) -> tuple[Event, ...]:
        """Decides, applies, checks; the events that came of it. Raises Refused."""
        now = Now(at_ms=NOON_MS + self.running_ms, running_ms=self.running_ms)
        events = decide(self.state, command, now)
        for event in events:
            before = self.state
            self._apply(event, now)
            assert self.state is not None
            if before is not None:
                check_step(before, self.state, event)
        assert not self.each_checked or list(stream_check.problems(self.log)) == []
        assert decide(self.state, command, now) == () or isinstance(command, c.Dispatch), "a repeat has an effect"
        return events

    def _apply(self, event: Event, now: Now) -> None:
        if self.state is None:
            assert isinstance(event, e.GenerationRequested)
            self.state = begin("gen_1", event)
        else:
            self.state = apply(self.state, event, now.at_ms)
        self.log.append(
            Recorded(
                position=len(self.log) + 1,
                generation_id="gen_1",
                version=len(self.log) + 1,
                at_ms=now.at_ms,
                running_ms=now.running_ms,
                event=event,
            )
        )

    @property
    def open(self) -> Generation:
        assert self.state is not None
        return self.state

    def image(self, index: int = 0) -> Image:
        return self.open.images[index]

    @property
    def types(self) -> list[str]:
        return [TYPES[type(each.event)] for each in self.log]

    def refolded(self) -> Generation:
        return fold("gen_1", [(each.event, each.at_ms) for each in self.log])

    def request(self) -> tuple[Event, ...]:
        return self.do(
            c.Request(
                tenant="acme",
                spec=spec(n=self.n),
                priority=0,
                ttl_s=self.ttl_s,
                prompt_hmac=bytes(32),
                trace=Trace(),
            )
        )

    def dispatch(self, index: int = 0, after_ms: int = 100) -> tuple[Event, ...]:
        dispatch = self.image(index).dispatches + 1
        return self.do(c.Dispatch(index=index, dispatch=dispatch, recheck_after_ms=after_ms))

    def start(
        self, attempt_id: str, index: int = 0, dispatch: int = 0, *, solo: bool | None = None, after_ms: int = 100
    ) -> tuple[Event, ...]:
        """As a worker that holds the message of the given dispatch (0: the last one)."""
        image = self.image(index)
        return self.do(
            c.RecordStarted(
                index=index,
                attempt_id=attempt_id,
                dispatch=dispatch or image.dispatches,
                worker_id="w1",
                solo=image.suspect if solo is None else solo,
                batch_id="bat_1",
                batch_size=1,
                recheck_after_ms=after_ms,
            )
        )

    def rendered(self, attempt_id: str, index: int = 0) -> tuple[Event, ...]:
        return self.do(
            c.RecordRendered(
                event=ImageRendered(
                    index=index,
                    attempt_id=attempt_id,
                    worker_id="w1",
                    temp_key=f"temp/gen_1/{index}/{attempt_id}",
                    sha256=bytes(32),
                    size_bytes=1,
                    width=256,
                    height=256,
                    format=1,
                    public_token="token",
                    timings=Timings(),
                    facts=RenderFacts(batch_id="bat_1"),
                )
            )
        )

    def published(self, attempt_id: str, index: int = 0) -> tuple[Event, ...]:
        return self.do(c.RecordPublished(index=index, attempt_id=attempt_id, public_key="token/key.png"))

    def lost(self, attempt_id: str, index: int = 0) -> tuple[Event, ...]:
        return self.do(c.RecordObjectLost(index=index, attempt_id=attempt_id, detail="gone"))

    def dead_letter(self, index: int = 0, dispatch: int = 0) -> tuple[Event, ...]:
        """Of the given dispatch (0: the last one)."""
        return self.do(c.RecordDeadLetter(index=index, dispatch=dispatch or self.image(index).dispatches))

    def failed(
        self,
        attempt_id: str,
        failure: Failure = Failure.MODEL_ERROR,
        index: int = 0,
        dispatch: int = 0,
        *,
        solo: bool | None = None,
        verdict: c.Verdict = c.Verdict.COUNT,
    ) -> tuple[Event, ...]:
        image = self.image(index)
        return self.do(
            c.RecordAttemptFailed(
                event=ImageAttemptFailed(
                    index=index,
                    attempt_id=attempt_id,
                    dispatch=dispatch or image.dispatches,
                    worker_id="w1",
                    failure=failure,
                    solo=image.suspect if solo is None else solo,
                    detail="it failed",
                ),
                verdict=verdict,
            )
        )


def begun(n: int = 1, ttl_s: int = 0) -> Journey:
    journey = Journey(n=n, ttl_s=ttl_s)
    journey.request()
    return journey


def running(n: int = 1, ttl_s: int = 0) -> Journey:
    """Image 0 was dispatched and started as att_1."""
    journey = begun(n, ttl_s)
    journey.dispatch()
    journey.start("att_1")
    return journey


RANK = {pb.GenerationStatus.QUEUED: 1, pb.GenerationStatus.RUNNING: 2}


def check_step(before: Generation, after: Generation, event: Event) -> None:
    """What holds between any two states in a row."""
    assert after.version == before.version + 1
    ranks = [RANK.get(pb.GenerationStatus(status_of(state)), 3) for state in (before, after)]
    assert ranks[0] <= ranks[1], "the public status went back"
    if before.ending is not Ending.OPEN:
        assert after.ending is before.ending
        assert isinstance(event, e.GenerationErased)
    for old, new in zip(before.images, after.images, strict=True):
        assert new.solo_starts >= 0
        if old is new:
            continue
        assert getattr(event, "index", None) == new.index, "a mate was touched"
        revoked = isinstance(event, e.ImageAttemptFailed) and event.failure is Failure.OBJECT_LOST
        assert not old.decided or new.decided or revoked, "a decided image came back"
        assert old.phase not in {Phase.PUBLISHED, Phase.FAILED}, "a settled image changed"
    rows = {row.index: row.status for row in project(before).images}
    for row in project(after).images:
        assert row.status >= rows[row.index], "an image's public status went back"
