"""The log's folder gone, emptied, older or another one, under a real core with a real store: never an empty history
without an explicit first start, and one clear line that says what to do.
"""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from core.log.connection import connect
from core.log.offline import cli
from tests.cloud import Cloud
from tests.emulators import aws_environment, free_port, ministack
from tests.eventually import until
from tests.storage import disk
from tests.storage.core_alone import CoreAlone, streams

pytestmark = pytest.mark.timeout(120)
RUNBOOK = "docs/runbook.md, When the log's folder is gone, older, or another one"
ONE_LINE = "darkroom: "
_numbers = count()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with ministack(tmp_path_factory.mktemp("emulator"), port):
        yield port


class Stack:
    """A core with a data folder, a jobs queue and a public bucket of its own on the emulator at `port`."""

    def __init__(self, folder: Path, port: int, name: str = "", bucket: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.name = name or f"stack-{next(_numbers)}"
        self.bucket = bucket or f"public-{self.name}"
        self.cloud = Cloud(port)
        self.core = CoreAlone(
            folder,
            **aws_environment(f"http://127.0.0.1:{port}"),
            DARKROOM_PUBLIC_BUCKET=self.bucket,
            DARKROOM_TEMP_BUCKET=f"temp-{self.name}",
            DARKROOM_JOBS_QUEUE=f"jobs-{self.name}",
            DARKROOM_REPLIES_QUEUE=f"replies-{self.name}",
            DARKROOM_DEAD_QUEUE=f"dead-{self.name}",
        )

    @property
    def data(self) -> Path:
        return self.core.data

    @property
    def folder(self) -> Path:
        return self.core.data / "core"

    @property
    def root_note(self) -> Path:
        return self.core.data / "core-log.note"

    @property
    def key(self) -> str:
        return f"_darkroom/jobs-{self.name}/log.json"

    def serves(self, number: int = 0) -> set[str]:
        """Start it and submit so many; all that its log holds."""
        self.core.start()
        if number:
            assert asyncio.run(self.core.load(number))
        return set(streams(self.core.log_file))

    def noted(self) -> int:
        """The position in the public note; -1 while there is none."""
        try:
            body = self.cloud.s3.get_object(Bucket=self.bucket, Key=self.key)["Body"].read()
        except ClientError:
            return -1
        return int(json.loads(body)["position"])

    def refused(self) -> str:
        """Start it; it must end with exit code 2 and one line."""
        before = len(self.core.process.output())
        self.core.launch()
        assert self.core.process.exit_code() == 2, self.core.said()
        [line] = [each for each in self.core.process.output()[before:].splitlines() if each.startswith(ONE_LINE)]
        assert RUNBOOK in line
        return line

    def close(self) -> None:
        self.core.process.kill()
        self.cloud.close()


Make = Callable[..., Stack]


@pytest.fixture
def make(tmp_path: Path, emulator: int) -> Iterator[Make]:
    made: list[Stack] = []

    def one(folder: str = "one", **named: str) -> Stack:
        made.append(Stack(tmp_path / folder, emulator, **named))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.fixture
def stack(make: Make) -> Stack:
    return make()


def away(folder: Path) -> Callable[[], None]:
    """Moves a folder away; what moves it back."""
    there = folder.with_name(folder.name + ".away")
    folder.rename(there)

    def back() -> None:
        assert not folder.exists(), "core has made a folder in the place of the missing one"
        there.rename(folder)

    return back


def emptied(folder: Path) -> Callable[[], None]:
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    for each in folder.iterdir():
        each.unlink()

    def back() -> None:
        assert not list(folder.iterdir()), "core has begun something in the empty folder"
        for each in kept.iterdir():
            shutil.copyfile(each, folder / each.name)

    return back


@pytest.mark.parametrize("lose", [away, emptied], ids=["moved away", "emptied"])
@pytest.mark.parametrize("note", ["both notes", "root note alone", "public note alone"])
def test_a_folder_that_is_gone_at_the_start(
    stack: Stack, lose: Callable[[Path], Callable[[], None]], note: str
) -> None:
    before = stack.serves(3)
    stack.core.process.stop()
    back = lose(stack.folder)
    if note == "root note alone":
        stack.cloud.s3.delete_object(Bucket=stack.bucket, Key=stack.key)
    if note == "public note alone":
        stack.root_note.unlink()
    for _ in range(2):
        line = stack.refused()
        assert "is missing, but" in line
        assert "core init" in line
    back()
    assert stack.serves() == before


@pytest.mark.parametrize("lose", [away, emptied], ids=["moved away", "emptied"])
def test_a_folder_that_goes_under_a_running_core(stack: Stack, lose: Callable[[Path], Callable[[], None]]) -> None:
    before = stack.serves(2)
    back = lose(stack.folder)
    assert stack.core.process.exit_code() == 1, stack.core.said()
    assert "is missing, but one was begun here" in stack.refused()
    back()
    assert stack.serves() >= before


def test_a_folder_that_is_a_volume_and_not_mounted(tmp_path: Path) -> None:
    disk.run("unmounts", tmp_path)


def test_a_fresh_machine_with_the_bucket_of_a_stack_that_served(stack: Stack) -> None:
    stack.serves(2)
    stack.core.process.stop()
    away(stack.data)
    line = stack.refused()
    assert "the public bucket notes log_" in line
    assert not stack.data.exists()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["root note there", "public note alone"])
