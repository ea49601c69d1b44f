"""A secret that is made once, is whole whenever it is there, and is its owner's alone."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.lifecycle import ConfigError
from infra.local.secret_file import read_or_make


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    first = read_or_make(path)
    assert len(first) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_make(path) == first
    assert sorted(each.name for each in path.parent.iterdir()) == [".secret.lock", "secret"]
    assert read_or_make(tmp_path / "other") != first


def test_all_that_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: read_or_make(tmp_path / "secret"), range(32)))) == 1


def test_a_filesystem_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    assert read_or_make(tmp_path / "secret") == read_or_make(tmp_path / "secret")


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    with pytest.raises(ConfigError, match="secret is empty"):
        read_or_make(tmp_path / "secret")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="secret file"):
        read_or_make(tmp_path / "file" / "secret")
