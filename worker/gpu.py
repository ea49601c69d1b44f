"""The loop that keeps the GPU busy: one session after the other, each with what the announcer has ready for it."""

from collections.abc import Awaitable, Callable, Iterable

from infra.loops import Loops
from worker.announce import Announcer
from worker.errors import EngineAway, EngineLost
from worker.floor import Floor
from worker.member import members_of
from worker.pipeline import Line
from worker.render import Renderer
from worker.types import Failed, Failure, Held
from worker.window import Window


class Gpu:
    """One task of the service; owns the order of work on the GPU thread."""

    def __init__(
        self,
        window: Window,
        line: Line,
        floor: Floor,
        announcer: Announcer,
        renderer: Renderer,
        *,
        lost: Callable[[Failure, str], Awaitable[None]],
    ) -> None:
        self._window = window
        self._line = line
        self._floor = floor
        self._announcer = announcer
        self._renderer = renderer
        self._lost = lost

    def close(self) -> None:
        """Let nobody in any more; who is on the GPU goes on."""
        self._announcer.close()
        session = self._floor.session
        if session is not None:
            session.close()
            self._turn_away(member.held for member in session.take_back())

    async def run(self) -> None:
        """Until `close`, and then until everybody has left the GPU. Raises EngineLost, EngineAway, LoopEnded."""
        try:
            async with Loops() as loops:
                loops.run("worker.announce", self._announcer.run, may_return=lambda: self._announcer.closed)
                await self._serve()
        except* EngineLost:
            await self._lost(Failure.MODEL_ERROR, "the device failed beyond repair")
            raise
        except* EngineAway:
            await self._lost(Failure.DRAINED, "the model server stays away")
            raise
        if self._floor.coming is not None:
            self._turn_away(self._floor.coming.members)

    async def _serve(self) -> None:
        while (coming := await self._announcer.coming()) is not None:
            session = self._renderer.session(coming.engine, coming.key, solo=coming.solo)
            session.offer(members_of(coming))
            self._floor.session = session
            try:
                await self._renderer.run(session)
            finally:
                self._floor.session = None
                self._window.touch()

    def _turn_away(self, announced: Iterable[Held]) -> None:
        """They were announced and will not run here."""
        for held in announced:
            self._line.fail_now(Failed(held=held, failure=Failure.DRAINED, detail="the worker stops"))
