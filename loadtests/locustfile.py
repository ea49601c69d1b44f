"""Locust scenario: clients that submit, wait, fetch and check pictures, repeat a call, or change their minds.

`python -m loadtests.load` (behind `just load`) runs it; it works under plain `locust -f` too. Beside an
entry per kind of call there are entries of type TIME, from the first byte of the POST: to the 202, to the
last checked picture, to the agreed end of a cancelled generation.
"""

import json
import random
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, between, constant_throughput, events, tag, task
from locust.contrib.fasthttp import ResponseContextManager as Answer
from locust.env import Environment

from loadtests import checks
from loadtests.checks import Accepted, Wrong

GENERATIONS = "/v1/generations"
TIME = "TIME"
MAX_REFUSALS = 20
"""429s in a row, each obeyed, before a client gives up."""


@events.init_command_line_parser.add_listener
def _arguments(parser: Any) -> None:
    add = parser.add_argument  # a group would not know is_secret
    add("--api-key", default="", env_var="DARKROOM_LOAD_KEY", is_secret=True, help="key of a tenant")
    add("--rate", type=float, default=0.0, help="generations a second over all users; 0: as they come")
    add("--deadline", type=float, default=120.0, help="seconds a client waits for its pictures")
    add("--emulated", action="store_true", help="the GPU is emulated: read its marks in each picture")
    add("--summary", default="", help="file for exact figures as JSON")
    add("--load-seed", type=int, default=0, help="seed of all choices; 0: another each time")


class Client(FastHttpUser):
    """One caller of the API: one generation at a time, pictures checked."""

    connection_timeout = 10.0
    network_timeout = 75.0  # a `Prefer: wait` holds a call for up to 60 s
    max_retries = 0
    insecure = False

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        self._rng = random.Random(options.load_seed or None)
        self._authorization = {"Authorization": f"Bearer {options.api_key}"}
        self._deadline_s: float = options.deadline
        self._read_drawn = _reader() if options.emulated else None
        self._inside = False

    def wait_time(self) -> float:
        """Between tasks: what keeps the asked rate, or a short think time."""
        options = self.environment.parsed_options
        if options.rate:
            return float(constant_throughput(options.rate / options.num_users)(self))
        return float(between(0.05, 0.5)(self))

    @tag("poll")
    @task(5)
    def polls(self) -> None:
        """Polls with back-off until the pictures are there."""
        self._one("polling", self._poll)

    @tag("wait")
    @task(4)
    def waits(self) -> None:
        """Lets the server hold the call: `Prefer: wait`."""
        self._one("waiting", self._wait)

    @tag("retry")
    @task(2)
    def repeats(self) -> None:
        """Sends the same call again under its Idempotency-Key, as after a cut connection."""
        self._one("repeating", self._wait, key=uuid.uuid4().hex)

    @tag("cancel")
    @task(1)
    def cancels(self) -> None:
        """Cancels its generation. 409 (too late) is allowed; after 200 the generation must end as cancelled."""
        with self._reported("to cancelled"):
            generation = self._submit(checks.random_body(self._rng), "")
            gevent.sleep(self._rng.choice((0.0, 0.0, 0.1, 0.3)))
            with self._call("POST", f"{GENERATIONS}/{generation.id}/cancel", "POST cancel") as answer:
                if answer.status_code not in (200, 409):
                    raise Wrong(_problem(answer))
                late = answer.status_code == 409
                answer.request_meta["name"] += " (too late)" if late else ""
            status = self._wait(generation)["status"]
            if not late and status != "cancelled":
                raise Wrong(f"cancelled, and then {status}")

    def _one(self, way: str, follow: Callable[[Accepted], dict[str, Any]], *, key: str = "") -> None:
        """A generation from the POST to its last checked picture."""
        asked = checks.random_body(self._rng)
        with self._reported(f"to pictures ({way})"):
            generation = self._submit(asked, key)
            if key:
                self._repeat(generation, key)
            body = follow(generation)
            if body["status"] != "succeeded":
                raise Wrong(f"ended as {body['status']}")
            for index, link in enumerate(checks.picture_links(generation, body)):
                self._fetch(generation, index, link)

    def _submit(self, asked: checks.Body, key: str) -> Accepted:
        """POST until accepted, obeying 429. Raises Wrong."""
        with self._reported("to accepted"):
            for _ in range(MAX_REFUSALS):
                with self._post(asked, key, "POST generation") as answer:
                    pause_s = checks.retry_after(answer.headers) if answer.status_code == 429 else None
                    if pause_s is None:
                        return checks.accepted(asked, answer.status_code, answer.headers, answer.content or b"")
                    answer.request_meta["name"] += " (429, obeyed)"
                gevent.sleep(pause_s)
            raise Wrong(f"refused {MAX_REFUSALS} times with 429")

    def _repeat(self, generation: Accepted, key: str) -> None:
        with self._post(generation.asked, key, "POST generation again") as answer:
            again = checks.accepted(generation.asked, answer.status_code, answer.headers, answer.content or b"")
            if again.id != generation.id:
                raise Wrong("the same Idempotency-Key gave another generation")

    def _poll(self, generation: Accepted) -> dict[str, Any]:
        """The body of the ended generation, by polling with If-None-Match."""
        status, tag, body = "queued", "", dict[str, Any]()
        deadline = time.perf_counter() + self._deadline_s
        for attempt in count():
            headers = {"If-None-Match": tag} if tag else {}
            with self._call("GET", f"{GENERATIONS}/{generation.id}", "GET generation", headers) as answer:
                if answer.status_code not in (200, 304) or (answer.status_code == 304 and not tag):
                    raise Wrong(_problem(answer))
                if answer.status_code == 200:
                    body, tag = checks.parse(answer.content), answer.headers.get("ETag") or ""
                    status = checks.still_forward(status, body)
                pause_s = checks.back_off(min(attempt, 6), checks.retry_after(answer.headers), self._rng)
            if checks.ended(status):
                return body
            if time.perf_counter() + pause_s > deadline:
                break
            gevent.sleep(pause_s)
        raise Wrong(f"still {status} after {self._deadline_s:g} s")

    def _wait(self, generation: Accepted) -> dict[str, Any]:
        """The body of the ended generation, by calls that the server holds."""
        status = "queued"
        deadline = time.perf_counter() + self._deadline_s
        while (left_s := deadline - time.perf_counter()) > 0:
            headers = {"Prefer": f"wait={max(1, min(20, int(left_s)))}"}
            with self._call("GET", f"{GENERATIONS}/{generation.id}", "GET generation, held", headers) as answer:
                if answer.status_code != 200:
                    raise Wrong(_problem(answer))
                body = checks.parse(answer.content)
                status = checks.still_forward(status, body)
                if not checks.ended(status) and not answer.headers.get("Preference-Applied"):
                    raise Wrong("Prefer: wait was not applied")
            if checks.ended(status):
                return body
        raise Wrong(f"still {status} after {self._deadline_s:g} s")

    def _fetch(self, generation: Accepted, index: int, link: str) -> None:
        """One picture through its stable link, as a browser would: the key does not follow a redirect."""
        with self._call("GET", link, "GET picture") as answer:
            target = answer.headers.get("Location")
            if answer.status_code == 200:
                checks.picture(generation, index, answer.content, self._read_drawn)
                return
            if answer.status_code not in (302, 303, 307) or not target:
                raise Wrong(_problem(answer))
        with self._call("GET", target, "GET picture from the store", keyed=False) as answer:
            if answer.status_code != 200:
                raise Wrong(_problem(answer))
            checks.picture(generation, index, answer.content, self._read_drawn)

    def _post(self, asked: checks.Body, key: str, name: str) -> AbstractContextManager[Answer]:
        return self._call("POST", GENERATIONS, name, {"Idempotency-Key": key} if key else {}, json=asked)

    @contextmanager
    def _call(
        self,
        method: str,
        url: str,
        name: str,
        headers: checks.Body | None = None,
        *,
        keyed: bool = True,
        **more: Any,
    ) -> Iterator[Answer]:
        """One HTTP call; a Wrong raised inside makes it a failure, anything else a success."""
        sent = {**(self._authorization if keyed else {}), **(headers or {})}
        options = {"name": name, "headers": sent, "allow_redirects": False, "catch_response": True}
        with self.client.request(method, url, **options, **more) as answer:
            try:
                yield answer
            except Wrong as wrong:
                answer.failure(wrong)
                raise
            answer.success()

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """Reports the block's time as an entry of type TIME. The outermost block stops a Wrong, inner ones do not."""
        begun = time.perf_counter()
        outermost, self._inside = not self._inside, True
        error: Wrong | None = None
        try:
            yield
        except Wrong as wrong:
            error = wrong
        finally:  # a client cut off at the end of the test (GreenletExit) is not reported
            self._inside = not outermost
        self.environment.events.request.fire(
            request_type=TIME,
            name=name,
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=0,
            exception=error,
            context={},
        )
        if error is not None and not outermost:
            raise error


