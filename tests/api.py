"""A client of the public API that checks it: accepted ids are remembered, and no status may go back."""

import http.client
import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.eventually import until

Body = dict[str, Any]

CANARY = "xq7canaryxq7"
"""Part of every prompt; it must appear in no log line and no span."""

ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})
_RANK = {"queued": 0, "running": 1} | dict.fromkeys(ENDED, 2)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Body:
        value = json.loads(self.body)
        assert isinstance(value, dict), value
        return value

    def problem(self, status: int, about: str = "") -> Body:
        """The problem+json body of a refusal that must name `about`."""
        assert self.status == status, f"{self.status} {self.body[:500]!r}"
        assert self.headers["content-type"].startswith("application/problem+json"), self.headers
        problem = self.json()
        assert problem["status"] == status, problem
        assert problem["title"], problem
        assert about in json.dumps(problem), problem
        return problem


@dataclass(slots=True)
class Memory:
    """What the API has answered to all clients of one stack."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Generation id to tenant, for every 202."""
    _seen: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, generation_id: str, tenant: str) -> None:
        with self._lock:
            assert self.accepted.setdefault(generation_id, tenant) == tenant

    def see(self, body: Body) -> None:
        """Records a status. Fails if it went back, or if a terminal one changed."""
        with self._lock:
            before, now = self._seen.get(body["id"], "queued"), body["status"]
            assert before == now or _RANK[before] < _RANK[now], f"{body['id']} went from {before} to {now}"
            self._seen[body["id"]] = now


def story(body: Body) -> Body:
    """A generation's body without its signed URLs, which name the gateway that was asked and change every minute."""
    images = [
        {name: value for name, value in image.items() if not name.startswith("signed_url")} for image in body["images"]
    ]
    return {**body, "images": images}


class Client:
    """One tenant at one gateway. Not kept alive: each call is a connection of its own."""

    def __init__(self, port: int, tenant: str, key: str, memory: Memory) -> None:
        self.port = port
        self.tenant = tenant
        self.key = key
        self.memory = memory

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 30,
    ) -> Answer:
        """One request. `headers` replace the usual ones; an empty value leaves one out."""
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **(headers or {})}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        return fetch("127.0.0.1", self.port, method, path, data, {k: v for k, v in sent.items() if v}, timeout_s)

    def post(self, *, key: str = "", timeout_s: float = 30, **fields: object) -> Answer:
        """POST a generation: `key` is the Idempotency-Key, `fields` replace those of a small default body."""
        body = {"prompt": f"a red circle {CANARY}", **fields}
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.call("POST", "/v1/generations", body, headers, timeout_s=timeout_s)
        if answer.status == 202:
            self.memory.accept(answer.json()["id"], self.tenant)
            self.memory.see(answer.json())
        return answer

    def submit(self, *, key: str = "", **fields: Any) -> Body:
        """POST a generation that must be accepted."""
        answer = self.post(key=key, **fields)
        assert answer.status == 202, f"{answer.status} {answer.body[:500]!r}"
        return answer.json()

    def submit_many(self, bodies: Sequence[Body], *, at_once: int = 16) -> list[str]:
        """POST them concurrently; their ids in order."""
        with ThreadPoolExecutor(at_once) as pool:
            return [each["id"] for each in pool.map(lambda body: self.submit(**body), bodies)]

    def get(self, generation_id: str, *, wait_s: int = 0) -> Body:
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        answer = self.call("GET", f"/v1/generations/{generation_id}", None, headers, timeout_s=wait_s + 30)
        assert answer.status == 200, f"{answer.status} {answer.body[:500]!r}"
        body = answer.json()
        self.memory.see(body)
        return body

    def cancel(self, generation_id: str) -> Answer:
        return self.call("POST", f"/v1/generations/{generation_id}/cancel")

    def listed(self, **query: object) -> Iterable[Body]:
        """All generations, newest first, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            asked = {"limit": 100, **query} | ({"cursor": cursor} if cursor else {})
            answer = self.call("GET", "/v1/generations?" + "&".join(f"{k}={v}" for k, v in asked.items()))
            assert answer.status == 200, f"{answer.status} {answer.body[:500]!r}"
            page = answer.json()
            for body in page["data"]:
                self.memory.see(body)
                yield body
            cursor = page.get("next_cursor") or None

    def ids(self) -> list[str]:
        return [body["id"] for body in self.listed()]

    def ended(self, generation_id: str, deadline_s: float = 30) -> Body:
        """The generation once it has ended, whichever way."""
        until(lambda: self._ended(generation_id), deadline_s, what=f"{generation_id} ends", every_s=0.1)
        return self.get(generation_id)

    def succeeded(self, ids: Iterable[str], deadline_s: float = 60) -> list[Body]:
        """The generations once all have ended; each must have succeeded."""
        wanted = list(ids)
        bodies: dict[str, Body] = {}

        def all_ended() -> bool:
            bodies.update((body["id"], body) for body in self.listed())
            missing = [each for each in wanted if each not in bodies]
            assert not missing, f"{len(missing)} are not listed: {missing[:3]}"
            open_ones = {each: bodies[each]["status"] for each in wanted if bodies[each]["status"] not in ENDED}
            assert not open_ones, f"{len(open_ones)} of {len(wanted)} are open: {dict(list(open_ones.items())[:3])}"
            return True

        until(all_ended, deadline_s, what=f"{len(wanted)} generations of {self.tenant} end", every_s=0.2)
        failed = [bodies[each] for each in wanted if bodies[each]["status"] != "succeeded"]
        assert not failed, failed[:3]
        return [bodies[each] for each in wanted]

    def picture(self, generation_id: str, index: int = 0) -> Answer:
        """The picture's bytes by the stable link, through a redirect where the gateway sends one.

        A store that is away is waited for, as a client would.
        """
        path = f"/v1/generations/{generation_id}/images/{index}"
        first = self.call("GET", path)
        end = time.monotonic() + 30
        while first.status == 503 and time.monotonic() < end:
            assert "retry-after" in first.headers
            time.sleep(0.2)
            first = self.call("GET", path)
        if first.status not in {302, 303, 307}:
            return first
        link = urlsplit(first.headers["location"])
        return fetch(link.hostname or "", link.port or 80, "GET", f"{link.path}?{link.query}", None, {}, 30)

    def _ended(self, generation_id: str) -> bool:
        body = self.get(generation_id)
        assert body["status"] in ENDED, {key: body[key] for key in ("status", "progress", "images")}
        return True


def fetch(
    host: str, port: int, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
) -> Answer:
    """One HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
