"""Darkroom's public API for clients that never give up: each call goes to some gateway until it is answered.

Raises Wrong for answers that no fault can explain. It knows neither the clients' plans nor the faults.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from loadtests import checks
from loadtests.chaos.ledger import Ledger
from loadtests.checks import Wrong

_CALL_S = 20.0
_NOT_NOW = frozenset({408, 429, 503})
_STORE_AWAY = frozenset({502})
_GENERATIONS = "/v1/generations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer. `headers` ignore case."""

    status: int
    headers: CIMultiDictProxy[str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Api:
    """`keys` by tenant; `gateways` are URLs."""

    session: aiohttp.ClientSession
    gateways: Sequence[str]
    keys: Mapping[str, str]
    ledger: Ledger
    rng: random.Random

    async def submit(self, tenant: str, key: str, asked: checks.Body) -> checks.Accepted:
        """POSTs a generation under its Idempotency-Key, again and again until it is accepted."""
        headers = {"Idempotency-Key": key}
        answer = await self._insist("POST", _GENERATIONS, tenant, headers, json=asked)
        return checks.accepted(asked, answer.status, answer.headers, answer.content)

    async def get(self, tenant: str, generation_id: str, *, wait_s: int = 0) -> dict[str, Any]:
        """The generation. With `wait_s` the server holds the call until it has ended or that time is over."""
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        answer = await self._insist("GET", f"{_GENERATIONS}/{generation_id}", tenant, headers, extra_s=wait_s)
        if answer.status != 200:
            raise Wrong("GET: " + checks.problem(answer.status, answer.content))
        return checks.parse(answer.content)

    async def cancel(self, tenant: str, generation_id: str) -> bool:
        """True: cancelled; False: too late."""
        answer = await self._insist("POST", f"{_GENERATIONS}/{generation_id}/cancel", tenant, {})
        if answer.status not in (200, 409):
            raise Wrong("cancel: " + checks.problem(answer.status, answer.content))
        return answer.status == 200

    async def page(self, tenant: str, cursor: str) -> dict[str, Any]:
        """A page of the list, newest first."""
        query = "?limit=100" + (f"&cursor={cursor}" if cursor else "")
        answer = await self._insist("GET", _GENERATIONS + query, tenant, {})
        if answer.status != 200:
            raise Wrong("list: " + checks.problem(answer.status, answer.content))
        return checks.parse(answer.content)

    async def picture(self, tenant: str, link: str) -> bytes:
        """Downloads an image by its stable link through any gateway, and follows a redirect without the key."""
        path = link[link.index(_GENERATIONS) :]
        attempt = 0
        while True:
            answer = await self._insist("GET", path, tenant, {})
            if answer.status == 200:
                return answer.content
            if answer.status not in (302, *_STORE_AWAY):
                raise Wrong("image link: " + checks.problem(answer.status, answer.content))
            content = await self._from_store(answer.headers["Location"]) if answer.status == 302 else None
            if content is not None:
                return content
            await asyncio.sleep(checks.back_off(attempt, None, self.rng))
            attempt = min(attempt + 1, 6)

    async def _from_store(self, url: str) -> bytes | None:
        found = await self._once("GET", url, {}, _CALL_S)
        if found is None or found.status >= 500:
            return None
        if found.status != 200:
            raise Wrong(f"a published picture: {found.status} from the store")
        return found.content

    async def _insist(
        self,
        method: str,
        path: str,
        tenant: str,
        headers: Mapping[str, str],
        *,
        json: object = None,
        extra_s: float = 0.0,
    ) -> Answer:
        """Repeats the call at random gateways until one answers with another status than 408, 429 or 503."""
        sent = {"Authorization": f"Bearer {self.keys[tenant]}", **headers}
        attempt = 0
        while True:
            url = self.rng.choice(self.gateways) + path
            answer = await self._once(method, url, sent, _CALL_S + extra_s, json)
            if answer is not None and answer.status not in _NOT_NOW:
                return answer
            asked_s = checks.retry_after(answer.headers) if answer is not None else 0.0
            if answer is not None and asked_s is None and answer.status != 408:
                self.ledger.complain(f"{answer.status} without Retry-After")
            self.ledger.retries += 1
            await asyncio.sleep(checks.back_off(min(attempt, 6), asked_s, self.rng))
            attempt += 1

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], limit_s: float, json: object = None
    ) -> Answer | None:
        try:
            timeout = aiohttp.ClientTimeout(total=limit_s)
            async with self.session.request(
                method, url, headers=dict(headers), json=json, timeout=timeout, allow_redirects=False
            ) as found:
                return Answer(status=found.status, headers=found.headers, content=await found.read())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
