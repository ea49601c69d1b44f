"""Direct access to the emulator's queues and bucket, past the fault proxy and all of our own code."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.layout import aws_environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

QUEUES = ("darkroom-jobs", "darkroom-replies")
_PUBLIC = "darkroom-public"


class Cloud:
    """The emulator at a URL."""

    def __init__(self, url: str, secret: str) -> None:
        env: Mapping[str, str] = aws_environment(url, secret)
        settings: dict[str, Any] = {
            "endpoint_url": url,
            "region_name": env["AWS_DEFAULT_REGION"],
            "aws_access_key_id": env["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
            "config": Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=30,
                retries={"total_max_attempts": 1},
            ),
        }
        self._sqs: SQSClient = boto3.client("sqs", **settings)
        self._s3: S3Client = boto3.client("s3", **settings)

    async def purge(self) -> bool:
        """Deletes all messages of the jobs queue; False if the emulator does not answer."""
        return await asyncio.to_thread(self._purge)

    async def waiting(self) -> int | None:
        """Messages on both queues, those in flight included; None if the emulator does not answer."""
        return await asyncio.to_thread(self._waiting)

    def public(self) -> Iterator[tuple[str, int]]:
        """Key and size of every object in the public bucket."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=_PUBLIC):
            for item in page.get("Contents", []):
                if not item["Key"].startswith("_darkroom/"):  # the note of which log this is
                    yield item["Key"], item["Size"]

    def close(self) -> None:
        """Close the connections."""
        self._sqs.close()
        self._s3.close()

    def _purge(self) -> bool:
        try:
            self._sqs.purge_queue(QueueUrl=self._sqs.get_queue_url(QueueName=QUEUES[0])["QueueUrl"])
        except (BotoCoreError, ClientError):
            return False
        return True

    def _waiting(self) -> int | None:
        total = 0
        try:
            for name in QUEUES:
                url = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
                found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
                total += int(found["ApproximateNumberOfMessages"])
                total += int(found["ApproximateNumberOfMessagesNotVisible"])
        except (BotoCoreError, ClientError):
            return None
        return total