def test_an_older_copy_is_refused(stack: Stack, elsewhere: bool) -> None:
    stack.serves(2)
    stack.core.process.stop()
    shutil.copytree(stack.folder, stack.data.parent / "older")
    newest = stack.serves(3)
    stack.core.process.stop()
    if elsewhere:  # a data folder that is older as a whole, on a machine that never saw the newer one
        assert stack.noted() >= len(newest), "the end of core notes how far it has come"
        stack.root_note.unlink()
    back = away(stack.folder)
    shutil.copytree(stack.data.parent / "older", stack.folder)
    line = stack.refused()
    assert "is an older copy: it ends at" in line
    assert "was acknowledged" in line
    assert "restore" in line
    shutil.rmtree(stack.folder)
    back()
    assert stack.serves() == newest


def test_an_older_copy_can_be_gone_on_with_on_purpose(stack: Stack, tmp_path: Path) -> None:
    """Backed up and restored it begins the next epoch, which the newer log may not take back."""
    old = stack.serves(2)
    stack.core.process.stop()
    shutil.copytree(stack.folder, tmp_path / "older")
    stack.serves(2)
    stack.core.process.stop()
    back = away(stack.folder)
    shutil.copytree(tmp_path / "older", stack.folder)
    copy = str(tmp_path / "left.sqlite3")
    assert cli.run(["backup", copy, "--data-dir", str(stack.data)]) == 0
    assert cli.run(["restore", copy, "--replace", "--data-dir", str(stack.data)]) == 0
    assert stack.serves() == old
    stack.core.process.stop()
    shutil.rmtree(stack.folder)
    back()
    assert "is of epoch 1, but a restore has begun epoch 2" in stack.refused()
    stack.root_note.unlink()
    assert "is of epoch 1, but a restore has begun epoch 2" in stack.refused()


@pytest.mark.parametrize("note", [True, False], ids=["root note there", "public note alone"])
def test_the_log_of_another_stack_is_refused(make: Make, note: bool) -> None:
    one, other = make("one"), make("other")
    one.serves(2)
    other.serves(3)
    for each in (one, other):
        each.core.process.stop()
    shutil.rmtree(one.folder)
    shutil.copytree(other.folder, one.folder)
    if not note:
        one.root_note.unlink()
    assert "is another one (log_" in one.refused()


@pytest.mark.parametrize("left", ["all", "root note", "public note"])
def test_a_log_of_zero_bytes_is_refused(stack: Stack, left: str) -> None:
    stack.serves(2)
    stack.core.process.stop()
    stack.core.log_file.write_bytes(b"")
    if left != "all":
        for name in ("-wal", "-shm", ".head", ".begun"):
            stack.core.log_file.with_name(stack.core.log_file.name + name).unlink(missing_ok=True)
    if left == "public note":
        stack.root_note.unlink()
    line = stack.refused()
    assert "but one was begun here" in line or "but the public bucket notes" in line
    assert not stack.core.log_file.stat().st_size


