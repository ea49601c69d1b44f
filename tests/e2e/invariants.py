"""What must hold of a stack once it is quiet, checked from outside: REST, bucket, and the log's own file.

Nothing here is told by the service under test alone: what REST says is held against the log, the log
against the bucket, and the pictures against what was asked for.
"""

import io
from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from PIL import Image
from pysqlite3 import dbapi2 as sqlite

from core.domain import events as e
from core.log import codec
from tests.api import ENDED, Body
from tests.cloud import JOBS, PUBLIC, REPLIES, TEMP
from tests.eventually import until
from tests.stack import Stack
from worker.engines.emulated import read_emulated

TERMINAL = frozenset(
    {"generation.succeeded", "generation.failed", "generation.cancelled", "generation.expired"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the log."""

    position: int
    stream: str
    version: int
    type: str
    event: e.Event


def read_log(stack: Stack) -> list[Line]:
    """Every event, read beside the running core by a connection that cannot write."""
    connection = sqlite.connect(f"file:{stack.log_file}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT position, stream, version, type, data FROM events ORDER BY position")
        return [Line(position=p, stream=s, version=v, type=t, event=codec.decode(d)) for p, s, v, t, d in rows]
    finally:
        connection.close()


def starts(stack: Stack) -> list[e.ImageStarted]:
    """Every start of an image on a GPU, in order."""
    return [line.event for line in read_log(stack) if isinstance(line.event, e.ImageStarted)]


def check(stack: Stack, *, drained: bool = True) -> None:
    """All invariants that can be seen from outside, once everything has ended, also what no client waits for because
    its 202 was lost. `drained`: the queues must become empty, too.
    """
    until(lambda: _all_ended(read_log(stack)), 40, what="all generations end", every_s=0.2)
    lines = read_log(stack)
    assert lines[: len(stack.log_before)] == stack.log_before, "the log has changed where it was written already"
    stack.log_before = lines
    check_log(stack, lines)
    check_public_bucket(stack, lines)
    for tenant in stack.tenants:
        for body in stack.client(tenant).listed():
            assert stack.memory.accepted.get(body["id"], tenant) == tenant, f"{tenant} sees {body['id']}"
            assert body["status"] in ENDED, f"{body['id']} is {body['status']}"
            if body["id"] not in stack.checked:
                check_generation(stack, tenant, body)
                stack.checked.add(body["id"])
    if drained:
        until(lambda: _drained(stack), 20, what="both queues become empty", every_s=0.2)


def _all_ended(lines: list[Line]) -> bool:
    left = {line.stream for line in lines} - {line.stream for line in lines if line.type in TERMINAL}
    assert not left, f"{len(left)} are open: {sorted(left)[:3]}"
    return True


def check_log(stack: Stack, lines: list[Line]) -> None:
    """Every accepted id is in the log, begins rightly, has gapless versions, one end, each index published once."""
    streams: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        streams[line.stream].append(line)
    assert [line.position for line in lines] == list(range(1, len(lines) + 1))
    lost = set(stack.memory.accepted) - set(streams)
    assert not lost, f"accepted and not in the log: {sorted(lost)[:3]}"
    for stream, story in streams.items():
        types = [line.type for line in story]
        assert [line.version for line in story] == list(range(1, len(story) + 1)), f"{stream} has gaps"
        assert types[0] == "generation.requested", f"{stream} begins with {types[0]}"
        ends = [number for number, name in enumerate(types) if name in TERMINAL]
        assert len(ends) == 1, f"{stream} has {len(ends)} ends: {types}"
        assert set(types[ends[0] + 1 :]) <= {"generation.erased"}, f"{stream} goes on after its end: {types}"
        published = [line.event.index for line in story if isinstance(line.event, e.ImagePublished)]
        assert len(published) == len(set(published)), f"{stream} published an image twice: {published}"


def check_public_bucket(stack: Stack, lines: list[Line]) -> None:
    """Every published key is there; what is there beside them was never promised to anybody: there is none."""
    erased = erased_ids(lines)
    published = {
        line.event.public_key
        for line in lines
        if isinstance(line.event, e.ImagePublished) and line.stream not in erased
    }
    lost = published - pictures(stack)
    assert not lost, f"published and not there: {sorted(lost)[:3]}"
    until(lambda: pictures(stack) == published, 20, what="nothing is there that was never published, or is erased")
    until(lambda: not drafts_of(stack, erased), 20, what="no draft of what is erased is there")


def erased_ids(lines: list[Line]) -> set[str]:
    """The generations that are erased, by the log."""
    return {line.stream for line in lines if line.type == "generation.erased"}


def pictures(stack: Stack) -> set[str]:
    """The keys of the public bucket, but for what core keeps there for itself."""
    return {key for key in stack.cloud.objects(PUBLIC) if not key.startswith("_darkroom/")}


def drafts_of(stack: Stack, ids: set[str]) -> set[str]:
    """The keys of the temporary bucket that belong to these generations."""
    return {key for key in stack.cloud.objects(TEMP) if key.split("/")[1] in ids}


def check_generation(stack: Stack, tenant: str, body: Body) -> None:
    """Its images are as many as asked for, with their seeds; each published one is what it says it is."""
    images = body["images"]
    if body["erased"]:
        content = [
            body["prompt"],
            body["seed"],
            *(image[name] for image in images for name in ("url", "sha256", "seed")),
        ]
        assert not any(content), body
        return
    assert [image["index"] for image in images] == list(range(body["n"])), body
    assert [image["seed"] for image in images] == [(body["seed"] + k) % 2**32 for k in range(body["n"])], body
    if body["status"] == "succeeded":
        assert all(image["status"] == "published" for image in images), body
    for image in images:
        assert (image["url"] is not None) == (image["status"] == "published"), image
        if image["status"] == "published":
            check_picture(stack, tenant, body, image)


def check_picture(stack: Stack, tenant: str, body: Body, image: Body) -> None:
    """The bytes have the digest and size told, decode, and have the size asked for; an emulated one is its own."""
    answer = stack.client(tenant).picture(body["id"], image["index"])
    assert answer.status == 200, f"{body['id']}/{image['index']}: {answer.status} {answer.body[:200]!r}"
    assert sha256(answer.body).hexdigest() == image["sha256"]
    assert len(answer.body) == image["size_bytes"]
    picture = decoded(answer.body)
    assert picture.size == (body["width"], body["height"])
    assert str(picture.format).lower() == body["output_format"]
    assert answer.headers["content-type"] == f"image/{body['output_format']}"
    if body["model"] in stack.emulated and body["output_format"] == "png":
        assert read_emulated(answer.body) == (body["id"], image["index"], image["seed"])


def decoded(data: bytes) -> Any:
    """The picture in `data`, fully read."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def _drained(stack: Stack) -> bool:
    left = {name: stack.cloud.waiting(name) for name in (JOBS, REPLIES)}
    assert not any(left.values()), left
    return True
