"""What every bucket must do, whoever stands behind it: the fake, and the adapter over two emulators of S3.

Found where the emulators differ from AWS, which verifies ChecksumSHA256 on upload and returns it from HeadObject:
- ministack verifies it and returns it, and a copy keeps it;
- moto stores what it is told, so a wrong digest is noticed only by whoever reads the object; it checks no signature
  of a link either.
"""

import urllib.error
import urllib.request
from hashlib import sha256

import pytest

from infra.retry import Missing, Permanent, Retryable
from infra.s3 import S3Bucket, StoredObject
from infra.skew import AGREEING
from tests.conformance.conftest import Backend
from tests.fakes import FakeBucket

Bucket = S3Bucket | FakeBucket
pytestmark = pytest.mark.asyncio
PICTURE = b"\x89PNG" + bytes(range(256)) * 40
DIGEST = sha256(PICTURE).digest()


async def made(backend: Backend) -> Bucket:
    bucket = backend.bucket()
    await bucket.ensure()
    return bucket


async def put(bucket: Bucket, key: str, data: bytes = PICTURE) -> None:
    await bucket.put(key, data, content_type="image/png", sha256=sha256(data).digest())


async def copy(target: Bucket, source: Bucket, source_key: str, key: str) -> bool:
    return await target.copy_from(source, source_key, key, content_type="image/webp")  # type: ignore[arg-type]


async def test_what_is_put_can_be_read(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "temp/gen_1/0/att_1")
    assert await bucket.get("temp/gen_1/0/att_1") == PICTURE
    assert await bucket.head("temp/gen_1/0/att_1") == StoredObject(
        key="temp/gen_1/0/att_1", size_bytes=len(PICTURE), sha256=DIGEST, content_type="image/png"
    )


async def test_an_empty_object_is_an_object(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "empty", b"")
    assert await bucket.get("empty") == b""


async def test_missing_objects_are_none(backend: Backend) -> None:
    bucket = await made(backend)
    assert await bucket.get("nothing") is None
    assert await bucket.head("nothing") is None


async def test_a_wrong_digest_is_refused_and_stores_nothing(backend: Backend) -> None:
    bucket = await made(backend)
    if backend.name == "moto":  # stores it; see above
        return
    with pytest.raises(Permanent):
        await bucket.put("k", PICTURE, content_type="image/png", sha256=sha256(b"other").digest())
    assert await bucket.head("k") is None


async def test_a_second_put_replaces(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "k", b"old")
    await put(bucket, "k", b"new")
    assert await bucket.get("k") == b"new"
    found = await bucket.head("k")
    assert found is not None
    assert found.sha256 == sha256(b"new").digest()


async def test_a_copy_keeps_bytes_and_digest_and_takes_the_given_type(backend: Backend) -> None:
    source, target = await made(backend), await made(backend)
    await put(source, "temp/ü b/1")
    assert await copy(target, source, "temp/ü b/1", "token/abc.webp")
    assert await target.get("token/abc.webp") == PICTURE
    found = await target.head("token/abc.webp")
    assert found is not None
    assert (found.sha256, found.size_bytes, found.content_type) == (DIGEST, len(PICTURE), "image/webp")


async def test_a_copy_may_be_repeated(backend: Backend) -> None:
    source, target = await made(backend), await made(backend)
    await put(source, "a")
    assert await copy(target, source, "a", "b")
    assert await copy(target, source, "a", "b")
    assert await target.get("b") == PICTURE


async def test_a_copy_of_nothing_says_so(backend: Backend) -> None:
    source, target = await made(backend), await made(backend)
    assert not await copy(target, source, "gone", "b")
    assert await target.head("b") is None


async def test_delete_takes_any_keys(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "a")
    await put(bucket, "b")
    await bucket.delete(["a", "never-there"])
    await bucket.delete([])
    assert await bucket.get("a") is None
    assert await bucket.get("b") == PICTURE


async def test_keys_lists_a_prefix_in_order(backend: Backend) -> None:
    bucket = await made(backend)
    for key in ("x/2", "x/1", "y/1", "x/10"):
        await put(bucket, key, b"1")
    assert [key async for key in bucket.keys("x/")] == ["x/1", "x/10", "x/2"]
    assert [key async for key in bucket.keys("z/")] == []


