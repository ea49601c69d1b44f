"""An event loop without clock, sockets or threads: time jumps to the next timer, and order follows from the program.

Every callback belongs to the actor in whose context it was made: an actor is a simulated process, and one that is
frozen (stopped, or killed for good) runs nothing until it is thawed. Nobody else notices. Knows nothing of darkroom.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")
_START_S = 1_000.0
_MOST_AT_ONE_TIME = 500_000


class Deadlock(Exception):
    """Every task waits for something that cannot happen any more."""


class Livelock(Exception):
    """The program goes on and on without any time passing."""


class Actor:
    """A simulated process: all that is ever called from its context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.held: list[asyncio.Handle] = []
        self._context = Context()
        self._context.run(_ACTOR.set, self)

    def context(self) -> Context:
        """A context of its own for one more task of this actor."""
        return self._context.copy()


_ACTOR: "ContextVar[Actor | None]" = ContextVar("simulated_actor", default=None)


class _Task(asyncio.Task[T]):
    """Hashed by number, not by address: the library keeps tasks in sets, and their order must not vary."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class _Handle(asyncio.Handle):
    """As the base class, without what a loop in debug mode asks of it."""

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: "VirtualLoop", context: Any
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """Likewise."""

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], loop: "VirtualLoop", context: Any
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = False  # the base class counts the cancelled ones that are


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs until its main coroutine ends; `run` is the whole of its use."""

    get_debug: Any = bool  # never; asked at every turn, and quicker than a method

    def __init__(self) -> None:
        super().__init__()
        self._now_s = _START_S
        self._numbers = count(1)
        # Of the base class, which types its own parts no further.
        self._ready: deque[Any]
        self._scheduled: list[Any]  # (when, number, handle): tuples compare at a tenth of the time
        self._stopping: bool
        self._here = 0
        self.over = False
        self.neutral = Context()  # of what happens in the world outside all actors
        self._alive: dict[asyncio.Task[Any], Actor | None] = {}
        self._prune_at = 32
        self.unhandled: list[str] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of `main`; then every task is cancelled and the loop closed. Raises Deadlock, Livelock."""
        try:
            return self.run_until_complete(self.create_task(main, name="main", context=self.neutral))
        finally:
            self._prune()  # whoever failed unheard is reported now
            self.over = True
            self.set_exception_handler(lambda *_: None)  # from here on only the dead are buried
            self._bury()
            self.run_until_complete(self.shutdown_asyncgens())
            self.close()

    def spawn(self, actor: Actor, coroutine: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """A task in an actor."""
        return self.create_task(coroutine, name=f"{actor.name}.{name}", context=actor.context())

    @staticmethod
    def acting() -> str:
        """The name of the actor in whose context this is called; empty outside all of them."""
        actor = _ACTOR.get()
        return actor.name if actor is not None else ""

    def freeze(self, actor: Actor) -> None:
        """From now on nothing of the actor runs."""
        actor.frozen = True

    def thaw(self, actor: Actor) -> None:
        """The actor goes on where it was, with all that has come due meanwhile."""
        actor.frozen = False
        self._ready.extend(actor.held)
        actor.held.clear()

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> _Handle:  # type: ignore[override]
        """As the base class."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]
        """As the base class; of what is due at the same time, the first asked for is the first to run."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, (when, next(self._numbers), timer))
        return timer

    def _make_task(self, _: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
        task = _Task(coroutine, number=next(self._numbers), loop=self, **options)
        context: Context | None = options.get("context")
        actor = context.get(_ACTOR) if context is not None else _ACTOR.get()
        self._alive[task] = actor
        if len(self._alive) >= self._prune_at:
            self._prune()
        return task

    def _prune(self) -> None:
        """Forget the tasks that are done: now and then, for a callback of each costs more."""
        self._alive = {task: actor for task, actor in self._alive.items() if not task.done()}
        self._prune_at = 2 * len(self._alive) + 32

    def _bury(self) -> None:
        for _ in range(10):
            self._prune()
            left = list(self._alive)
            if not left:
                return
            for actor in dict.fromkeys(self._alive.values()):
                if actor is not None:
                    self.thaw(actor)
            for task in left:
                task.cancel()
            self.run_until_complete(self.create_task(_patience(left), context=self.neutral))

    def _note(self, _: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
        self.unhandled.append(f"{report.get('message')}: {report.get('exception')!r}")

    def _run_once(self) -> None:
        """As the base class, but: no waiting, no I/O, exact times, and nothing of frozen actors."""
        self._advance()
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            actor = handle._context.get(_ACTOR)
            if actor is not None and actor.frozen:
                actor.held.append(handle)
                continue
            self._here += 1
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  (as the base class)
                self.call_exception_handler({"message": f"exception in {handle!r}", "exception": error})
        if self._here > _MOST_AT_ONE_TIME:
            self._here = 0
            raise Livelock(f"at {self._now_s:.3f} s")

    def _advance(self) -> None:
        """On to the next timer when nothing is ready; what is due is ready."""
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0][2]._cancelled:
            heapq.heappop(scheduled)
        if not ready and not self._stopping:
            if not scheduled:
                self._prune()
                raise Deadlock(", ".join(sorted(task.get_name() for task in self._alive)))
            if scheduled[0][0] > self._now_s:
                self._now_s, self._here = scheduled[0][0], 0
        while scheduled and scheduled[0][0] <= self._now_s:
            ready.append(heapq.heappop(scheduled)[2])

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


async def _patience(tasks: "list[asyncio.Task[Any]]") -> None:
    await asyncio.wait(tasks, timeout=60.0)
