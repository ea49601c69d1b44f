"""One S3 bucket: bytes under keys, nothing of what they mean.

Services see this class through Protocols of their own. Each object carries its SHA-256 twice: as the checksum that
the store verifies on upload, and as metadata for stores that keep no checksum.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from infra.aws import calling, code, status, translated
from infra.retry import Permanent, Retryable

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

_log = structlog.get_logger()
_SHA256 = "sha256"
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_NOT_IMPLEMENTED = 501
_MAX_DELETE = 1_000
_PAGE = 1_000
_CACHE = "private, max-age=31536000, immutable"  # a published key contains the content's SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """What the store says of an object. `sha256` is None for an object that was stored without one."""

    key: str
    size_bytes: int
    sha256: bytes | None
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPiece:
    """A byte range of an object of `total_bytes`. `tag` is its ETag, which changes with the content; `sha256` is that
    of the whole object, as in StoredObject.
    """

    data: bytes
    total_bytes: int
    tag: str
    sha256: bytes | None


class S3Bucket:
    """The bucket `name`. Its calls raise Retryable and Permanent.

    `links` signs links where clients reach the store under another address.
    """

    def __init__(self, client: "S3Client", name: str, *, links: "S3Client | None" = None) -> None:
        self._client = client
        self._links = links if links is not None else client
        self._name = name
        self._conditional_copies = True  # until the store answers that it does not support them

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        """Stores `data`. Raises Permanent if the store computes another SHA-256 than `sha256`."""
        async with calling(f"put {self._name}"):
            await self._client.put_object(
                Bucket=self._name,
                Key=key,
                Body=data,
                ContentType=content_type,
                ChecksumSHA256=base64.b64encode(sha256).decode("ascii"),
                Metadata={_SHA256: sha256.hex()},
            )

    async def get(self, key: str) -> bytes | None:
        """The object's bytes, None where there is none."""
        async with calling(f"get {self._name}"):
            try:
                answer = await self._client.get_object(Bucket=self._name, Key=key)
            except ClientError as error:
                if code(error) in _MISSING:
                    return None
                raise
            async with answer["Body"] as stream:
                return await stream.read()

    async def read(self, key: str, *, first: int, last: int, tag: str = "") -> StoredPiece | None:
        """The bytes `first` to `last`, both included, in one call; None where there is no object.

        With the `tag` of an earlier piece the content must be the same. Raises Retryable if it has changed, Permanent
        for a range beyond the object's end and for a store that ignores the range and sends more.
        """
        length = last - first + 1
        condition: dict[str, Any] = {"IfMatch": tag} if tag else {}
        async with calling(f"read {self._name}"):
            try:
                answer = await self._client.get_object(
                    Bucket=self._name, Key=key, Range=f"bytes={first}-{last}", **condition
                )
            except ClientError as error:
                if code(error) in _MISSING:
                    return None
                raise
            async with answer["Body"] as stream:
                if answer["ContentLength"] > length:
                    raise Permanent(f"read {self._name}: the store does not support ranges")
                data = await stream.read()
            if tag and answer["ETag"] != tag:
                raise Retryable(f"read {self._name}: the object has changed")
            if len(data) != answer["ContentLength"]:
                raise Retryable(f"read {self._name}: the answer was cut short")
            return StoredPiece(
                data=data, total_bytes=_total(answer), tag=answer["ETag"], sha256=_stored(key, answer).sha256
            )

    async def head(self, key: str) -> StoredObject | None:
        """What the store knows of the object, None where there is none."""
        async with calling(f"head {self._name}"):
            answer = await self._head(key)
            return None if answer is None else _stored(key, answer)

    async def copy_from(self, source: "S3Bucket", source_key: str, key: str, *, content_type: str) -> bool:
        """Copies inside the store and returns once the copy is complete; False if the source is missing.

        Raises Retryable if the source is overwritten meanwhile. A store without conditional copies does not notice and
        copies the new content, so check the copy.
        """
        async with calling(f"copy to {self._name}"):
            found = await source._head(source_key)  # noqa: SLF001  (of the same class)
            if found is None:
                return False
            wanted: dict[str, Any] = {
                "Bucket": self._name,
                "Key": key,
                "CopySource": {"Bucket": source._name, "Key": source_key},  # noqa: SLF001
                "MetadataDirective": "REPLACE",
                "Metadata": found.get("Metadata", {}),
                "ContentType": content_type,
                "CacheControl": _CACHE,
                "ChecksumAlgorithm": "SHA256",
            }
            try:
                answer = await self._copy(wanted, found["ETag"])
            except ClientError as error:
                if code(error) in _MISSING:  # deleted since
                    return False
                if status(error) == 200:  # a copy may fail inside a 200
                    raise Retryable(f"copy to {self._name}: {code(error)}") from error
                raise
        if not answer.get("CopyObjectResult", {}).get("ETag"):
            raise Retryable(f"copy to {self._name}: the answer names no object")
        return True

    async def _copy(self, wanted: dict[str, Any], etag: str) -> Any:
        if self._conditional_copies:
            try:
                return await self._client.copy_object(**wanted, CopySourceIfMatch=etag)
            except ClientError as error:
                if status(error) != _NOT_IMPLEMENTED:
                    raise
                _log.warning("bucket.no_conditional_copies", bucket=self._name)
                self._conditional_copies = False
        return await self._client.copy_object(**wanted)

    async def delete(self, keys: Sequence[str]) -> None:
        """Deletes those of `keys` that exist. Raises Retryable where the store kept one."""
        for start in range(0, len(keys), _MAX_DELETE):
            objects: list[Any] = [{"Key": key} for key in keys[start : start + _MAX_DELETE]]
            async with calling(f"delete {self._name}"):
                answer = await self._client.delete_objects(
                    Bucket=self._name, Delete={"Objects": objects, "Quiet": True}
                )
            if answer.get("Errors"):
                raise Retryable(f"delete {self._name}: {answer['Errors'][0].get('Code', 'Unknown')}")

    async def link(self, key: str, *, expires_s: int) -> str:
        """A presigned GET link, valid for `expires_s` without credentials. Signed without a call. Never log it."""
        with translated(f"link {self._name}"):
            return await self._links.generate_presigned_url(
                "get_object", Params={"Bucket": self._name, "Key": key}, ExpiresIn=expires_s
            )

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """The keys that begin with `prefix`, in order."""
        more: dict[str, Any] = {}
        while True:
            async with calling(f"list {self._name}"):
                page = await self._client.list_objects_v2(Bucket=self._name, Prefix=prefix, MaxKeys=_PAGE, **more)
                found = [each["Key"] for each in page.get("Contents", [])]
                more = {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else {}
            for key in found:
                yield key
            if not more:
                return

    async def ensure(self, *, expire_days: int = 0) -> None:
        """Creates the bucket if it is missing; its objects then expire after `expire_days` (0: never).

        An existing bucket is left as it is. An emulator stores the expiry rule but does not apply it.
        """
        async with calling(f"ensure {self._name}"):
            try:
                await self._client.head_bucket(Bucket=self._name)
            except ClientError as error:
                if code(error) not in {*_MISSING, "NoSuchBucket"}:
                    raise
            else:
                return
            await self._create()
            if expire_days:
                await self._expire(expire_days)

    async def _create(self) -> None:
        region = self._client.meta.region_name
        extra: Any = {}
        if region != "us-east-1":  # S3 refuses this one as a LocationConstraint: it is the default
            extra = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            await self._client.create_bucket(Bucket=self._name, **extra)
        except ClientError as error:
            if code(error) == "BucketAlreadyExists":
                raise Permanent(f"bucket name {self._name} belongs to another account") from error
            if code(error) != "BucketAlreadyOwnedByYou":
                raise

    async def _expire(self, days: int) -> None:
        rule: Any = {"ID": "expire", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": days}}
        try:
            await self._client.put_bucket_lifecycle_configuration(
                Bucket=self._name, LifecycleConfiguration={"Rules": [rule]}
            )
        except ClientError as error:  # a store without such rules serves all the same
            _log.warning("bucket.keeps_everything", bucket=self._name, reason=code(error))

    async def _head(self, key: str) -> Any:
        """head_object's answer, None where there is no object."""
        try:
            return await self._client.head_object(Bucket=self._name, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            if code(error) in _MISSING:
                return None
            raise


def _total(answer: Any) -> int:
    """The size of the whole object, of an answer that may hold a part of it."""
    _, slash, total = answer.get("ContentRange", "").rpartition("/")
    return int(total) if slash else int(answer["ContentLength"])


def _stored(key: str, answer: Any) -> StoredObject:
    checksum, written = answer.get("ChecksumSHA256", ""), answer.get("Metadata", {}).get(_SHA256, "")
    sha256 = None
    if checksum and "-" not in checksum:  # "-" marks the composite checksum of a multipart upload
        sha256 = base64.b64decode(checksum)
    elif written:
        sha256 = bytes.fromhex(written)
    return StoredObject(
        key=key,
        size_bytes=answer["ContentLength"],
        sha256=sha256,
        content_type=answer.get("ContentType", "application/octet-stream"),
    )
