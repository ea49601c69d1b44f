"""One stretch of work on the GPU thread: images of one batch key that come, stand aside and go at every step.

`turn` runs on the GPU thread and owns the members; everything else is called on the event loop. The loop offers
members and learns what became of them through `post`; nothing here waits, so the thread stands still only when a turn
has ended: because nothing is left to do, because the line behind the GPU is full, or because something broke.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from worker.engines.contract import BatchKey, Done, EncodedPicture, Engine, Picture, Stepped, StepTime
from worker.engines.error_places import places, text
from worker.engines.errors import (
    BadOutput,
    EngineAway,
    EngineDied,
    EngineLost,
    LoadFailed,
    NotNow,
    OutOfMemory,
    Refused,
    Unsupported,
)
from worker.gpu.choice import Behind, Choice, choose
from worker.gpu.decode_queue import DecodeQueue, require_whole
from worker.gpu.model_faults import is_panic, refusal_of
from worker.gpu.slots import Admitted, Broke, Crash, Decoded, End, Left, Member, Spent, Surroundings, acquaint
from worker.holding.types import Failure
from worker.time_ledger import Cause

_log = structlog.get_logger()
_FAILURES: Final[dict[type, Failure]] = {
    BadOutput: Failure.BAD_OUTPUT,
    Refused: Failure.REFUSED,
    NotNow: Failure.MODEL_AWAY,
}
"""What the engine says of one image, in the words of replies."""


class Session:
    """See the module's text. `joins_midway`: images may join and stand aside at every step, as far as
    the engine can do that.
    """

    def __init__(
        self,
        engine: Engine,
        key: BatchKey,
        around: Surroundings,
        *,
        joins_midway: bool,
        step_seconds: Callable[[int], float],
    ) -> None:
        self.engine = engine
        self.key = key
        self.joins_midway = joins_midway
        self.open = self._joins = joins_midway and engine.capabilities.join_midway
        self._parks = joins_midway and engine.capabilities.park
        self.began_s = around.clock()
        self.step_seconds = step_seconds
        self.roster: tuple[Member, ...] = ()
        self.behind: Behind = ()
        self._around = around
        self._offered: deque[Member] = deque()
        self._members: list[Member] = []
        self._undecoded = DecodeQueue()
        self._at_work: Sequence[Member] = ()
        self._work = Cause.RENDERING
        self._work_began_s = 0.0
        self._together: frozenset[str] = frozenset()
        self._choice: Choice | None = None
        self._step_took_s = 0.0
        self._ahead = False

    @property
    def offered(self) -> int:
        """How many are announced and not yet seen by the thread."""
        return len(self._offered)

    def offer(self, members: Sequence[Member]) -> None:
        """They may join at the next step."""
        self._offered.extend(members)

    def take_back(self) -> list[Member]:
        """Those offered that the thread has not seen yet."""
        back = []
        while self._offered:
            try:
                back.append(self._offered.popleft())
            except IndexError:  # the thread was quicker
                break
        return back

    def close(self) -> None:
        """Nobody joins any more."""
        self.open = False

    def turn(self) -> End:
        """On the GPU thread, as long as there is something to do. Raises EngineLost."""
        died = False
        away: EngineAway | None = None
        try:
            return self._go_on()
        except EngineLost:
            raise
        except EngineAway as error:
            failure, detail = Failure.MODEL_AWAY, str(error)
            away = EngineAway(detail, pause_s=error.pause_s)
        except (OutOfMemory, MemoryError):
            failure, detail = Failure.OUT_OF_MEMORY, "out of memory"
        except EngineDied:
            failure, detail, died = Failure.MODEL_ERROR, "the engine's process died", True
        except Unsupported as error:
            failure, detail = refusal_of(error)
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            failure, detail = Failure.MODEL_ERROR, _raised(error)
        except BaseException as error:
            if not is_panic(error):
                raise
            failure, detail = Failure.MODEL_ERROR, _raised(error)
        # outside the except block: its traceback holds tensors
        return self._crashed(failure, detail, died=died, away=away)

    def _go_on(self) -> End:
        while True:
            blocked = self._blocked()
            if not blocked:
                self._take_offered()
            chosen = self._chosen(blocked=blocked)
            if chosen:
                self._step(chosen)
            elif not self._undecoded:
                return self._end()
            elif not self._around.permits.available:
                return self._end(full=True)
            else:
                self._undecoded.under_way = 0  # beside nothing
            self._decode_some(until_s=self._step_took_s if self._members else None)

    def _blocked(self) -> bool:
        """Nobody begins while no picture can leave, nor while a whole batch waits to: places that come free one by one
        would else let in a new batch each, and what is undecoded, which holds the device's memory, grow without end.
        """
        if not self._undecoded:
            return False
        limit = self._around.limit(self._undecoded.first.held.job.render, self.key)
        return self._undecoded.ready >= limit or not self._around.permits.available

    def _end(self, *, full: bool = False) -> End:
        return End(at_s=self._around.clock(), full=full)

    def _take_offered(self) -> None:
        """Let in who was offered; who is not wanted any more, and has not begun, goes."""
        self._members += self.take_back()
        unwanted = [each for each in self._members if each.held.unwanted and not (each.running or each.parked)]
        for member in unwanted:
            self._members.remove(member)
            self._around.post(Left(member=member))
        if unwanted or len(self._members) != len(self.roster):
            self.roster = tuple(self._members)

    def _chosen(self, *, blocked: bool) -> Sequence[Member]:
        """Who takes the next step; while the line is full, only those that run."""
        members = [each for each in self._members if each.running] if blocked else self._members
        if not members:
            return ()
        limit = self._around.limit(members[0].held.job.render, self.key)
        if not self._joins:
            return [each for each in members if each.running] or members[:limit]
        choice = self._choice
        if choice is None or not choice.stands(members, self.behind, limit):
            choice = self._choice = choose(
                members,
                self.behind,
                now_s=self._around.clock(),
                limit=limit,
                step_s=self.step_seconds,
                park=self._parks,
            )
        choice.steps_left -= 1
        return choice.chosen

    def _step(self, chosen: Sequence[Member]) -> None:
        began_s = self._begin(Cause.RENDERING, chosen)
        self._seat(chosen, began_s)
        stepping_s = self._around.clock()
        stepped = self.engine.step(self._around.report)
        ended_s = self._around.clock()
        self._step_took_s, self._ahead = ended_s - stepping_s, stepped.ahead
        steps = (
            1
            if self.engine.capabilities.join_midway
            else max(each.held.job.render.num_inference_steps for each in chosen)
        )
        self._around.post(
            Spent(
                cause=Cause.RENDERING,
                began_s=began_s,
                ended_s=ended_s,
                size=len(chosen),
                timed=self._timed(stepped, len(chosen), steps),
                fits=stepped.fits,
            )
        )
        self._around.record("render", ",".join(each.id for each in chosen), began_s, ended_s)
        for member in chosen:
            member.gpu_s += (ended_s - began_s) / len(chosen)
            member.batch_gpu_s += ended_s - began_s
            member.remaining = max(1, member.remaining - steps)
        self._sort_out(stepped)
        self._at_work = ()

    def _timed(self, stepped: Stepped, size: int, steps: int) -> StepTime | None:
        """The device's word where it has a clock of its own, else the call's time, unless somebody left in it."""
        if stepped.ahead:
            return stepped.timed
        return None if stepped.evicted else StepTime(size=size, seconds=self._step_took_s / steps)

    def _begin(self, work: Cause, members: Sequence[Member]) -> float:
        """Who is to blame, and for which seconds, if this goes wrong. Returns the time."""
        self._at_work, self._work, self._work_began_s = members, work, self._around.clock()
        return self._work_began_s

    def _seat(self, chosen: Sequence[Member], now_s: float) -> None:
        """Park those who stand aside, call back those who go on, admit those who are new."""
        going = frozenset(member.id for member in chosen)
        for member in self._members:
            if member.running and member.id not in going:
                self.engine.park(member.id)
                member.running, member.parked = False, True
        new = [member for member in chosen if not (member.running or member.parked)]
        for member in chosen:
            if member.parked:
                self.engine.unpark(member.id)
            member.running, member.parked = True, False
        if new:
            self._around.post(Admitted(members=new, at_s=now_s))
            self.engine.admit([member.held.job.render for member in new])
            for member in new:
                if member.held.unwanted:  # said so before the engine knew it
                    self.engine.evict(member.id)
        if going != self._together:
            self._together = going
            acquaint(chosen)

    def _sort_out(self, stepped: Stepped) -> None:
        by_id = {member.id: member for member in self._members}
        self._undecoded.add([(by_id.pop(done.job_id), done) for done in stepped.finished], ahead=stepped.ahead)
        for job_id in stepped.evicted:
            if job_id in by_id:
                self._around.post(Left(member=by_id.pop(job_id)))
        if len(by_id) != len(self._members):
            self._members = list(by_id.values())
            self.roster = tuple(self._members)

    def _decode_some(self, *, until_s: float | None) -> None:
        """Decode what is finished. While others wait for their next step: one, and more only as `until_s` allows, but
        none that the device develops beside the step that it is at.
        """
        began_s = self._around.clock()
        staying = self._undecoded.under_way if self._members or self._offered else 0
        while len(self._undecoded) > staying:
            if self._undecoded.first.held.unwanted:
                self._around.post(Left(member=self._undecoded.take()[0]))
                continue
            if not self._around.permits.try_acquire():
                return
            self._decode(*self._undecoded.take())
            if until_s is not None and self._around.clock() - began_s >= until_s:
                return

    def _decode(self, member: Member, done: Done) -> None:
        # A device that is at a step of the others meanwhile may fail over any of them.
        beside = [each for each in self._members if each.running] if self._ahead else []
        began_s = self._begin(Cause.DECODING, (member, *beside))
        picture: Picture | EncodedPicture | None = None
        bad, failure = "", Failure.BAD_OUTPUT
        try:
            picture = self.engine.decode(done)
            require_whole(picture, member.held.job.render)
        except (BadOutput, Refused, NotNow) as error:
            picture, bad, failure = None, str(error), _FAILURES[type(error)]
        except BaseException:
            self._around.permits.release()
            raise
        ended_s = self._around.clock()
        self._at_work = ()
        self._around.post(Spent(cause=Cause.DECODING, began_s=began_s, ended_s=ended_s))
        self._around.record("decode", member.id, began_s, ended_s)
        self._around.post(Decoded(member=member, picture=picture, bad=bad, failure=failure, decode_s=ended_s - began_s))

    def _crashed(self, failure: Failure, detail: str, *, died: bool, away: EngineAway | None) -> End:
        """Make the engine ready again; everybody begins anew, some under suspicion. Without the engine nobody does."""
        began_s = self._around.clock()
        at_work = list(self._at_work)
        suspects = [] if away else at_work  # a model that is away says nothing about those that were at work
        if at_work:
            self._around.post(Spent(cause=self._work, began_s=self._work_began_s, ended_s=began_s, size=len(at_work)))
        self._around.post(Broke())
        innocents = [each for each in self._members if each not in suspects]
        innocents += [each for each in self._undecoded.clear() if each not in suspects]
        together = len({member.id for member in self._members if member.running} | {each.id for each in suspects})
        self._at_work, self._members, self.roster = (), [], ()
        away = away or self._reset()
        ended_s = self._around.clock()
        self._around.post(Spent(cause=Cause.RESTARTING, began_s=began_s, ended_s=ended_s))
        crash = Crash(
            suspects=suspects,
            innocents=innocents,
            together=together,
            failure=failure,
            detail=detail,
            died=died,
            out=str(away) if away else "",
            pause_s=away.pause_s if away else 0.0,
        )
        return End(at_s=ended_s, crash=crash)

    def _reset(self) -> EngineAway | None:
        """Whatever goes wrong with it, nothing can be rendered any more: by this model, if it lives apart from this
        process. Raises EngineLost if it does not.
        """
        try:
            self.engine.reset()
        except (EngineAway, EngineLost, LoadFailed) as error:
            why = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001  (what is left of a model may raise anything)
            _log.error("engine.not_reset", error=type(error).__name__, at=places(error), error_text=text(error))
            why = f"reset raised {type(error).__name__}"
        else:
            return None
        if self.engine.capabilities.apart:
            return EngineAway(why)
        raise EngineLost(why)


def _raised(error: BaseException) -> str:
    _log.warning("model.raised", error=type(error).__name__, at=places(error), error_text=text(error))
    return f"the model raised {type(error).__name__}"