@pytest.mark.parametrize("damage", ["gone", "empty", "torn"])
def test_a_root_note_that_is_gone_is_written_again_with_a_warning(stack: Stack, damage: str) -> None:
    before = stack.serves(2)
    stack.core.process.stop()
    whole = stack.root_note.read_bytes()
    if damage == "gone":
        stack.root_note.unlink()
    else:
        stack.root_note.write_bytes(b"" if damage == "empty" else whole[:50] + b"longer than any note" * 20)
    assert stack.serves() == before
    assert "log.root_note_missing" in stack.core.process.output()
    stack.core.process.stop()
    assert stack.root_note.read_bytes() == whole


def test_a_public_note_that_is_gone_is_written_again_with_a_warning(stack: Stack) -> None:
    before = stack.serves(2)
    stack.core.process.stop()
    stack.cloud.s3.delete_object(Bucket=stack.bucket, Key=stack.key)
    assert stack.serves() == before
    assert stack.noted() >= len(before), "before core serves"
    assert "log.public_note_missing" in stack.core.process.output()


def as_an_earlier_release_left_it(stack: Stack) -> None:
    """A log without an id, and no notes outside of its folder."""
    connection = connect(stack.core.log_file)
    connection.execute("DELETE FROM meta WHERE key IN ('log_id', 'epoch', 'claim')")
    connection.close()
    stack.root_note.unlink()
    stack.cloud.s3.delete_object(Bucket=stack.bucket, Key=stack.key)


def test_the_log_of_an_earlier_release_is_taken_without_a_question(stack: Stack) -> None:
    before = stack.serves(3)
    stack.core.process.stop()
    as_an_earlier_release_left_it(stack)
    assert stack.serves() == before
    assert stack.root_note.exists()
    assert stack.noted() >= len(before)
    assert "_note_missing" not in stack.core.process.output()


def test_a_copy_from_before_the_upgrade_is_refused_after_it(stack: Stack, tmp_path: Path) -> None:
    stack.serves(2)
    stack.core.process.stop()
    as_an_earlier_release_left_it(stack)
    shutil.copytree(stack.folder, tmp_path / "older")
    stack.serves(2)
    stack.core.process.stop()
    shutil.rmtree(stack.folder)
    shutil.copytree(tmp_path / "older", stack.folder)
    assert "is an older copy, or another log" in stack.refused()
    stack.root_note.unlink()
    assert "is another one (log_" in stack.refused()


def picture(stack: Stack) -> None:
    """As a release that wrote no notes left one."""
    data = b"a picture"
    stack.cloud.s3.create_bucket(Bucket=stack.bucket)
    stack.cloud.s3.put_object(Bucket=stack.bucket, Key="foreign.txt", Body=b"somebody's")
    stack.cloud.s3.put_object(Bucket=stack.bucket, Key=f"{'c3' * 24}/{sha256(data).hexdigest()}.png", Body=data)


def test_the_bucket_of_an_earlier_release_with_pictures_blocks_a_first_start(stack: Stack) -> None:
    picture(stack)
    assert "pictures that no stack's note accounts for" in stack.refused()
    assert not stack.data.exists()


def test_two_stacks_share_a_bucket_and_each_keeps_to_its_own_note(make: Make) -> None:
    one = make("one")
    one.serves(2)
    picture_key = f"{'c3' * 24}/{'0' * 64}.png"
    one.cloud.s3.put_object(Bucket=one.bucket, Key=picture_key, Body=b"one's")
    other = make("other", bucket=one.bucket)
    theirs = other.serves(3)
    for each in (one, other):
        each.core.process.stop()
    back = away(other.folder)
    assert "is missing, but one was begun here" in other.refused()
    other.root_note.unlink()
    assert "the public bucket notes log_" in other.refused()
    one.serves(1)
    back()
    assert other.serves() == theirs


