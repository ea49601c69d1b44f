"""Direct access to the queues and buckets of a stack, past all of our own code."""

import base64
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from tests.emulators import aws_environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

JOBS, REPLIES, DEAD = "darkroom-jobs", "darkroom-replies", "darkroom-dead"
TEMP, PUBLIC = "darkroom-temp", "darkroom-public"
LOG_NOTES = "_darkroom/"


class Cloud:
    """The emulator at a port. Connects when first used."""

    def __init__(self, port: int) -> None:
        env = aws_environment(f"http://127.0.0.1:{port}")
        self._settings: dict[str, Any] = {
            "endpoint_url": env["AWS_ENDPOINT_URL"],
            "region_name": env["AWS_DEFAULT_REGION"],
            "aws_access_key_id": env["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
            "config": Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        }

    @cached_property
    def sqs(self) -> "SQSClient":
        client: SQSClient = boto3.client("sqs", **self._settings)
        return client

    @cached_property
    def s3(self) -> "S3Client":
        client: S3Client = boto3.client("s3", **self._settings)
        return client

    def queue(self, name: str) -> str:
        """The queue's URL."""
        return self.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def waiting(self, name: str) -> int:
        """Messages on a queue, those in flight included."""
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue(name), AttributeNames=["All"])
        found = answer["Attributes"]
        return int(found["ApproximateNumberOfMessages"]) + int(found["ApproximateNumberOfMessagesNotVisible"])

    def purge(self, name: str) -> None:
        self.sqs.purge_queue(QueueUrl=self.queue(name))

    def put(self, name: str, body: bytes | str) -> None:
        """Put a message on a queue: bytes as base64, as our services do; text as it is, as a stranger might."""
        text = base64.b64encode(body).decode("ascii") if isinstance(body, bytes) else body
        self.sqs.send_message(QueueUrl=self.queue(name), MessageBody=text)

    def take(self, name: str, *, hidden_s: int) -> list[bytes]:
        """Receive up to ten messages and hide them; bodies only."""
        answer = self.sqs.receive_message(
            QueueUrl=self.queue(name), MaxNumberOfMessages=10, VisibilityTimeout=hidden_s, WaitTimeSeconds=1
        )
        return [base64.b64decode(message["Body"]) for message in answer.get("Messages", [])]

    def objects(self, bucket: str) -> set[str]:
        """The keys in a bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}

    def close(self) -> None:
        """Close what was opened: an unclosed socket is a warning, and warnings are errors."""
        for name in ("sqs", "s3"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()
