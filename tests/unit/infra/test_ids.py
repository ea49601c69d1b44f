"""Ids sort by time and say what they are of."""

import re

from infra.ids import make_id, new_id


def test_an_id_is_a_prefix_and_a_lower_case_ulid() -> None:
    assert re.fullmatch(r"gen_[0-7][0-9a-hjkmnp-tv-z]{25}", new_id("gen"))


def test_the_ulid_of_the_specification() -> None:
    # https://github.com/ulid/spec: 01ARZ3NDEKTSV4RRFFQ69G5FAV is of 1469922850259 ms.
    random = (0x01563E3AB5D3D6764C61EFB99302BD5B & (2**80 - 1)).to_bytes(10, "big")
    assert make_id("gen", at_ms=1469922850259, random=random) == "gen_01arz3ndektsv4rrffq69g5fav"


def test_later_ids_sort_later_and_no_two_are_equal() -> None:
    zero, full = bytes(10), b"\xff" * 10
    assert make_id("gen", at_ms=1, random=full) < make_id("gen", at_ms=2, random=zero)
    assert len({new_id("gen") for _ in range(1000)}) == 1000
