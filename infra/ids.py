"""Identifiers that sort by time: a prefix, an underscore and a ULID (https://github.com/ulid/spec) in lower case."""

import os

from infra.clock import wall_ms

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ULID_CHARS = 26
_RANDOM_BYTES = 10


def new_id(prefix: str) -> str:
    """A fresh id such as `gen_01kz…`. Prefixes in use: gen, att, bat."""
    return make_id(prefix, at_ms=wall_ms(), random=os.urandom(_RANDOM_BYTES))


def make_id(prefix: str, *, at_ms: int, random: bytes) -> str:
    """The id of the moment `at_ms` with the ten bytes `random`; pure, for simulations."""
    value = (at_ms << 80) | int.from_bytes(random, "big")
    digits = (_ALPHABET[(value >> (5 * place)) & 31] for place in reversed(range(_ULID_CHARS)))
    return f"{prefix}_{''.join(digits)}"
