"""What the note of a stack in its public bucket must do: over the fake, and the adapter on two emulators."""

from hashlib import sha256

import pytest

from core.runtime.public_note import BucketNotes
from infra.retry import Retryable
from infra.s3 import S3Bucket
from tests.conformance.conftest import Backend
from tests.fakes import FakeBucket

pytestmark = pytest.mark.asyncio
PICTURE = f"{'c3' * 24}/{'5e' * 32}.png"


async def put(bucket: S3Bucket | FakeBucket, *keys: str) -> None:
    for key in keys:
        data = key.encode()
        await bucket.put(key, data, content_type="image/png", sha256=sha256(data).digest())


async def test_it_is_read_as_it_was_written_and_replaced(backend: Backend) -> None:
    notes = BucketNotes(backend.bucket(), "jobs", make=True)
    assert await notes.read() is None, "the bucket was made"
    await notes.write(b"one")
    await notes.write(b"two")
    assert await notes.read() == b"two"


async def test_each_jobs_queue_has_its_own(backend: Backend) -> None:
    bucket = backend.bucket()
    one, other = (BucketNotes(bucket, name, make=True) for name in ("jobs", "jobs-2"))
    await one.read()
    await one.write(b"one")
    assert await other.read() is None
    await other.write(b"other")
    assert (await one.read(), await other.read()) == (b"one", b"other")


async def test_pictures_are_unexplained_until_a_stack_has_a_note(backend: Backend) -> None:
    bucket = backend.bucket()
    notes = BucketNotes(bucket, "jobs", make=True)
    await notes.read()
    await put(bucket, "0-report.pdf", "_darkroom/readme.txt", "c3/x.png", "site/index.html")
    assert not await notes.unexplained(), "foreign objects are no pictures of ours"
    await put(bucket, PICTURE)
    assert await notes.unexplained()
    await BucketNotes(bucket, "jobs-2", make=False).write(b"other")
    assert not await notes.unexplained()


async def test_a_bucket_that_is_not_there_and_not_ours_to_make_says_nothing(backend: Backend) -> None:
    if backend.name == "fake":
        return
    notes = BucketNotes(backend.bucket(), "jobs", make=False)
    with pytest.raises(Retryable):
        await notes.read()
