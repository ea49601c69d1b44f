"""The list of erasures in its two places: a real file, and a bucket."""

import stat
from pathlib import Path

import pytest

from core.erasure.erasure_list import Erasures, prefix
from core.log.erased_file import ErasedFile
from infra.retry import Retryable
from tests.fakes import FakeBucket

PREFIX = prefix("darkroom-jobs")


async def made() -> None:
    pass


def listing(folder: Path, bucket: FakeBucket, jobs_queue: str = "darkroom-jobs") -> Erasures:
    return Erasures(ErasedFile(folder), bucket, prefix=prefix(jobs_queue), make=made)


async def noted(erasures: Erasures, *, fresh: bool = False) -> list[str]:
    return [each async for piece in erasures.noted(fresh=fresh) for each in piece]


@pytest.mark.asyncio
async def test_what_is_noted_stands_in_both_places_and_is_nothing_but_an_id(tmp_path: Path) -> None:
    bucket = FakeBucket()
    erasures = listing(tmp_path, bucket)
    assert await noted(erasures, fresh=True) == []
    await erasures.note(["gen_1", "gen_2"])
    await erasures.note(["gen_3"])
    assert await noted(erasures) == ["gen_1", "gen_2", "gen_3"]
    assert list(bucket.objects) == [f"{PREFIX}gen_{number}" for number in (1, 2, 3)]
    assert {data for data, _ in bucket.objects.values()} == {b""}
    file = tmp_path / "erased.txt"
    assert file.read_text() == "gen_1\ngen_2\ngen_3\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.asyncio
async def test_the_bucket_is_asked_only_where_the_file_may_miss_something(tmp_path: Path) -> None:
    bucket = FakeBucket()
    one = listing(tmp_path / "one", bucket)
    await noted(one, fresh=True)
    await one.note(["gen_1"])
    bucket.unreachable = True
    assert await noted(one) == ["gen_1"]
    two = listing(tmp_path / "two", bucket)  # another machine
    with pytest.raises(Retryable):
        await noted(two)
    bucket.unreachable = False
    assert await noted(two) == ["gen_1"]
    await two.note(["gen_2"])
    ErasedFile(tmp_path / "one").doubt()  # a backup was put back there
    assert await noted(one) == ["gen_1", "gen_2"]
    bucket.unreachable = True
    assert await noted(listing(tmp_path / "one", bucket)) == ["gen_1", "gen_2"]


@pytest.mark.asyncio
async def test_two_stacks_on_one_bucket_know_nothing_of_each_other(tmp_path: Path) -> None:
    bucket = FakeBucket()
    one, other = listing(tmp_path / "one", bucket), listing(tmp_path / "other", bucket, "other-jobs")
    await one.note(["gen_1"])
    assert await noted(other) == []


@pytest.mark.asyncio
async def test_a_store_or_a_disk_that_takes_nothing_refuses(tmp_path: Path) -> None:
    bucket = FakeBucket(unreachable=True)
    erasures = listing(tmp_path, bucket)
    with pytest.raises(Retryable):
        await erasures.note(["gen_1"])
    assert not (tmp_path / "erased.txt").exists()
    bucket.unreachable = False
    (tmp_path / "erased.txt").mkdir()  # nothing can be written where a folder is
    with pytest.raises(Retryable, match="list of erasures on disk"):
        await erasures.note(["gen_1"])


@pytest.mark.asyncio
async def test_a_torn_line_was_answered_to_nobody_and_spoils_no_other(tmp_path: Path) -> None:
    bucket = FakeBucket()
    erasures = listing(tmp_path, bucket)
    await noted(erasures, fresh=True)
    await erasures.note(["gen_1"])
    with (tmp_path / "erased.txt").open("ab") as file:
        file.write(b"gen_to")
    assert await noted(erasures) == ["gen_1"]
    await erasures.note(["gen_2"])
    assert await noted(erasures) == ["gen_1", "gen_2"]


def test_a_long_list_comes_in_pieces(tmp_path: Path) -> None:
    file = ErasedFile(tmp_path)
    ids = [f"gen_{number:026}" for number in range(1_201)]
    file.add(ids)
    assert [len(piece) for piece in file.pieces()] == [500, 500, 201]
    assert [each for piece in file.pieces() for each in piece] == ids
    assert [each.name for each in tmp_path.iterdir()] == ["erased.txt"]
