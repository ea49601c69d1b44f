"""The gateway's command line in a real process: keys, and misconfiguration in one line."""

import socket
from pathlib import Path

import pytest

from tests.integration.gateway_process import command, environment


@pytest.mark.asyncio
async def test_keys_are_made_listed_and_revoked_at_the_command_line(tmp_path: Path) -> None:
    env = environment(tmp_path)
    key = (await command(env, "keys", "create", "acme"))[1].splitlines()[-1]
    key_id, secret = key.split("_")[1:]
    code, listed, _ = await command(env, "keys", "list")
    assert (code, secret in listed) == (0, False)
    assert key_id in listed
    assert "acme" in listed
    code, _, told = await command(env, "keys", "revoke", key_id)
    assert (code, "links revoke" in told) == (0, True), "signed URLs outlive the key: say how they are ended"
    assert "revoked" in (await command(env, "keys", "list"))[1]
    code, _, told = await command(env, "keys", "revoke", key_id)
    assert (code, len(told.splitlines())) == (2, 1)
    code, _, told = await command(env, "keys", "create", "two words")
    assert (code, len(told.splitlines())) == (2, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"DARKROOM_GATEWAY_HOST": "0.0.0.0"}, "keys create TENANT"),
        ({"DARKROOM_GATEWAY_PORT": "TAKEN"}, "DARKROOM_GATEWAY_PORT"),
        ({"DARKROOM_GATEWAY_PORT": "x"}, "DARKROOM_GATEWAY_PORT"),
        ({"DARKROOM_MODELS_FILE": "/nowhere.toml"}, "/nowhere.toml"),
        ({"DARKROOM_GATEWAY_RULES_FILE": "/nowhere.toml"}, "/nowhere.toml"),
        ({"DARKROOM_GATEWAY_KEYS_FILE": "/"}, "DARKROOM_GATEWAY_KEYS_FILE"),
        ({"DARKROOM_CORE_TARGET": "nonsense"}, "DARKROOM_CORE_TARGET"),
        ({"DARKROOM_FAILPOINTS": "nonsense"}, "DARKROOM_FAILPOINTS"),
        ({"DARKROOM_GATEWAY_PUBLIC_URL": "ftp://x"}, "DARKROOM_GATEWAY_PUBLIC_URL"),
    ],
)
async def test_a_misconfiguration_is_one_line_that_says_what_to_do(
    tmp_path: Path, extra: dict[str, str], word: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        env = environment(tmp_path, **{name: number if value == "TAKEN" else value for name, value in extra.items()})
        code, _, told = await command(env)
    lines = [line for line in told.splitlines() if line.startswith("darkroom:")]
    assert code == 2, told
    assert len(lines) == 1, told
    assert word in lines[0]
    assert "Traceback" not in told
