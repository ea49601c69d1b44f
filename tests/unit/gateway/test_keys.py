"""API keys: made, stored hashed, found, revoked; and who may call without one."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.access.keys import Caller, KeyFile, KeyRing, KeysFileError
from gateway.errors import Unauthorized
from tests.eventually import eventually
from tests.unit.gateway.harness import rig

NOW = 1_763_818_000_000


def ring(file: KeyFile, *, anonymous_allowed: bool = False) -> KeyRing:
    loaded = KeyRing(file, anonymous_allowed=anonymous_allowed, on_change=lambda _: None)
    loaded.load()
    return loaded


def test_a_key_is_known_by_its_secret_and_stored_without_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    key = KeyFile(path).create("acme", now_ms=NOW)
    prefix, key_id, secret = key.split("_")
    assert prefix == "dk"
    assert ring(KeyFile(path)).caller(f"Bearer {key}") == Caller(tenant="acme", key_id=key_id)
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir() if "lock" not in each.name] == ["keys.json"]


def test_a_wrong_secret_a_wrong_id_and_another_key_s_secret_are_refused(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    one, two = (file.create("acme", now_ms=NOW).split("_") for _ in range(2))
    known = ring(file)
    for key in (f"dk_{one[1]}_{two[2]}", f"dk_0000000000_{one[2]}", f"dk_{one[1]}_", f"dk_{one[1]}", "", one[2]):
        with pytest.raises(Unauthorized):
            known.caller(f"Bearer {key}")
    for header in (None, "", "Bearer", f"Token {'_'.join(one)}"):
        with pytest.raises(Unauthorized):
            known.caller(header)


def test_a_revoked_key_ends_at_the_next_look_and_others_stay(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    gone, stays = file.create("a", now_ms=NOW), file.create("b", now_ms=NOW)
    known = ring(file)
    assert file.revoke(gone.rpartition("_")[0], now_ms=NOW + 1)
    assert not file.revoke(gone.split("_")[1], now_ms=NOW + 2), "twice"
    assert not file.revoke("nobody", now_ms=NOW)
    known.refresh()
    with pytest.raises(Unauthorized):
        known.caller(f"Bearer {gone}")
    assert known.caller(f"Bearer {stays}").tenant == "b"
    assert [record.revoked_at_ms for record in file.read()] == [NOW + 1, 0]


def test_a_file_that_breaks_or_goes_changes_nothing_but_is_told(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = KeyFile(path).create("a", now_ms=NOW)
    whole = path.read_text()
    known = ring(KeyFile(path), anonymous_allowed=True)
    for broken in ("{", "[]", '{"keys": [{"id": 1}]}', '{"keys": 7}'):
        path.write_text(broken)
        known.refresh()
        assert known.problem
        assert known.caller(f"Bearer {key}").tenant == "a"
    path.unlink()
    known.refresh()
    assert known.problem
    with pytest.raises(Unauthorized):
        known.caller(None)
    path.write_text(whole)
    known.refresh()
    assert not known.problem


def test_only_a_file_that_never_held_a_key_lets_everybody_in(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    known = ring(file, anonymous_allowed=True)
    assert known.caller(None) == Caller(tenant="local", key_id="")
    with pytest.raises(Unauthorized):
        ring(file).caller(None)
    key = file.create("a", now_ms=NOW)
    file.revoke(key.split("_")[1], now_ms=NOW)
    known.refresh()
    with pytest.raises(Unauthorized):
        known.caller(None)
    assert not known.usable


def test_a_wrong_key_is_refused_even_where_none_is_needed(tmp_path: Path) -> None:
    known = ring(KeyFile(tmp_path / "keys.json"), anonymous_allowed=True)
    with pytest.raises(Unauthorized):
        known.caller("Bearer dk_0000000000_000000000000000000000000000")


@pytest.mark.parametrize("tenant", ["", "a b", "-a", "../x", "a" * 65, "ä", "a\n"])
def test_a_tenant_has_a_plain_name(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(ValueError, match="named"):
        KeyFile(tmp_path / "keys.json").create(tenant, now_ms=NOW)
    assert not (tmp_path / "keys.json").exists()


def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: file.create(f"t{n}", now_ms=NOW), range(24)))
    known = ring(file)
    assert {known.caller(f"Bearer {key}").tenant for key in made} == {f"t{n}" for n in range(24)}


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.mkdir()
    with pytest.raises(KeysFileError, match=r"keys\.json"):
        KeyFile(path).read()
    with pytest.raises(KeysFileError, match=r"keys\.json"):
        KeyFile(path).create("a", now_ms=NOW)
    path.rmdir()
    path.write_text(json.dumps({"keys": [{"id": "x"}]}))
    with pytest.raises(KeysFileError, match="not a keys file"):
        KeyFile(path).read()


@pytest.mark.asyncio
async def test_a_running_gateway_sees_new_and_revoked_keys_within_seconds(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        file = KeyFile(gateway.settings.keys_path)
        key = file.create("late", now_ms=NOW)
        await eventually(gateway.answers("/v1/models", 200, key=key), 3, what="the new key works")
        file.revoke(key.split("_")[1], now_ms=NOW)
        await eventually(gateway.answers("/v1/models", 401, key=key), 3, what="the revoked key is refused")
        assert (await gateway.call("GET", "/v1/models")).status == 200


@pytest.mark.asyncio
async def test_without_keys_a_loopback_gateway_serves_the_tenant_local_until_one_is_made(tmp_path: Path) -> None:
    async with rig(tmp_path, tenants=()) as gateway:
        assert (await gateway.submit()).status == 202
        (stored,) = gateway.core.stored.values()
        assert stored.tenant == "local"
        KeyFile(gateway.settings.keys_path).create("a", now_ms=NOW)
        await eventually(gateway.answers("/v1/models", 401), 3, what="a key is needed from now on")
