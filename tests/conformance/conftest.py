"""Queues and buckets of every kind under one face: the fakes, and the real adapters over each emulator."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol
from uuid import uuid4

import pytest
import pytest_asyncio

from infra import aws
from infra.s3 import S3Bucket
from infra.skew import Skew
from infra.sqs import SqsQueue
from tests import emulators
from tests.emulators import aws_environment
from tests.fakes import FakeBucket, FakeQueue

BACKENDS = ["fake", "ministack", "moto"]


class Backend(Protocol):
    """Makes queues and buckets that do not exist yet; `name` is one of BACKENDS."""

    name: str
    skew: Skew

    def queue(self, name: str) -> SqsQueue | FakeQueue: ...
    def bucket(self) -> S3Bucket | FakeBucket: ...


class Fakes:
    name = "fake"

    def __init__(self) -> None:
        self.skew = Skew(60)

    def queue(self, name: str) -> FakeQueue:
        return FakeQueue(name)

    def bucket(self) -> FakeBucket:
        return FakeBucket(name=f"bucket-{uuid4().hex}")


class Adapters:
    def __init__(self, name: str, clients: aws.Clients, skew: Skew) -> None:
        self.name = name
        self.skew = skew
        self._clients = clients

    def queue(self, name: str) -> SqsQueue:
        return SqsQueue(self._clients.sqs, name)

    def bucket(self) -> S3Bucket:
        return S3Bucket(self._clients.s3, f"bucket-{uuid4().hex}")


@pytest.fixture(scope="session")
def emulator_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The URL of an emulator by its name, started at the first call."""
    started: dict[str, str] = {}
    contexts = []

    def url(name: str) -> str:
        if name not in started:
            folder = tmp_path_factory.mktemp(name)
            context = emulators.ministack(folder) if name == "ministack" else emulators.moto(folder)
            started[name] = context.__enter__()
            contexts.append(context)
        return started[name]

    yield url
    for context in contexts:
        context.__exit__(None, None, None)


@pytest_asyncio.fixture(params=BACKENDS)
async def backend(
    request: pytest.FixtureRequest, emulator_urls: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backend]:
    if request.param == "fake":
        yield Fakes()
        return
    for name, value in aws_environment(emulator_urls(request.param)).items():
        monkeypatch.setenv(name, value)
    skew = Skew(60)
    async with aws.clients(skew=skew) as clients:
        yield Adapters(request.param, clients, skew)


@pytest_asyncio.fixture
async def make_queue(backend: Backend) -> Callable[..., Awaitable[SqsQueue | FakeQueue]]:
    async def make(**settings: object) -> SqsQueue | FakeQueue:
        queue = backend.queue(f"queue-{uuid4().hex}")
        await queue.ensure(visibility_s=30, **settings)  # type: ignore[arg-type]
        return queue

    return make