def test_a_foreign_bucket_that_holds_no_pictures_blocks_nothing(stack: Stack) -> None:
    stack.cloud.s3.create_bucket(Bucket=stack.bucket)
    for key in ("0-report.pdf", "_darkroom/readme.txt", "c3/x.png", "site/index.html"):
        stack.cloud.s3.put_object(Bucket=stack.bucket, Key=key, Body=b"theirs")
    assert len(stack.serves(1)) == 1
    [begun] = [each for each in stack.core.process.output().splitlines() if "log.begun" in each]
    assert "If this stack has served before" in begun


def test_the_explicit_first_start(stack: Stack) -> None:
    stack.serves(3)
    stack.core.process.stop()
    data = ("--data-dir", str(stack.data))
    assert cli.run(["init", *data]) == 2, "there is a log"
    back = away(stack.folder)
    stack.refused()
    assert cli.run(["init", *data]) == 0
    own = stack.serves(1)
    assert len(own) == 1
    stack.core.process.stop()
    shutil.rmtree(stack.folder)
    back()
    assert "is another one (log_" in stack.refused(), "two histories of one stack"
    stack.root_note.unlink()
    assert "is another one (log_" in stack.refused()


def test_without_a_log_and_without_the_store_core_waits_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    stack = Stack(tmp_path / "one", port)
    try:
        stack.core.launch()
        until(lambda: stack.core.get("/readyz")[0] == 503, what="the admin port answers")
        until(lambda: "cannot say whether there was one" in stack.core.get("/readyz")[1], what="it says why")
        assert "log.not_begun_yet" in stack.core.process.output()
        assert stack.core.get("/healthz")[0] == 200
        assert not stack.core.listens()
        assert not stack.data.exists()
        stack.core.process.stop()
        stack.core.launch()
        until(lambda: stack.core.get("/readyz")[0] == 503, what="the admin port answers")
        (tmp_path / "emulator").mkdir()
        with ministack(tmp_path / "emulator", port):
            until(stack.core.serves, 40, what="core serves once the store is there")
            assert asyncio.run(stack.core.load(1))
            assert stack.noted() >= 0
    finally:
        stack.close()


def test_with_a_log_core_starts_without_the_store_and_notes_it_later(tmp_path: Path) -> None:
    port = free_port()
    stack = Stack(tmp_path / "one", port)
    (tmp_path / "emulator").mkdir()
    try:
        with ministack(tmp_path / "emulator", port):
            before = stack.serves(1)
            stack.core.process.stop()
        shutil.rmtree(tmp_path / "emulator")
        (tmp_path / "emulator").mkdir()
        now = stack.serves(2)
        assert len(now) == len(before) + 2
        with ministack(tmp_path / "emulator", port):
            until(lambda: stack.noted() >= len(now), 90, what="it is noted in the new bucket")
    finally:
        stack.close()


def test_a_newer_note_ends_a_core_that_started_without_the_store(tmp_path: Path) -> None:
    """A data folder that is older as a whole shows by the public note alone, as soon as that can be read."""
    port = free_port()
    stack = Stack(tmp_path / "one", port)
    (tmp_path / "emulator").mkdir()
    try:
        with ministack(tmp_path / "emulator", port):
            stack.serves(1)
            stack.core.process.stop()
            shutil.copytree(stack.data, tmp_path / "older")
            newest = stack.serves(3)
            stack.core.process.stop()
            assert stack.noted() >= len(newest)
        shutil.rmtree(stack.data)
        shutil.copytree(tmp_path / "older", stack.data)
        stack.serves()
        with ministack(tmp_path / "emulator", port):
            assert stack.core.process.exit_code(90) == 2, stack.core.said()
        assert "is an older copy: it ends at" in stack.core.process.output().splitlines()[-1]
    finally:
        stack.close()


def test_sigterm_ends_a_core_that_waits_for_the_store(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "one", free_port())
    try:
        stack.core.launch()
        until(lambda: "log:" in stack.core.get("/readyz")[1], what="it waits")
        stack.core.process.signal(signal.SIGTERM)
        assert stack.core.process.exit_code() == 0, stack.core.said()
    finally:
        stack.close()
