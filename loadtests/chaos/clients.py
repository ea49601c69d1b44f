"""The load: generations at a rate, each followed by a client of its own to its end and its pictures.

Clients repeat every call until it is answered, a POST always under its Idempotency-Key. Some submit twice on purpose,
some cancel. The answers go to the ledger.
"""

import asyncio
import random
import uuid
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from loadtests import checks
from loadtests.chaos.api import Api
from loadtests.checks import Accepted, Wrong

CANARY = "xq7canaryxq7"
"""Part of every prompt; it must appear in no log line."""
MOST_CLIENTS = 3_000
_SIZES = ((64, 64), (64, 64), (128, 128), (192, 128))
_REPEAT, _CANCEL, _HOLD = 0.1, 0.1, 0.5
_WAIT_S = 10


class Clients:
    """`read_drawn` reads what the emulated GPU drew."""

    def __init__(self, api: Api, rng: random.Random, read_drawn: checks.ReadDrawn) -> None:
        self._api = api
        self._ledger = api.ledger
        self._rng = rng
        self._read_drawn = read_drawn
        self._tenants = list(api.keys)
        self._room = asyncio.Semaphore(MOST_CLIENTS)
        self._decoders = asyncio.Semaphore(2)

    async def arrive(self, rate: float, until_s: float, group: asyncio.TaskGroup, now: Callable[[], float]) -> None:
        """Start clients at random moments, `rate` a second, until the loop's clock says `until_s`."""
        due_s = now()
        while (due_s := due_s + self._rng.expovariate(rate)) < until_s:
            await asyncio.sleep(max(0.0, due_s - now()))
            await self._room.acquire()
            group.create_task(self._client(), name="client")

    async def _client(self) -> None:
        generation_id = ""
        try:
            tenant, key, asked = self._rng.choice(self._tenants), uuid.uuid4().hex, self._body()
            generation = await self._api.submit(tenant, key, asked)
            generation_id = generation.id
            self._ledger.accept(tenant, key, generation)
            if self._rng.random() < _REPEAT:
                self._ledger.again(generation, await self._api.submit(tenant, key, asked))
            await self._follow(tenant, generation)
        except Wrong as error:
            self._ledger.complain(str(error), generation_id)
        finally:
            self._room.release()

    async def _follow(self, tenant: str, generation: Accepted) -> None:
        cancelled: bool | None = None
        if self._rng.random() < _CANCEL:
            await asyncio.sleep(self._rng.choice((0.0, 0.1, 0.3, 1.0)))
            cancelled = await self._api.cancel(tenant, generation.id)
        body = await self._ended(tenant, generation)
        self._ledger.end(generation.id, body["status"])
        if cancelled is not None and cancelled != (body["status"] == "cancelled"):
            raise Wrong(f"cancel answered {cancelled}, and then it was {body['status']}")
        if cancelled is None and body["status"] == "cancelled":
            raise Wrong("cancelled, and nobody had asked for that")
        if body["status"] == "succeeded":
            await self._pictures(tenant, generation, body)

    async def _ended(self, tenant: str, generation: Accepted) -> dict[str, Any]:
        """Waits until the generation has ended, by held calls or by polling, and returns its body."""
        wait_s = _WAIT_S if self._rng.random() < _HOLD else 0
        status, attempt = "queued", 0
        while True:
            body = await self._api.get(tenant, generation.id, wait_s=wait_s)
            checks.same_spec(generation.asked, body)
            status = checks.still_forward(status, body)
            if checks.ended(status):
                return body
            if not wait_s:
                await asyncio.sleep(checks.back_off(min(attempt, 5), None, self._rng))
            attempt += 1

    async def _pictures(self, tenant: str, generation: Accepted, body: dict[str, Any]) -> None:
        links = checks.picture_links(generation, body)
        for index, (link, image) in enumerate(zip(links, body["images"], strict=True)):
            content = await self._api.picture(tenant, link)
            if sha256(content).hexdigest() != image["sha256"] or len(content) != image["size_bytes"]:
                raise Wrong("the picture has another digest or size than its generation says")
            async with self._decoders:
                await asyncio.to_thread(checks.picture, generation, index, content, self._read_drawn)
            self._ledger.pictures += 1

    def _body(self) -> dict[str, Any]:
        body = checks.random_body(self._rng)
        body["prompt"] += f" {CANARY}"
        body["width"], body["height"] = self._rng.choice(_SIZES)
        body["n"] = self._rng.choice((1, 1, 1, 2))
        return body
