"""Random walks of the wall clock under random work: no stream of events, and no view of it, goes back in time."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from core.api.views import view
from core.domain import commands as c
from core.domain.decide import Now
from core.domain.events import (
    Failure,
    GenerationRequested,
    ImageAttemptFailed,
    ImageRendered,
    Recorded,
    RenderFacts,
    Timings,
    Trace,
)
from core.domain.projection import project
from core.domain.shares import UsageByTenant, caps
from core.domain.state import Generation, fold
from core.domain.transaction import Order, PendingTransaction
from core.log.offline.history import lines
from tests.core_events import NOON_MS, prompt_row, spec

HOUR_MS = 3_600_000
IDS = ("gen_1", "gen_2", "gen_3")
steps = st.sampled_from([-HOUR_MS, -1_000, -1, 0, 1, 40, 1_000, HOUR_MS]) | st.integers(-10 * HOUR_MS, 10 * HOUR_MS)
deeds = st.sampled_from(["request", "request", "dispatch", "start", "render", "publish", "fail", "cancel", "erase"])
works = st.lists(st.tuples(st.sampled_from(IDS), deeds), min_size=1, max_size=4)
walks = st.lists(st.tuples(steps, works, st.booleans()), min_size=1, max_size=30)


class Core:
    """The writer's part that knows the time: one transaction after another; `restart` forgets all but the log."""

    def __init__(self) -> None:
        self.log: list[Recorded] = []
        self.states: dict[str, Generation | None] = dict.fromkeys(IDS)
        self.made = 0

    def write(self, now: Now, orders: list[tuple[str, str]]) -> None:
        pending = PendingTransaction(now=now, usage=UsageByTenant(), caps=caps(1_000), before=dict(self.states))
        for generation_id, deed in orders:
            pending.decide(Order(generation_id, self._command(generation_id, deed), prompt_row(generation_id)))
        for entry in pending.transaction().entries:
            self.log.append(
                Recorded(
                    position=len(self.log) + 1,
                    generation_id=entry.generation_id,
                    version=entry.version,
                    at_ms=entry.at_ms,
                    running_ms=entry.running_ms,
                    event=entry.event,
                )
            )
        self.states.update({after.id: after for _, after in pending.changes()})

    def restart(self) -> None:
        """A new life, or a restored copy: what is known of time is what the events say."""
        self.states = {each: self._folded(each) for each in IDS}

    def stream(self, generation_id: str) -> list[Recorded]:
        return [each for each in self.log if each.generation_id == generation_id]

    def _folded(self, generation_id: str) -> Generation | None:
        stream = self.stream(generation_id)
        return fold(generation_id, [(each.event, each.at_ms) for each in stream]) if stream else None

    def _command(self, generation_id: str, deed: str) -> c.Command:
        self.made += 1
        state = self.states[generation_id]
        image = state.images[0] if state else None
        dispatch, attempt = (image.dispatches, image.attempt_id or "att_0") if image else (0, "att_0")
        match deed:
            case "request":
                return c.Request(
                    tenant="acme", spec=spec(n=1), priority=0, ttl_s=0, prompt_hmac=bytes(32), trace=Trace()
                )
            case "dispatch":
                return c.Dispatch(index=0, dispatch=dispatch + 1, recheck_after_ms=1)
            case "start":
                return _started(f"att_{self.made}", dispatch or 1)
            case "render":
                return _rendered(attempt)
            case "publish":
                return c.RecordPublished(index=0, attempt_id=attempt, public_key="token/key.png")
            case "fail":
                return _failed(attempt, dispatch)
            case "cancel":
                return c.Cancel()
            case _:
                return c.Erase()


@given(walk=walks)
@settings(max_examples=300)
def test_no_stream_and_no_view_goes_back_in_time(walk: list[tuple[int, list[tuple[str, str]], bool]]) -> None:
    core = Core()
    wall_ms = NOON_MS
    for running_ms, (step_ms, orders, restarted) in enumerate(walk):
        wall_ms += step_ms
        if restarted:
            core.restart()
        core.write(Now(at_ms=wall_ms, running_ms=running_ms), orders)
    for generation_id in IDS:
        stream = core.stream(generation_id)
        times = [each.at_ms for each in stream]
        assert times == sorted(times), times
        if stream:
            _check_views(core, generation_id, times)


def _check_views(core: Core, generation_id: str, times: list[int]) -> None:
    state = core.states[generation_id]
    assert state is not None
    assert state == core._folded(generation_id)
    shown = view(project(state), None)
    reached = [at for at in (shown.requested_at_ms, shown.started_at_ms, shown.finished_at_ms) if at]
    assert reached == sorted(reached)
    assert reached[0] == times[0]
    offsets = [float(line.split()[0]) for line in lines(core.stream(generation_id)) if line.startswith("   ")]
    assert all(before <= after for before, after in pairwise(offsets))


@given(at_ms=st.lists(st.integers(1, 10**13), min_size=4, max_size=4))
def test_a_view_of_a_log_with_backward_times_is_in_order(at_ms: list[int]) -> None:
    """Its rows stay as they were: a rebuild must give the same bytes. New events continue from its latest time."""
    core = Core()
    for running_ms, deed in enumerate(("request", "dispatch", "start", "cancel")):
        core.write(Now(at_ms=NOON_MS, running_ms=running_ms), [("gen_1", deed)])
    core.log = [replace(each, at_ms=at) for each, at in zip(core.log, at_ms, strict=True)]
    first = core.log[0].event
    assert isinstance(first, GenerationRequested)
    core.log[0] = replace(core.log[0], event=replace(first, requested_at_ms=at_ms[0]))
    core.restart()
    state = core.states["gen_1"]
    assert state is not None
    rows = project(state)
    assert (rows.generation.started_at_ms, rows.generation.finished_at_ms) == (at_ms[2], at_ms[3])
    shown = view(rows, None)
    assert shown.requested_at_ms == at_ms[0] <= shown.started_at_ms <= shown.finished_at_ms
    core.write(Now(at_ms=1, running_ms=9), [("gen_1", "erase")])
    assert core.log[-1].at_ms == max(at_ms)


def _started(attempt_id: str, dispatch: int) -> c.RecordStarted:
    return c.RecordStarted(
        index=0,
        attempt_id=attempt_id,
        dispatch=dispatch,
        worker_id="w1",
        solo=False,
        batch_id="bat_1",
        batch_size=1,
        recheck_after_ms=1,
    )


def _rendered(attempt_id: str) -> c.RecordRendered:
    return c.RecordRendered(
        event=ImageRendered(
            index=0,
            attempt_id=attempt_id,
            worker_id="w1",
            temp_key=f"temp/gen_1/0/{attempt_id}",
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


def _failed(attempt_id: str, dispatch: int) -> c.RecordAttemptFailed:
    return c.RecordAttemptFailed(
        event=ImageAttemptFailed(
            index=0,
            attempt_id=attempt_id,
            dispatch=dispatch,
            worker_id="w1",
            failure=Failure.MODEL_ERROR,
            solo=False,
            detail="it failed",
        )
    )
