"""Which bytes a request for a picture gets (RFC 9110, sections 13 and 14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConditionFailed, RangeUnsatisfiable
from gateway.pictures import ranges

TAG = '"abc"'
SIZE = 100


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", (0, 9)),
        ("bytes=90-", (90, 99)),
        ("bytes=90-1000", (90, 99)),
        ("bytes=99-99", (99, 99)),
        ("bytes=-1", (99, 99)),
        ("bytes=-100", (0, 99)),
        ("bytes=-101", (0, 99)),
        ("bytes=0-", (0, 99)),
        ("BYTES=0-0", (0, 0)),
        ("bytes = 0-0", (0, 0)),
        ("bytes=00-00009", (0, 9)),
        ("bytes=0-" + "9" * 5000, (0, 99)),
    ],
)
def test_a_single_range_is_given(asked: str, expected: tuple[int, int]) -> None:
    part = ranges.wanted({"Range": asked}, TAG, SIZE)
    assert (part.first, part.last, part.whole) == (*expected, False)
    assert part.length == expected[1] - expected[0] + 1


@pytest.mark.parametrize(
    "asked",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0x1-2", "bytes=1-2-3", "items=0-1"),
        *("bytes=0-1,5-6", "bytes=-1,-2", "bytes=٠-٩", "bytes=+0-1", "bytes:0-1"),
    ],
)
def test_what_is_no_single_range_is_passed_over(asked: str) -> None:
    assert ranges.wanted({"Range": asked}, TAG, SIZE).whole


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_a_range_without_a_byte_is_refused_with_the_size(asked: str) -> None:
    with pytest.raises(RangeUnsatisfiable) as refused:
        ranges.wanted({"Range": asked}, TAG, SIZE)
    assert refused.value.headers["Content-Range"] == "bytes */100"


@pytest.mark.parametrize(
    ("if_range", "whole"),
    [(TAG, False), ('"other"', True), ("W/" + TAG, True), ("Mon, 30 Nov 2026 10:00:00 GMT", True), ("", True)],
)
def test_a_range_of_another_picture_is_the_whole_of_this_one(if_range: str, whole: bool) -> None:
    assert ranges.wanted({"Range": "bytes=0-0", "If-Range": if_range}, TAG, SIZE).whole is whole


def test_head_knows_no_ranges() -> None:
    assert ranges.wanted({"Range": "bytes=0-0"}, TAG, SIZE, method="HEAD").whole


@pytest.mark.parametrize(
    ("held", "expected"),
    [(TAG, True), ("W/" + TAG, True), ('"x", ' + TAG, True), ("*", True), ('"x"', False), ("abc", False), ("", False)],
)
def test_a_client_that_has_the_picture_is_told_so(held: str, expected: bool) -> None:
    assert ranges.unchanged({"If-None-Match": held}, TAG) is expected


@pytest.mark.parametrize(
    ("wanted", "fails"), [(TAG, False), ("*", False), ('"x"', True), ("W/" + TAG, True), ("", True)]
)
def test_if_match_compares_strongly(wanted: str, fails: bool) -> None:
    if not fails:
        assert not ranges.unchanged({"If-Match": wanted}, TAG)
        return
    with pytest.raises(ConditionFailed):
        ranges.unchanged({"If-Match": wanted}, TAG)


@given(st.integers(1, 10_000), st.text(st.sampled_from("bytes=0123456789-, "), max_size=30))
def test_no_range_leaves_the_picture(size: int, asked: str) -> None:
    try:
        part = ranges.wanted({"Range": "bytes=" + asked}, TAG, size)
    except RangeUnsatisfiable:
        return
    assert 0 <= part.first <= part.last < size
