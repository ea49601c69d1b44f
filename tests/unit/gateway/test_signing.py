"""Signed URLs: what they give, to whom, until when; and the secrets behind them."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SignedUrlExpired, SignedUrlInvalid
from gateway.pictures.link_secrets import (
    MAX_VALID_S,
    SIGNS_AFTER_MS,
    FixedLinkSecrets,
    LinkSecretFile,
    LinkSecretsError,
)
from gateway.pictures.signing import Grant, Signer

NOW_S = 1_800_000_000
ID = "gen_" + "0" * 26
SECRET = "s" * 32


class Clock:
    def __init__(self) -> None:
        self.ms = NOW_S * 1000

    def __call__(self) -> int:
        return self.ms


def signer(*secrets: str, clock: Clock | None = None, valid_s: int = 3600) -> Signer:
    return Signer(FixedLinkSecrets(secrets or (SECRET,)), valid_s=valid_s, now_ms=clock or Clock())


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True), st.integers(0, 9))
def test_a_signature_gives_its_own_image_and_hides_whose_it_is(tenant: str, index: int) -> None:
    signs = signer()
    url = signs.urls(tenant, "http://h").url(ID, index)
    grant = signs.checked(query_of(url), ID, index)
    assert grant == Grant(tenant=tenant, until_s=NOW_S + 3600)
    assert len(tenant) < 4 or tenant not in url
    for other_id, other_index in ((ID[:-1] + "1", index), (ID, index + 1)):
        with pytest.raises(SignedUrlInvalid):
            signs.checked(query_of(url), other_id, other_index)


@given(st.data())
def test_no_altered_signature_or_end_is_taken(data: st.DataObject) -> None:
    signs = signer()
    query = query_of(signs.urls("alice", "http://h").url(ID, 0))
    name = data.draw(st.sampled_from(sorted(query)))
    text = query[name][0]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda each: each != text[place]))
    altered = data.draw(st.sampled_from([text[:place] + other + text[place + 1 :], text[:place], text + other]))
    with pytest.raises(SignedUrlInvalid):
        signs.checked({**query, name: [altered]}, ID, 0)


@pytest.mark.parametrize("name", ["expires", "signature"])
def test_a_parameter_that_is_missing_or_stands_twice_is_refused(name: str) -> None:
    signs = signer()
    query = query_of(signs.urls("alice", "http://h").url(ID, 0))
    for broken in (
        {**query, name: query[name] * 2},
        {**query, name: []},
        {k: v for k, v in query.items() if k != name},
    ):
        with pytest.raises(SignedUrlInvalid):
            signs.checked(broken, ID, 0)


def test_it_ends_when_it_says_and_no_later_than_asked_for() -> None:
    clock = Clock()
    signs = signer(clock=clock)
    for offset in range(0, 200, 7):
        clock.ms = (NOW_S + offset) * 1000 + 999
        urls = signs.urls("alice", "http://h")
        assert 3540 < urls.expires_s - clock.ms / 1000 <= 3600
        query = query_of(urls.url(ID, 0))
        clock.ms = urls.expires_s * 1000 - 1
        assert signs.checked(query, ID, 0)
        clock.ms += 1
        with pytest.raises(SignedUrlExpired):
            signs.checked(query, ID, 0)


def test_bodies_change_no_more_than_once_a_minute() -> None:
    clock = Clock()
    signs = signer(clock=clock)
    seen = set()
    for second in range(600):
        clock.ms = (NOW_S + second) * 1000
        seen.add(signs.urls("alice", "http://h").url(ID, 0))
    assert len(seen) <= 11


def test_secrets_of_a_setting_are_all_accepted_and_the_first_signs() -> None:
    old, both, new = signer("a" * 32), signer("b" * 32, "a" * 32), signer("b" * 32)
    assert both.checked(query_of(old.urls("alice", "").url(ID, 0)), ID, 0)
    assert new.checked(query_of(both.urls("alice", "").url(ID, 0)), ID, 0)
    with pytest.raises(SignedUrlInvalid):
        new.checked(query_of(old.urls("alice", "").url(ID, 0)), ID, 0)


def gateway_on(path: Path, clock: Clock, *, days: int = 0) -> tuple[LinkSecretFile, Signer]:
    file = LinkSecretFile(path, rotate_days=days)
    file.load(clock.ms)
    return file, Signer(file, valid_s=3600, now_ms=clock)


def test_a_rotation_is_accepted_by_all_at_once_and_the_old_secret_for_as_long_as_its_urls(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "gateway" / "link-secrets.json"
    one, signs_one = gateway_on(path, clock)
    _, signs_other = gateway_on(path, clock)
    clock.ms += SIGNS_AFTER_MS
    before = query_of(signs_one.urls("alice", "").url(ID, 0))
    one.rotate(clock.ms)
    assert one.signing(clock.ms).id in before["signature"][0], "it does not sign yet: others may not have seen it"
    clock.ms += SIGNS_AFTER_MS
    after = query_of(signs_one.urls("alice", "").url(ID, 0))
    assert before["signature"][0].partition(".")[0] != after["signature"][0].partition(".")[0]
    assert signs_other.checked(after, ID, 0), "an unknown secret is looked for in the file, without a refresh before"
    assert signs_other.checked(before, ID, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700

    long = Signer(one, valid_s=MAX_VALID_S, now_ms=clock)
    kept = query_of(long.urls("alice", "").url(ID, 0))
    one.rotate(clock.ms)
    rotated_ms, clock.ms = clock.ms, int(kept["expires"][0]) * 1000 - 1
    assert signs_other.checked(kept, ID, 0), "to its very end"
    clock.ms = rotated_ms + MAX_VALID_S * 1000 + 60_000
    one.rotate(clock.ms)
    assert len(json.loads(path.read_text())["secrets"]) == 2, "what has outlived its URLs is dropped"


def test_revoking_ends_every_url_within_a_refresh(tmp_path: Path) -> None:
    clock = Clock()
    one, signs_one = gateway_on(tmp_path / "s.json", clock)
    other, signs_other = gateway_on(tmp_path / "s.json", clock)
    query = query_of(signs_one.urls("alice", "").url(ID, 0))
    one.rotate(clock.ms, keep=False)
    other.refresh(clock.ms)
    for signs in (signs_one, signs_other):
        with pytest.raises(SignedUrlInvalid):
            signs.checked(query, ID, 0)


def test_gateways_that_start_and_rotate_at_once_agree(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "s.json"
    files = [LinkSecretFile(path, rotate_days=1) for _ in range(8)]
    start = threading.Barrier(len(files))

    def run(file: LinkSecretFile) -> None:
        start.wait()
        file.load(clock.ms)

    def together(work: Callable[[LinkSecretFile], None]) -> None:
        threads = [threading.Thread(target=work, args=(file,)) for file in files]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    together(run)
    assert len({file.signing(clock.ms).id for file in files}) == 1
    clock.ms += 2 * 86_400_000

    def refresh(file: LinkSecretFile) -> None:
        start.wait()
        file.refresh(clock.ms)

    together(refresh)
    assert len(json.loads(path.read_text())["secrets"]) == 2, "one of them rotated"


def test_a_file_that_is_gone_or_broken_is_told_and_what_is_known_goes_on(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "s.json"
    file, signs = gateway_on(path, clock)
    query = query_of(signs.urls("alice", "").url(ID, 0))
    text = path.read_text()
    for broken in ("", "{}", '{"secrets": []}', '{"secrets": [{"a": 1}]}'):
        path.write_text(broken)
        file.refresh(clock.ms)
        assert "cannot be used" in file.problem
        assert signs.checked(query, ID, 0)
        with pytest.raises(LinkSecretsError):
            LinkSecretFile(path, rotate_days=0).load(clock.ms)
    path.unlink()
    file.refresh(clock.ms)
    assert "gone" in file.problem
    path.write_text(text)
    file.refresh(clock.ms)
    assert not file.problem
