"""Copies each rendered picture from the temporary to the public bucket, and records its publication.

The publisher works from the states of open generations: what is rendered and not published is copied, now or after the
next start. Every step is idempotent. Size and digest are checked before and after the copy; a picture that is gone or
altered is recorded as lost, and the image is rendered again. Calls are retried while the store cannot be reached. A
picture that must wait delays no other.

An object that is not found may become visible a little later, and rendering again costs GPU time: it is looked up
again after 1, 2, 4 and 8 s before the decision is revoked. To a client without the right to list, S3 answers 403
instead of 404. A 403 counts as not found only if another object was found after the first one; until then it counts as
an error of the store.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import structlog
from opentelemetry import trace

from core import tracing
from core.context import Context
from core.domain import commands as c
from core.domain.events import ImageRendered
from core.domain.object_keys import content_type, public_key
from core.domain.state import Generation, Phase, Ref
from core.domain.transaction import Change, Order
from core.ports import PublicStore, Stored, TempStore
from core.results.object_cleanup import Cleanups
from core.runtime.provisioning import Provisioning
from core.runtime.writer import Writer
from infra.retry import Missing, Permanent, Retryable, backoff_s

_MISSING_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0)
_JITTER: Final = 0.25
_FIRST_RETRY_S: Final = 0.2
_LONGEST_RETRY_S: Final = 5.0
_log = structlog.get_logger()
_tracer = trace.get_tracer(__name__)
_GONE: Final = "gone"


@dataclass(frozen=True, slots=True)
class _Picture:
    state: Generation
    index: int
    won: ImageRendered

    @property
    def public_key(self) -> str:
        return public_key(self.won)


@dataclass(slots=True)
class _Delay:
    """What has held up the picture of one attempt so far: failed calls, and times its object was not found."""

    attempt_id: str
    failures: int = 0
    missing: int = 0
    refused_at_s: float | None = None
    """When the store first refused to say whether its object is there."""


class _NotFound(Exception):
    """The object does not exist, or is not visible yet."""


class Publisher:
    """Any number of `run`s may run concurrently."""

    def __init__(
        self,
        writer: Writer,
        temp: TempStore,
        public: PublicStore,
        cleanups: Cleanups,
        provisioning: Provisioning,
        context: Context,
    ) -> None:
        self._writer = writer
        self._temp = temp
        self._public = public
        self._temp_cleanup = cleanups.temp
        self._public_cleanup = cleanups.public
        self._provisioning = provisioning
        self._failpoints = context.failpoints
        self._rng = context.rng
        self._metrics = context.metrics
        self._waiting: dict[Ref, None] = {}  # in order; bounded by the images of open generations
        self._wake = asyncio.Semaphore(0)
        self._failing: dict[Ref, str] = {}  # those that failed since the last success
        self._delays: dict[Ref, _Delay] = {}  # of pictures that wait for another attempt
        self._found_at_s = float("-inf")

    @property
    def trouble(self) -> str:
        """Why core is not ready: the store failed to copy a picture that is still wanted. Empty otherwise."""
        return next(iter(self._failing.values()), "")

    @property
    def waiting(self) -> int:
        """How many pictures wait to be copied; those being copied or in a retry pause are not counted."""
        return len(self._waiting)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Follow the writer."""
        for before, after in changes:
            for image in after.images:
                if image.phase is not Phase.RENDERED or image.rendered is None:
                    continue
                if not after.open:
                    self._temp_cleanup.add(image.rendered.temp_key)  # cancelled or expired meanwhile
                elif before is None or before.images[image.index].rendered is not image.rendered:
                    self._waiting[after.id, image.index] = None
                    self._wake.release()

    async def run(self) -> None:
        """Publish one picture after the other. Never returns."""
        while True:
            await self._wake.acquire()
            ref = next(iter(self._waiting), None)
            if ref is None:  # an image that is rendered again while it waits is one entry with two wake-ups
                continue
            del self._waiting[ref]
            again_s = await self._attempt(ref)
            if again_s is None:  # published, given up, or not wanted any more
                self._failing.pop(ref, None)
                self._delays.pop(ref, None)
            else:
                asyncio.get_running_loop().call_later(again_s, self._take_up, ref)

    def _take_up(self, ref: Ref) -> None:
        self._waiting[ref] = None
        self._wake.release()

    async def _attempt(self, ref: Ref) -> float | None:
        """Seconds until the next attempt; None: no further one is needed."""
        picture = self._picture(ref)
        if picture is None:
            return None
        delay = self._delays.get(ref)
        if delay is None or delay.attempt_id != picture.won.attempt_id:
            delay = self._delays[ref] = _Delay(picture.won.attempt_id)
        try:
            with _tracer.start_as_current_span(
                "publish",
                context=tracing.context_of(picture.state.trace),
                attributes={"darkroom.generation.id": ref[0], "darkroom.image.index": ref[1]},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                with tracing.marking(span):
                    await self._publish(picture, delay)
        except _NotFound:
            wait_s = _MISSING_WAITS_S[delay.missing] * (1 + _JITTER * self._rng())
            delay.missing += 1
            _log.warning("publish.not_found_yet", generation_id=ref[0], index=ref[1], again_s=round(wait_s, 1))
            return wait_s
        except (Retryable, Permanent) as error:
            if isinstance(error, Missing):
                await self._provisioning.try_ensure("publish.buckets_not_made")
            self._failing[ref] = f"store: {error}"
            _log.warning("publish.delayed", generation_id=ref[0], index=ref[1], reason=str(error))
            delay.failures += 1
            return backoff_s(delay.failures - 1, first_s=_FIRST_RETRY_S, cap_s=_LONGEST_RETRY_S, draw=self._rng())
        self._failing.clear()  # the store works: single pictures that still fail do not make core unready
        return None

    def _picture(self, ref: Ref) -> _Picture | None:
        """What to publish; None when it is published or no longer wanted."""
        state = self._writer.open.get(ref[0])
        image = state.images[ref[1]] if state else None
        if state is None or image is None or image.phase is not Phase.RENDERED or image.rendered is None:
            return None
        return _Picture(state, ref[1], image.rendered)

    async def _publish(self, picture: _Picture, delay: _Delay) -> None:
        """Check, copy, check and record. Raises _NotFound while the object may still become visible."""
        await self._failpoints.reach("core.after_rendered")
        won, key = picture.won, picture.public_key
        wrong = await self._fault_of_temp(won, delay)
        if not wrong:
            await self._failpoints.reach("core.mid_copy")
            copied = await self._public.copy_from_temp(won.temp_key, key, content_type=content_type(won))
            wrong = "" if copied else _GONE
        # Also when the temporary object is gone: an attempt before a crash may have copied it.
        copy = await self._head_copy(key, delay)
        if copy is None or not _same(copy, won):
            if not wrong:
                raise Retryable("the copy is not whole")
            if wrong == _GONE and delay.missing < len(_MISSING_WAITS_S):
                raise _NotFound
            if wrong == _GONE and not await self._is_gone(won.temp_key, delay):
                raise Retryable("the object is visible now")
            await self._lose(picture, wrong)
            if copy is not None:
                self._public_cleanup.add(key)  # a copy of a wrong object; the next picture gets another key
            return
        await self._failpoints.reach("core.after_copy")
        await self._record(picture)

    async def _fault_of_temp(self, won: ImageRendered, delay: _Delay) -> str:
        stored = await self._head_temp(won.temp_key, delay)
        if stored is None:
            return _GONE
        if stored.size_bytes != won.size_bytes:
            return "of another size"
        if stored.sha256 is None:  # this store keeps no digest
            data = await self._temp.get(won.temp_key)
            return "" if data is not None and sha256(data).digest() == won.sha256 else "altered"
        return "" if stored.sha256 == won.sha256 else "altered"

    async def _head_temp(self, key: str, delay: _Delay) -> Stored | None:
        now_s = asyncio.get_running_loop().time()
        try:
            stored = await self._temp.head(key)
        except Permanent:
            if delay.refused_at_s is None:
                delay.refused_at_s = now_s
            if self._found_at_s <= delay.refused_at_s:
                raise
            return None  # an object was found since, so reading is allowed and this 403 means 404
        if stored is not None:
            self._found_at_s = asyncio.get_running_loop().time()
        return stored

    async def _head_copy(self, key: str, delay: _Delay) -> Stored | None:
        try:
            return await self._public.head(key)
        except Permanent:
            if delay.refused_at_s is None:
                raise
            return None  # this store answers 403 for 404

    async def _is_gone(self, key: str, delay: _Delay) -> bool:
        """The last look before a picture is given up: GET, unlike HEAD, distinguishes a missing bucket."""
        try:
            return await self._temp.get(key) is None
        except Permanent:
            if delay.refused_at_s is None:
                raise
            return True

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
            self._temp_cleanup.add(won.temp_key)
            return
        image = result.state.images[picture.index] if result.state else None
        if image is None or image.public_key != picture.public_key:
            self._public_cleanup.add(picture.public_key)  # the generation ended while we copied


def _same(stored: Stored, won: ImageRendered) -> bool:
    return stored.size_bytes == won.size_bytes and stored.sha256 in {None, won.sha256}
