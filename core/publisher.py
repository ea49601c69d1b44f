"""Brings each decided picture from the temporary into the public bucket, and records it.

Works from the states of open generations: whatever is rendered and not published is copied, now or at the next
start, and repeating any step changes nothing. Size and digest are checked before and after the copy; a picture
that is gone or altered is reported as lost, and core has it rendered again. While the store cannot be reached
it tries for ever.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import structlog
from opentelemetry import trace

from core import commands as c
from core import tracing
from core.draft import Change, Order
from core.events import ImageRendered
from core.leftovers import Leftovers
from core.metrics import Metrics
from core.ports import Drafts, Failpoints, Gallery, Stored
from core.schedule import Ref
from core.state import Generation, Phase
from core.writer import Writer
from infra.retry import Permanent, Retryable, retry
from schema import pb

_log = structlog.get_logger()
_tracer = trace.get_tracer(__name__)
_FORMATS = {
    int(pb.OutputFormat.PNG): ("png", "image/png"),
    int(pb.OutputFormat.WEBP): ("webp", "image/webp"),
    int(pb.OutputFormat.JPEG): ("jpg", "image/jpeg"),
}


@dataclass(frozen=True, slots=True)
class _Picture:
    state: Generation
    index: int
    won: ImageRendered

    @property
    def public_key(self) -> str:
        return f"{self.won.public_token}/{self.won.sha256.hex()}.{_FORMATS[self.won.format][0]}"


class Publisher:
    """Any number of `run`s may work side by side."""

    def __init__(
        self,
        writer: Writer,
        drafts: Drafts,
        gallery: Gallery,
        *,
        lost_drafts: Leftovers,
        lost_copies: Leftovers,
        failpoints: Failpoints,
        draw: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._writer = writer
        self._drafts = drafts
        self._gallery = gallery
        self._lost_drafts = lost_drafts
        self._lost_copies = lost_copies
        self._failpoints = failpoints
        self._draw = draw
        self._metrics = metrics
        self._waiting: dict[Ref, None] = {}  # in order; bounded by the images of open generations
        self._wake = asyncio.Semaphore(0)
        self._failing: dict[Ref, str] = {}  # those that are being tried again, since the last success

    @property
    def trouble(self) -> str:
        """Why a picture that is still wanted was not copied; empty while the store does what it is asked."""
        return next(iter(self._failing.values()), "")

    @property
    def waiting(self) -> int:
        """How many pictures nobody has begun to copy."""
        return len(self._waiting)

    def observe(self, changes: Sequence[Change]) -> None:
        """Follow the writer."""
        for before, after in changes:
            for image in after.images:
                if image.phase is not Phase.RENDERED or image.rendered is None:
                    continue
                if not after.open:
                    self._lost_drafts.add(image.rendered.temp_key)  # cancelled or expired meanwhile
                elif before is None or before.images[image.index].rendered is not image.rendered:
                    self._waiting[after.id, image.index] = None
                    self._wake.release()

    async def run(self) -> None:
        """Publish one picture after the other, for ever."""
        while True:
            await self._wake.acquire()
            ref = next(iter(self._waiting), None)
            if ref is None:
                continue
            del self._waiting[ref]
            try:
                await retry(partial(self._attempt, ref), attempts=None, cap_s=5.0, rng=self._draw)
            finally:
                self._failing.pop(ref, None)  # published, or not wanted any more

    async def _attempt(self, ref: Ref) -> None:
        picture = self._picture(ref)
        if picture is None:
            return
        try:
            with _tracer.start_as_current_span(
                "publish",
                context=tracing.context_of(picture.state.trace),
                attributes={"darkroom.generation.id": ref[0], "darkroom.image.index": ref[1]},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                with tracing.marking(span):
                    await self._publish(picture)
        except (Retryable, Permanent) as error:
            self._failing[ref] = f"store: {error}"
            _log.warning("publish.delayed", generation_id=ref[0], index=ref[1], reason=str(error))
            raise Retryable(str(error)) from error
        self._failing.clear()  # the store works: one picture that it does not copy makes nobody unready

    def _picture(self, ref: Ref) -> _Picture | None:
        """What to publish; None when it is not wanted any more, or done."""
        state = self._writer.open.get(ref[0])
        image = state.images[ref[1]] if state else None
        if state is None or image is None or image.phase is not Phase.RENDERED or image.rendered is None:
            return None
        return _Picture(state, ref[1], image.rendered)

    async def _publish(self, picture: _Picture) -> None:
        await self._failpoints.reach("core.after_rendered")
        won, key = picture.won, picture.public_key
        wrong = await self._fault_of_draft(won)
        if not wrong:
            await self._failpoints.reach("core.mid_copy")
            copied = await self._gallery.copy_draft(won.temp_key, key, content_type=_FORMATS[won.format][1])
            wrong = "" if copied else "gone"
        copy = await self._gallery.head(key)
        if copy is None or not _same(copy, won):
            if not wrong:
                raise Retryable("the copy is not whole")
            await self._lose(picture, wrong)
            if copy is not None:
                self._lost_copies.add(key)  # of what had taken the draft's place; the next picture gets another key
            return
        await self._failpoints.reach("core.after_copy")
        await self._record(picture)

    async def _fault_of_draft(self, won: ImageRendered) -> str:
        stored = await self._drafts.head(won.temp_key)
        if stored is None:
            return "gone"
        if stored.size_bytes != won.size_bytes:
            return "of another size"
        if stored.sha256 is None:  # this store keeps no digest
            data = await self._drafts.get(won.temp_key)
            return "" if data is not None and sha256(data).digest() == won.sha256 else "altered"
        return "" if stored.sha256 == won.sha256 else "altered"

    async def _lose(self, picture: _Picture, wrong: str) -> None:
        command = c.RecordObjectLost(
            index=picture.index, attempt_id=picture.won.attempt_id, detail=f"the temporary object is {wrong}"
        )
        _log.warning("publish.object_lost", generation_id=picture.state.id, index=picture.index, reason=wrong)
        await self._writer.carry_out([Order(picture.state.id, command)])
        self._metrics.objects_lost.inc()

    async def _record(self, picture: _Picture) -> None:
        won = picture.won
        command = c.RecordPublished(index=picture.index, attempt_id=won.attempt_id, public_key=picture.public_key)
        [result] = await self._writer.carry_out([Order(picture.state.id, command)])
        if result.changed:
            self._metrics.published.inc()
            self._lost_drafts.add(won.temp_key)
            return
        image = result.state.images[picture.index] if result.state else None
        if image is None or image.public_key != picture.public_key:
            self._lost_copies.add(picture.public_key)  # the generation ended while we copied


def _same(stored: Stored, won: ImageRendered) -> bool:
    return stored.size_bytes == won.size_bytes and stored.sha256 in {None, won.sha256}
