"""Calls to core over a simulated network, from clients and workers: core may be away, slow, or die in the middle."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from core.api.errors import BadRequest, NotFound
from core.assembly import Core
from infra.retry import Retryable
from schema import fast
from tests.simulation.loop import Actor
from tests.simulation.net import Net
from tests.simulation.world import World
from worker.core_client import model_report
from worker.ports import Holding, ListedModel

T = TypeVar("T")
_TOLD = (Retryable, NotFound, BadRequest)


class CoreLine:
    """`up` joins it to a life of core, `down` takes that away: calls under way are cut."""

    def __init__(self, world: World, net: Net) -> None:
        self._world = world
        self._net = net
        self._core: tuple[Core, Actor] | None = None
        self._open: dict[asyncio.Future[Any], None] = {}

    @property
    def core(self) -> Core | None:
        """The life that answers."""
        return self._core[0] if self._core else None

    def up(self, core: Core, actor: Actor) -> None:
        """Core listens."""
        self._core = (core, actor)

    def down(self) -> None:
        """Core is gone."""
        self._core = None
        for answer in self._open:
            if not answer.done():
                answer.set_exception(Retryable("core: connection reset"))
        self._open.clear()

    async def call(self, name: str, method: Callable[[Core], Coroutine[Any, Any, T]], deadline_s: float) -> T:
        """What core answers. Raises Retryable, NotFound or BadRequest."""
        answer: asyncio.Future[T] = self._world.loop.create_future()
        self._open[answer] = None
        self._net.later(self._net.delay_s("rpc"), lambda: self._arrive(name, method, answer))
        try:
            async with asyncio.timeout(deadline_s):
                return await answer
        except TimeoutError:
            raise Retryable(f"core: {name} timed out") from None
        finally:
            self._open.pop(answer, None)

    def _arrive(self, name: str, method: Callable[[Core], Coroutine[Any, Any, T]], answer: "asyncio.Future[T]") -> None:
        refused = self._net.refused("rpc", name)
        if refused is None and self._core is None:
            refused = Retryable("core: connection refused")
        if refused is not None or self._core is None:
            self._net.reply("rpc", name, answer, refused or Retryable("core: gone"))
            return
        core, actor = self._core
        handler = self._world.loop.spawn(actor, method(core), f"rpc.{name}")
        handler.add_done_callback(lambda task: self._handled(name, task, answer), context=self._world.loop.neutral)

    def _handled(self, name: str, task: "asyncio.Task[T]", answer: "asyncio.Future[T]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, _TOLD):
            self._world.violate(f"core's {name} raised {error!r}")
        if error is None:
            self._net.reply("rpc", name, answer, task.result())
        elif isinstance(error, Exception):
            self._net.reply("rpc", name, answer, error)


class Asking:
    """`StillWanted` of one worker. `heard` is told of every answer that arrives."""

    def __init__(self, line: CoreLine, heard: Callable[[Holding, bool], None]) -> None:
        self._line = line
        self._heard = heard

    async def ask(self, worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        """Raises Retryable."""
        images = [
            fast.HeldImage(
                image=fast.ImageRef(generation_id=each.generation_id, index=each.index),
                running=each.running,
                step=each.step,
                dispatch=each.dispatch,
            )
            for each in held
        ]

        reports = [fast.ModelReport.FromString(model_report(each).SerializeToString()) for each in models]

        async def method(core: Core) -> Sequence[bool]:
            return core.service.still_wanted(worker_id, images, reports)

        wanted = await self._line.call("still_wanted", method, 2.0)
        for each, keep in zip(held, wanted, strict=True):
            self._heard(each, keep)
        return wanted
