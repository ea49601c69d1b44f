"""What `fault_cloud.FaultyCloud` can do to calls: throttle, lose, cut, half-do, multiply, forget."""

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from tests.fault_cloud import Action, Call, Reply

_SQS = {"Content-Type": "application/x-amz-json-1.0"}
_XML = {"Content-Type": "application/xml"}
Entry = dict[str, Any]


def refused(status: int = 503, code: str = "SlowDown") -> Action:
    """An error, and the operation has not happened."""

    async def act(call: Call) -> Reply:
        return error(call, status, code)

    return act


def error(call: Call, status: int, code: str) -> Reply:
    """An error in the words of the service that was called."""
    if "X-Amz-Target" in call.headers:
        return Reply(status=status, headers=_SQS, body=json.dumps({"__type": code, "message": "planted"}).encode())
    body = b"" if call.method == "HEAD" else _error_body(code)
    return Reply(status=status, headers=_XML, body=body)


def error_in_200(code: str = "InternalError") -> Action:
    """CopyObject's own trap: it has not happened, the status is 200, the body says so."""

    async def act(call: Call) -> Reply:
        return Reply(status=200, headers=_XML, body=_error_body(code))

    return act


def _error_body(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>planted</Message></Error>'.encode()


async def empty(call: Call) -> Reply:
    """ReceiveMessage by a queue, or a proxy before it, that does not wait for a message."""
    return Reply(status=200, headers=_SQS, body=b"{}")


def dated(offset_s: float) -> Action:
    """Forwards the call, and dates the answer as a service whose clock is `offset_s` ahead of ours."""

    async def act(call: Call) -> Reply:
        found = await call.forward()
        kept = {name: value for name, value in found.headers.items() if name.lower() != "date"}
        return replace(found, headers={**kept, "Date": formatdate(time.time() + offset_s, usegmt=True)})

    return act


async def lost(call: Call) -> None:
    """Nothing happens, and the connection is reset."""


async def answer_lost(call: Call) -> None:
    """The operation takes effect; the connection is reset before its answer."""
    await call.forward()


async def answer_cut(call: Call) -> Reply:
    """The operation takes effect; a third of the answer arrives, under the length of the whole."""
    found = await call.forward()
    return Reply(status=found.status, headers=found.headers, body=found.body or b" " * 300, cut=0.3)


def without_header(name: str) -> Action:
    """A service that does not know a header and ignores it."""

    async def act(call: Call) -> Reply:
        return await call.forward(headers={k: v for k, v in call.headers.items() if k.lower() != name})

    return act


def not_implemented_with(name: str) -> Action:
    """A service that refuses a header it does not know."""

    async def act(call: Call) -> Reply:
        if any(each.lower() == name for each in call.headers):
            return error(call, 501, "NotImplemented")
        return await call.forward()

    return act


async def half_stored(call: Call) -> Reply:
    """A store that keeps 30 % of an upload, loses its digest, and says that all is well."""
    digests = ("x-amz-checksum", "content-md5", "x-amz-meta-sha256", "x-amz-sdk-checksum", "x-amz-content-sha256")
    headers = {k: v for k, v in call.headers.items() if not k.lower().startswith(digests)}
    return await call.forward(headers=headers, body=call.body[: len(call.body) * 3 // 10])


async def half_copied(call: Call) -> Reply:
    """A copy that stores a few bytes with the digest of the whole, and is reported as complete."""
    done = await call.forward()
    await _overwrite(call, call.path)
    return done


def altered_first(copy: Action) -> Action:
    """CopyObject, just before which another writer overwrites the source."""

    async def act(call: Call) -> Reply | None:
        await _overwrite(call, "/" + _header(call, "x-amz-copy-source").lstrip("/"))
        return await copy(call)

    return act


async def untouched(call: Call) -> Reply:
    """Forwards the call unchanged."""
    return await call.forward()


def _header(call: Call, name: str) -> str:
    return next(value for each, value in call.headers.items() if each.lower() == name)


async def _overwrite(call: Call, path: str) -> None:
    """Overwrites the object at `path` with a few bytes, under the metadata of the call."""
    kept = {k: v for k, v in call.headers.items() if not k.lower().startswith(("x-amz-copy", "x-amz-checksum"))}
    done = await call.forward(method="PUT", path=path, headers=kept, body=b"half")
    assert done.status == 200, done


async def without_digest(call: Call) -> Reply:
    """HEAD of a store that keeps no digest."""
    found = await call.forward()
    headers = {k: v for k, v in found.headers.items() if "sha256" not in k.lower()}
    return Reply(status=found.status, headers=headers, body=found.body)


def some_failed(count: int, code: str = "InternalError") -> Action:
    """A batch of which `count` entries are not done: they are Failed in a 200."""

    async def act(call: Call) -> Reply:
        body = call.json()
        entries: list[Entry] = body["Entries"]
        spared = [each["Id"] for each in call.draw.sample(entries, min(count, len(entries)))]
        return await _part(call, body, spared, code)

    return act


def receipts_invalid(call_code: str = "ReceiptHandleIsInvalid") -> Action:
    """Nothing is deleted: every receipt is said to be invalid."""

    async def act(call: Call) -> Reply:
        body = call.json()
        return await _part(call, body, [each["Id"] for each in body["Entries"]], call_code, fault=True)

    return act


async def _part(call: Call, body: Mapping[str, Any], spared: Sequence[str], code: str, *, fault: bool = False) -> Reply:
    kept = [each for each in body["Entries"] if each["Id"] not in spared]
    answer: dict[str, Any] = {"Successful": []}
    if kept:
        answer = (await call.ask({**body, "Entries": kept})).json()
    failed = [{"Id": each, "Code": code, "Message": "planted", "SenderFault": fault} for each in spared]
    answer["Failed"] = [*answer.get("Failed", []), *failed]
    return Reply(status=200, headers=_SQS, body=json.dumps(answer).encode())


async def said_done(call: Call) -> Reply:
    """A batch that is answered as done and forgotten: a heartbeat that has no effect."""
    done = [{"Id": each["Id"]} for each in call.json()["Entries"]]
    return Reply(status=200, headers=_SQS, body=json.dumps({"Successful": done, "Failed": []}).encode())


def multiplied(*, most: int, delay_s: int) -> Action:
    """SendMessageBatch: each message reaches the queue 1 to `most` times, copies shuffled and each delayed."""

    async def act(call: Call) -> Reply:
        body = call.json()
        answer = (await call.ask(body)).json()
        copies = [each for each in body["Entries"] for _ in range(call.draw.randrange(most))]
        call.draw.shuffle(copies)
        for start in range(0, len(copies), 10):
            late = [
                {**each, "Id": str(number), "DelaySeconds": call.draw.randint(0, delay_s)}
                for number, each in enumerate(copies[start : start + 10])
            ]
            await call.ask({**body, "Entries": late})
        return Reply(status=200, headers=_SQS, body=json.dumps(answer).encode())

    return act


class Replayed:
    """ReceiveMessage: what was delivered once is delivered again, receipt and all, beside what is new."""

    def __init__(self) -> None:
        self._past: list[Entry] = []
        self.again = 0

    async def __call__(self, call: Call) -> Reply:
        found = await call.forward()
        answer = found.json()
        new: list[Entry] = answer.get("Messages", [])
        room = call.json().get("MaxNumberOfMessages", 1) - len(new)
        old = call.draw.sample(self._past, min(room, len(self._past), 3)) if new else []
        self.again += len(old)
        self._past = [*self._past, *new][-50:]
        mixed = [*new, *old]
        call.draw.shuffle(mixed)
        return Reply(
            status=found.status, headers=found.headers, body=json.dumps({**answer, "Messages": mixed}).encode()
        )


def bodies(call: Call) -> list[bytes]:
    """The message bodies of a SendMessageBatch."""
    return [base64.b64decode(each["MessageBody"]) for each in call.json()["Entries"]]


def rewritten(change: Callable[[bytes], bytes]) -> Action:
    """SendMessageBatch with each body changed on its way: `change` takes bytes and gives bytes."""

    async def act(call: Call) -> Reply:
        body = call.json()
        for each in body["Entries"]:
            each["MessageBody"] = base64.b64encode(change(base64.b64decode(each["MessageBody"]))).decode()
        return await call.ask(body)

    return act
