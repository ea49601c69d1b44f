"""The invariants that can be checked from outside once the stack is quiet: log, public bucket, REST, log lines.

REST is compared with what the clients' ledger says, the log with the ledger, the bucket with the log.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from loadtests.chaos import log
from loadtests.chaos.api import Api
from loadtests.chaos.ledger import OPEN, Ledger
from loadtests.chaos.recovery import Recovery

_MOST_EXAMPLES = 20


@dataclass(slots=True)
class Findings:
    """Counts of what is lost (accepted or published, but missing), stuck (no end), double (anything twice)."""

    lost: int = 0
    stuck: int = 0
    double: int = 0
    failed: int = 0
    strays: int = 0
    """Public objects that belong to no published image: copies whose generation ended meanwhile. Harmless."""
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Adds an example to the report, which keeps the first 20."""
        if len(self.examples) < _MOST_EXAMPLES:
            self.examples.append(text)

    def complain(self, text: str) -> None:
        """Counts an error that has no field of its own."""
        self.wrong += 1
        self.note(text)


def check_log(path: Path, ledger: Ledger, recovery: Recovery, found: Findings) -> None:
    """Each accepted generation has its stream and no other has one; each stream is whole and ends once."""
    missing = set(ledger.told)
    with log.connect(path) as connection:
        asked = log.images(connection)
        for story in log.stories(connection):
            recovery.add([at_ms for _, _, at_ms in story.events])
            missing.discard(story.id)
            check_story(story, asked.get(story.id, 0), ledger, found)
    found.lost += len(missing)
    for each in sorted(missing)[:_MOST_EXAMPLES]:
        found.note(f"lost: {each} was accepted and is not in the log")


def check_story(story: log.Story, asked: int, ledger: Ledger, found: Findings) -> None:
    """One generation's stream; `asked` is its number of images."""
    versions, types, ends = [version for version, _, _ in story.events], story.types, story.ends
    if versions != list(range(1, len(versions) + 1)) or types[0] != "generation.requested":
        found.complain(f"{story.id} has gaps, or begins with {types[0]}")
    if story.id not in ledger.told:
        found.double += 1  # its client got another id, or no answer
        found.note(f"double: {story.id} is in the log and was never answered with 202")
    if not ends:
        found.stuck += 1
        found.note(f"stuck: {story.id} ends with {types[-1]}")
        return
    images = types.count("image.published")
    if len(ends) > 1 or images > asked:
        found.double += 1
        found.note(f"double: {story.id} of {asked} images: {types}")
    if ends[0] == "succeeded" and images != asked:
        found.complain(f"{story.id} succeeded with {images} of {asked} images")
    if types[-1] not in log.ENDS:
        found.complain(f"{story.id} goes on after its end: {types}")
    if ends[0] in {"failed", "expired"}:
        found.failed += 1
        found.note(f"{ends[0]}: {story.id}: {types}")
    told = ledger.told.get(story.id, ("", OPEN))[1]
    if told not in {OPEN, ends[0]}:
        found.complain(f"{story.id} was told to be {told} and is {ends[0]}")


def check_growth(path: Path, heads: Sequence[tuple[int, bytes]], found: Findings) -> None:
    """Events that were in the log before a kill are still there unchanged: the chain at each `heads` is the same."""
    with log.connect(path) as connection:
        for position, chain in heads:
            if log.chain_at(connection, position) != chain:
                found.complain(f"the log has changed at or before position {position}")


class Bucket(Protocol):
    """The bucket of the published pictures."""

    def public(self) -> Iterator[tuple[str, int]]: ...


def check_bucket(path: Path, bucket: Bucket, found: Findings) -> None:
    """Every published image is in the public bucket with its size."""
    with log.connect(path) as connection:  # read before the bucket, so that no later image seems lost
        published = list(log.published(connection))
    objects = dict(bucket.public())
    for key, size in published:
        there = objects.pop(key, None)
        if there is None:
            found.lost += 1
            found.note(f"lost: published and not in the bucket: {key}")
        elif there != size:
            found.complain(f"{key} has {there} bytes instead of {size}")
    found.strays = len(objects)


async def check_rest(api: Api, ledger: Ledger, found: Findings) -> None:
    """Every tenant lists its own generations and no others, each with the status that its client saw."""
    listed = 0
    for tenant in api.keys:
        cursor: str | None = ""
        while cursor is not None:
            page = await api.page(tenant, cursor)
            cursor = page.get("next_cursor") or None
            for body in page["data"]:
                listed += 1
                owner, told = ledger.told.get(body["id"], ("", OPEN))
                if owner and owner != tenant:
                    found.complain(f"{tenant} is shown {body['id']} of {owner}")
                if told not in {OPEN, body["status"]}:
                    found.complain(f"REST says {body['status']} of {body['id']}, which was told to be {told}")
    if listed < len(ledger.told):
        found.lost += len(ledger.told) - listed
        found.note(f"lost: REST lists {listed} of {len(ledger.told)} accepted")


def check_lines(logs: Path, secrets: Iterable[str], found: Findings) -> None:
    """No log line of any process holds a prompt, a key or a signed link."""
    words = [word.encode() for word in secrets]
    for path in sorted(logs.glob("*.log")):
        # The emulator writes the addresses it is asked for.
        here = words if path.name == "emulator.log" else [*words, b"X-Amz-Signature"]
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if any(word in line for word in here):
                    found.complain(f"{path.name}:{number} holds what nobody may read")


def cries(logs: Path) -> Iterator[str]:
    """Events that the services logged as errors. They fail no run, since an injected fault may justify an error."""
    for path in sorted(logs.glob("*.log")):
        with path.open("rb") as file:
            for line in file:
                if b'"level": "error"' in line or b'"level":"error"' in line or b'"critical"' in line:
                    try:
                        yield f"{path.stem.partition('-')[0]}: {json.loads(line).get('event')}"
                    except (ValueError, AttributeError):
                        yield f"{path.stem.partition('-')[0]}: (not JSON)"
                elif line.startswith(b"Traceback"):
                    yield f"{path.stem.partition('-')[0]}: traceback"