def _problem(answer: Answer) -> str:
    """Why an answer is not what was hoped for, without ids."""
    if answer.status_code == 0:
        return f"no answer ({type(answer.error).__name__})"
    return checks.problem(answer.status_code, answer.content or b"")


def _reader() -> checks.ReadDrawn:
    # Only here: the load test of a real GPU needs no worker package.
    from worker.engines.emulated import read_emulated  # noqa: PLC0415

    return read_emulated


class Recorder:
    """The exact times that Locust would round, and when the test began and ended; written as JSON at the end."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._times: dict[str, array[float]] = {}
        self._span = [0.0, 0.0]
        environment.events.request.add_listener(self._request)
        environment.events.test_start.add_listener(lambda **_: self._mark(0))
        environment.events.test_stopping.add_listener(lambda **_: self._mark(1))
        environment.events.quitting.add_listener(self._write)

    def _mark(self, which: int) -> None:
        self._span[which] = time.perf_counter()

    def _request(self, request_type: str, name: str, response_time: float, exception: object, **_: object) -> None:
        if request_type == TIME and exception is None:
            self._times.setdefault(name, array("d")).append(response_time)

    def _write(self, environment: Environment, **_: object) -> None:
        stats = environment.stats
        figures = {
            "seconds": self._span[1] - self._span[0],
            "times_ms": {name: [round(each, 3) for each in sorted(times)] for name, times in self._times.items()},
            "calls": {
                f"{entry.method} {entry.name}" if entry.method == TIME else entry.name: [
                    entry.num_requests,
                    entry.num_failures,
                ]
                for entry in stats.entries.values()
            },
            "errors": [[each.occurrences, each.name, str(each.error)] for each in stats.errors.values()],
            "exceptions": [str(each["msg"]) for each in environment.runner.exceptions.values()],
        }
        Path(environment.parsed_options.summary).write_text(json.dumps(figures))


@events.init.add_listener
def _record(environment: Environment, **_: object) -> None:
    if environment.parsed_options and environment.parsed_options.summary:
        Recorder(environment)
