"""Uploads encoded pictures to the temporary bucket, and retries until the store accepts them.

A store that is down costs time only: the bounded queues fill, the GPU waits (backpressure), and no picture is
discarded.
"""

import asyncio

import structlog

from infra.retry import Permanent, Retryable, error_text, retry
from worker import messages as replies
from worker import tracing
from worker.context import Context
from worker.holding.types import Encoded, Uploaded
from worker.ports import TempStore

_log = structlog.get_logger()


class Uploader:
    """Called by the tasks of the upload stage. `deadline_s` limits one try."""

    def __init__(self, context: Context, temp: TempStore, *, bucket: str, deadline_s: float) -> None:
        self._context = context
        self._temp = temp
        self._bucket = bucket
        self._deadline_s = deadline_s
        self._failing: set[str] = set()

    async def upload(self, encoded: Encoded) -> Uploaded | None:
        """Returns once the store has verified the digest. Retries while the picture is wanted; None when it no longer
        is.
        """
        loop = asyncio.get_running_loop()
        held = encoded.held
        key = replies.temp_key(held)
        began = loop.time()
        span = tracing.upload(held, self._bucket, len(encoded.data))

        def failed(made: int, error: Retryable) -> None:
            self._failing.add(key)
            self._failed(made, error)

        try:
            stored = await retry(lambda: self._put(key, encoded), attempts=None, rng=self._context.rng, on_retry=failed)
        finally:
            tracing.end(span)
        self._clear(key, stored=stored)
        if not stored:
            return None
        await self._context.failpoints.reach("worker.uploaded")
        ended = loop.time()
        took = ended - began
        self._context.metrics.upload_seconds.observe(took)
        self._context.recorder("upload", held.id, began, ended)
        return Uploaded(
            held=held,
            origin=encoded.origin,
            key=key,
            sha256=encoded.sha256,
            size_bytes=len(encoded.data),
            encode_s=encoded.encode_s,
            upload_s=took,
        )

    def _clear(self, key: str, *, stored: bool) -> None:
        """Report the store as healthy once it has accepted a picture, or once no picture that failed is wanted."""
        if stored:
            self._failing.clear()
        self._failing.discard(key)
        if not self._failing:
            self._context.health.clear("store")

    async def _put(self, key: str, encoded: Encoded) -> bool:
        if encoded.held.unwanted:
            return False
        await self._context.failpoints.reach("worker.upload_mid")
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._temp.put(key, encoded.data, content_type=encoded.content_type, sha256=encoded.sha256)
        except (Permanent, TimeoutError) as error:  # a refused upload is a fault of the deployment, not of the image
            raise Retryable(error_text(error)) from error
        return True

    def _failed(self, made: int, error: Retryable) -> None:
        self._context.metrics.upload_failures.inc()
        self._context.health.mark_unready("store", f"store: uploads fail ({error})")
        _log.warning("upload.failed", tries=made, reason=str(error))