async def test_ensure_twice_keeps_what_is_there(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "a")
    await bucket.ensure()
    assert await bucket.get("a") == PICTURE


async def test_objects_of_a_temporary_bucket_expire(backend: Backend) -> None:
    bucket = backend.bucket()
    await bucket.ensure(expire_days=14)
    if isinstance(bucket, S3Bucket):  # neither emulator acts on the rule
        answer = await bucket._client.get_bucket_lifecycle_configuration(Bucket=bucket._name)
        [rule] = answer["Rules"]
        assert (rule["Status"], rule.get("Expiration", {}).get("Days")) == ("Enabled", 14)
    await put(bucket, "a")
    assert await bucket.get("a") == PICTURE


async def test_a_missing_bucket_is_told_from_a_missing_object(backend: Backend) -> None:
    """By all but HEAD, whose answer has no body."""
    bucket = backend.bucket()
    if isinstance(bucket, S3Bucket):
        with pytest.raises(Missing):
            await put(bucket, "a")
        with pytest.raises(Missing):
            await bucket.get("a")
        source = await made(backend)
        await put(source, "a")
        with pytest.raises(Missing):
            await bucket.copy_from(source, "a", "b", content_type="image/png")  # type: ignore[arg-type]


async def test_every_answer_tells_the_stores_time(backend: Backend) -> None:
    bucket = await made(backend)
    for _ in range(AGREEING):
        assert await bucket.head("none") is None
    if isinstance(bucket, S3Bucket):
        assert backend.skew.ahead_s != 0
        assert abs(backend.skew.ahead_s) < 30
    assert backend.skew.reasons() == []


async def test_a_link_opens_without_credentials_and_not_when_altered(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "token/a b.png")
    link = await bucket.link("token/a b.png", expires_s=60)
    if isinstance(bucket, FakeBucket):
        assert "expires=60" in link
        return
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(link, timeout=10) as answer:
        assert answer.read() == PICTURE
        assert answer.headers["Content-Type"] == "image/png"
    if backend.name != "moto":
        with pytest.raises(urllib.error.HTTPError, match="403"):
            opener.open(link.replace("X-Amz-Signature=", "X-Amz-Signature=0"), timeout=10)


async def test_the_digest_survives_without_the_stores_checksum(backend: Backend) -> None:
    """An object that somebody else put has a digest only if the store computed one; ours has it twice."""
    bucket = await made(backend)
    if isinstance(bucket, S3Bucket):
        await bucket._client.put_object(Bucket=bucket._name, Key="foreign", Body=b"x")
        foreign = await bucket.head("foreign")
        assert foreign is not None
        assert foreign.sha256 in (None, sha256(b"x").digest())
        await bucket._client.put_object(Bucket=bucket._name, Key="plain", Body=b"x", Metadata={"sha256": DIGEST.hex()})
        plain = await bucket.head("plain")
        assert plain is not None
        assert plain.sha256 == DIGEST


async def test_an_object_is_read_in_pieces(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "token/x.png")
    first = await bucket.read("token/x.png", first=0, last=99)
    assert first is not None
    assert (first.data, first.total_bytes, first.sha256) == (PICTURE[:100], len(PICTURE), DIGEST)
    rest = await bucket.read("token/x.png", first=100, last=len(PICTURE) - 1, tag=first.tag)
    assert rest is not None
    assert first.data + rest.data == PICTURE
    longer = await bucket.read("token/x.png", first=len(PICTURE) - 1, last=len(PICTURE) + 50)
    assert longer is not None
    assert longer.data == PICTURE[-1:]
    assert await bucket.read("token/none.png", first=0, last=9) is None
    with pytest.raises(Permanent):
        await bucket.read("token/x.png", first=len(PICTURE), last=len(PICTURE) + 9)


async def test_a_piece_of_an_object_that_has_changed_is_retryable(backend: Backend) -> None:
    bucket = await made(backend)
    await put(bucket, "a")
    piece = await bucket.read("a", first=0, last=9)
    assert piece is not None
    await put(bucket, "a", PICTURE[:-1] + b"x")
    with pytest.raises(Retryable):
        await bucket.read("a", first=10, last=19, tag=piece.tag)
