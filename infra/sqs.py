"""One SQS queue: bodies and attributes, nothing of what they mean.

Services see this class through Protocols of their own. Bodies travel as base64 text; a body that is not base64 is
handed on as it is, so that the reader can quarantine it. A missing queue is Retryable: core makes it again.
"""

import asyncio
import base64
import binascii
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from infra.aws import CALL_DEADLINE_S, MISSING_QUEUE, assert_readable, calling, code
from infra.retry import Missing, Retryable

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

_log = structlog.get_logger()
MAX_ENTRIES = 10
MAX_BATCH_BYTES = 1_048_576
# What the services and emulators say of a receipt that no longer names a message in flight.
_STALE = frozenset(
    {
        *("ReceiptHandleIsInvalid", "MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight"),
        *("InvalidParameterValue", "InvalidParameter", "AWS.SimpleQueueService.ReceiptHandleIsInvalid"),
    }
)
_EARLY = 0.2
"""If an empty answer comes early by more than this share of the requested wait, a pause follows."""
_EMPTY_PAUSE_S = 3.5
"""With this pause a worker and core's two reply consumers together make 0.9 calls a second."""
_DEAD_LETTER_RETENTION_S = 14 * 86_400  # a dead letter keeps its original enqueue time, so it must outlive the source
_RETENTION_S = 4 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One delivery. `receipt` names this delivery only; `receive_count` counts deliveries, from 1."""

    message_id: str
    receipt: str
    body: bytes
    attributes: Mapping[str, str]
    receive_count: int
    sent_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to send. At most ten attributes; empty values are left out."""

    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Approximate numbers of messages."""

    visible: int
    in_flight: int


class SqsQueue:
    """A queue by its name. The URL is looked up at the first call, and again after the queue went missing."""

    def __init__(self, client: "SQSClient", name: str) -> None:
        self._client = client
        self._name = name
        self._url: str | None = None

    async def send(self, messages: Sequence[Outgoing]) -> list[bool]:
        """For each message, whether the queue accepted it.

        Raises Retryable if a call fails before any message was accepted. If one fails later, its messages and those
        after them count as not accepted.
        """
        accepted: list[bool] = []
        for batch in _batches([_entry(message) for message in messages]):
            try:
                accepted += await self._send_batch(batch)
            except Retryable:
                if not any(accepted):
                    raise
                return accepted + [False] * (len(messages) - len(accepted))
        return accepted

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> list[Received]:
        """Up to `limit` (at most 10) messages, hidden for `visibility_s`; waits up to `wait_s` (at most 20) for one."""
        began_s = asyncio.get_running_loop().time()
        async with self._calling("receive", deadline_s=wait_s + CALL_DEADLINE_S) as url:
            answer = await self._client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(limit, MAX_ENTRIES),
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )
            assert_readable(answer)  # botocore reads an HTML page as an empty queue
            received = [_received(message) for message in answer.get("Messages", [])]
        if not received:
            await self._rest(wait_s - (asyncio.get_running_loop().time() - began_s), wait_s)
        return received

    @staticmethod
    async def _rest(left_s: float, wait_s: float) -> None:
        """Pauses after an early empty answer. Without it, a queue or proxy that does not hold long polls would be asked
        hundreds of times a second.
        """
        if left_s > wait_s * _EARLY:
            pause_s = _EMPTY_PAUSE_S * random.uniform(1 - _EARLY, 1 + _EARLY)  # noqa: S311
            await asyncio.sleep(min(left_s, pause_s))

    async def delete(self, receipts: Sequence[str]) -> list[bool]:
        """For each receipt, whether its delivery is gone. A receipt that is no longer valid counts as gone."""
        gone: list[bool] = []
        for start in range(0, len(receipts), MAX_ENTRIES):
            entries: list[Any] = [
                {"Id": str(number), "ReceiptHandle": receipt}
                for number, receipt in enumerate(receipts[start : start + MAX_ENTRIES])
            ]
            async with self._calling("delete") as url:
                answer = await self._client.delete_message_batch(QueueUrl=url, Entries=entries)
                assert_readable(answer)
                refused = {each["Id"]: each.get("Code", "") for each in answer.get("Failed", [])}
            failed = {entry for entry, reason in refused.items() if reason not in _STALE}
            if len(refused) > len(failed):  # deleted before, or redelivered since and then handled again
                _log.info("delete.stale_receipts", queue=self._name, receipts=len(refused) - len(failed))
            gone += [entry["Id"] not in failed for entry in entries]
        return gone

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> list[bool]:
        """Hides each message for `visibility_s` from now (0: visible at once). False: the receipt is no longer valid.

        Raises Retryable if the queue failed at some entries, but only after it has tried all of them.
        """
        valid: list[bool] = []
        trouble = 0
        for start in range(0, len(receipts), MAX_ENTRIES):
            entries: list[Any] = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": visibility_s}
                for number, receipt in enumerate(receipts[start : start + MAX_ENTRIES])
            ]
            async with self._calling("extend") as url:
                answer = await self._client.change_message_visibility_batch(QueueUrl=url, Entries=entries)
                assert_readable(answer)
                failed = {each["Id"]: each.get("Code", "") for each in answer.get("Failed", [])}
            trouble += sum(reason not in _STALE for reason in failed.values())
            valid += [entry["Id"] not in failed for entry in entries]
        if trouble:
            raise Retryable(f"extend: {trouble} of {len(receipts)} entries failed")
        return valid

    async def depth(self) -> Depth:
        """How many messages wait and how many are in flight."""
        async with self._calling("depth") as url:
            answer = await self._client.get_queue_attributes(
                QueueUrl=url,
                AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
            )
            found = answer["Attributes"]
            return Depth(
                visible=int(found["ApproximateNumberOfMessages"]),
                in_flight=int(found["ApproximateNumberOfMessagesNotVisible"]),
            )

    async def ensure(self, *, visibility_s: int, dead_letter: str | None = None, max_receives: int = 30) -> None:
        """Creates the queue if it is missing, and for it the dead-letter queue `dead_letter` if that is missing too.

        An existing queue is left as it is, whatever its dead-letter queue. After
        `max_receives` deliveries a message moves to the dead-letter queue.
        """
        self._url = None
        try:
            async with self._calling("look up"):
                return
        except Missing:
            pass
        attributes: dict[Any, str] = {
            "VisibilityTimeout": str(visibility_s),
            "MessageRetentionPeriod": str(_RETENTION_S),
        }
        if dead_letter is not None:
            policy = {"deadLetterTargetArn": await self._dead_letter_arn(dead_letter), "maxReceiveCount": max_receives}
            attributes["RedrivePolicy"] = json.dumps(policy)
        async with calling("create queue"):
            self._url = (await self._client.create_queue(QueueName=self._name, Attributes=attributes))["QueueUrl"]

    async def _dead_letter_arn(self, name: str) -> str:
        async with calling("create dead-letter queue"):
            try:
                url = (await self._client.get_queue_url(QueueName=name))["QueueUrl"]
            except ClientError as error:
                if code(error) not in MISSING_QUEUE:
                    raise
                attributes: dict[Any, str] = {"MessageRetentionPeriod": str(_DEAD_LETTER_RETENTION_S)}
                url = (await self._client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
            answer = await self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            return answer["Attributes"]["QueueArn"]

    async def _send_batch(self, batch: Sequence[Mapping[str, Any]]) -> list[bool]:
        entries: list[Any] = [{"Id": str(number), **entry} for number, entry in enumerate(batch)]
        async with self._calling("send") as url:
            answer = await self._client.send_message_batch(QueueUrl=url, Entries=entries)
            sent = {each["Id"] for each in answer.get("Successful", [])}
        return [entry["Id"] in sent for entry in entries]

    @asynccontextmanager
    async def _calling(self, action: str, *, deadline_s: float = CALL_DEADLINE_S) -> AsyncIterator[str]:
        """The queue's URL; forgets it when the queue turns out to be missing."""
        async with calling(f"{action} {self._name}", deadline_s=deadline_s):
            try:
                if self._url is None:
                    self._url = (await self._client.get_queue_url(QueueName=self._name))["QueueUrl"]
                yield self._url
            except ClientError as error:
                if code(error) in MISSING_QUEUE:
                    self._url = None
                raise


def _entry(message: Outgoing) -> dict[str, Any]:
    attributes = {
        name: {"DataType": "String", "StringValue": value} for name, value in message.attributes.items() if value
    }
    body = base64.b64encode(message.body).decode("ascii")
    return {"MessageBody": body, "MessageAttributes": attributes}


def _batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        own = _wire_bytes(entry)
        if batch and (len(batch) == MAX_ENTRIES or size + own > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += own
    if batch:
        yield batch


def _wire_bytes(entry: Mapping[str, Any]) -> int:
    """What SQS counts: the body, and name, type and value of each attribute."""
    attributes = entry["MessageAttributes"].items()
    return len(entry["MessageBody"]) + sum(
        len(name.encode()) + len("String") + len(value["StringValue"].encode()) for name, value in attributes
    )


def _received(message: Any) -> Received:
    system = message.get("Attributes", {})
    return Received(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=_body(message.get("Body", "")),
        attributes={
            name: value["StringValue"]
            for name, value in message.get("MessageAttributes", {}).items()
            if "StringValue" in value
        },
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at_ms=int(system.get("SentTimestamp", 0)),
    )


def _body(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode("utf-8", "surrogatepass")
