"""What a client under load accepts as right, and what it calls wrong."""

import io
import json
import random

import pytest
from PIL import Image

from loadtests import checks
from loadtests.checks import Accepted, Wrong

ASKED = {"prompt": "a star", "width": 64, "height": 128, "seed": 2**32 - 1, "n": 2, "output_format": "png"}
ID = "gen_01jd0000000000000000000000"
GENERATION = Accepted(id=ID, asked=ASKED, location=f"/v1/generations/{ID}")
HEADERS = {"Location": f"/v1/generations/{ID}", "Retry-After": "1"}


def encoded(size: tuple[int, int] = (64, 128), form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, form)
    return out.getvalue()


def test_an_accepted_generation_is_taken_from_its_answer() -> None:
    answer = json.dumps({"id": ID, **ASKED}).encode()
    assert checks.accepted(ASKED, 202, HEADERS, answer) == GENERATION


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (503, HEADERS, {"title": "Busy"}, "answered 503 Busy"),
        (202, HEADERS, ASKED, "without a generation id"),
        (202, {"Retry-After": "1"}, {"id": ID, **ASKED}, "Location"),
        (202, {"Location": HEADERS["Location"]}, {"id": ID, **ASKED}, "Retry-After"),
        (202, HEADERS, {"id": ID, **ASKED, "seed": 7}, "seed came back different"),
    ],
)
def test_an_answer_that_lacks_something_is_wrong(
    status: int, headers: dict[str, str], body: dict[str, object], reason: str
) -> None:
    with pytest.raises(Wrong, match=reason):
        checks.accepted(ASKED, status, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("before", "now", "right"),
    [
        ("queued", "running", True),
        ("queued", "succeeded", True),
        ("running", "running", True),
        ("running", "queued", False),
        ("succeeded", "failed", False),
        ("cancelled", "running", False),
        ("queued", "lost", False),
    ],
)
def test_a_status_never_goes_back(before: str, now: str, right: bool) -> None:
    if right:
        assert checks.still_forward(before, {"status": now}) == now
        return
    with pytest.raises(Wrong):
        checks.still_forward(before, {"status": now})


def test_links_come_by_index_and_none_may_lack() -> None:
    images = [{"index": 0, "url": "/a"}, {"index": 1, "url": "/b"}]
    assert checks.picture_links(GENERATION, {"images": images}) == ["/a", "/b"]
    for broken in (images[:1], [images[1], images[0]], [images[0], {"index": 1, "url": None}], None):
        with pytest.raises(Wrong):
            checks.picture_links(GENERATION, {"images": broken})


def test_the_seed_of_an_image_wraps_at_two_to_the_32() -> None:
    checks.picture(GENERATION, 1, encoded(), lambda _: (ID, 1, 0))


@pytest.mark.parametrize(
    ("content", "drawn", "reason"),
    [
        (b"not a picture", (ID, 0, 2**32 - 1), "does not decode"),
        (encoded()[:-40], (ID, 0, 2**32 - 1), "does not decode"),
        (encoded(form="WEBP"), (ID, 0, 2**32 - 1), "a png was asked for, WEBP came"),
        (encoded((64, 64)), (ID, 0, 2**32 - 1), "64x128 was asked for, 64x64 came"),
        (encoded(), ("gen_other", 0, 2**32 - 1), "another generation"),
        (encoded(), (ID, 1, 2**32 - 1), "another index"),
        (encoded(), (ID, 0, 0), "another seed"),
    ],
)
def test_a_wrong_picture_is_told_apart(content: bytes, drawn: tuple[str, int, int], reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        checks.picture(GENERATION, 0, content, lambda _: drawn)


def test_what_the_drawing_cannot_tell_is_wrong_too() -> None:
    def unreadable(_: bytes) -> tuple[str, int, int]:
        raise ValueError("no marks")

    with pytest.raises(Wrong, match="no marks"):
        checks.picture(GENERATION, 0, encoded(), unreadable)


def test_the_next_poll_waits_as_long_as_the_server_asks_and_never_much_longer() -> None:
    rng = random.Random(1)
    assert checks.retry_after({"Retry-After": "3"}) == 3.0
    assert checks.retry_after({}) is None
    assert checks.back_off(0, 3.0, rng) == 3.0
    assert all(0.05 <= checks.back_off(0, None, rng) <= 0.1 for _ in range(50))
    assert all(2.5 <= checks.back_off(9, None, rng) <= 5.0 for _ in range(50))
    assert checks.back_off(0, 3600.0, rng) == 5.0


def test_requests_are_mixed_and_all_valid() -> None:
    rng = random.Random(2)
    bodies = [checks.random_body(rng) for _ in range(200)]
    assert {(each["width"], each["height"]) for each in bodies} == set(checks.SIZES)
    assert {each["n"] for each in bodies} == {1, 2, 3}
    assert all(each["width"] % 8 == each["height"] % 8 == 0 for each in bodies)
