"""What core says becomes a body of the documented shape, whatever state it is in."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.bodies import responses, views
from gateway.pictures.link_secrets import drawn_from
from gateway.pictures.signing import Urls
from schema import fast, pb

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_u32 = st.integers(0, 2**32 - 1)
URLS = Urls(origin="http://h", tenant="alice", expires_s=2_000_000_000, secret=drawn_from("s" * 32))
_statuses = st.integers(1, 6)


@st.composite
def generations(draw: st.DrawFn) -> fast.GenerationView:
    n = draw(st.integers(1, 10))
    images = [
        fast.ImageView(
            index=index,
            status=pb.ImageStatus(draw(st.integers(1, 5))),
            seed=draw(_u32),
            public_key="token/x.png",
            sha256=b"\x07" * 32,
            size_bytes=draw(st.integers(1, 10**8)),
            failure=pb.AttemptFailure(draw(st.integers(0, 8))),
            progress_step=draw(st.integers(0, 200)),
        )
        for index in range(n)
    ]
    return fast.GenerationView(
        generation_id="gen_" + "0" * 26,
        status=pb.GenerationStatus(draw(_statuses)),
        version=draw(st.integers(1, 1000)),
        spec=fast.GenerationSpec(
            model="m",
            width=64,
            height=64,
            num_inference_steps=draw(st.integers(1, 150)),
            guidance_scale=1.0,
            n=n,
            output_format=pb.OutputFormat(draw(st.integers(1, 3))),
        ),
        prompts=fast.Prompts(prompt=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))),
        requested_at_ms=draw(st.integers(1, 4 * 10**12)),
        started_at_ms=draw(st.integers(0, 4 * 10**12)),
        images=images,
        backlog_position=draw(st.integers(0, 100)),
        progress_revision=draw(st.integers(0, 100)),
        erased=draw(st.booleans()),
    )


@relaxed
@given(generations())
def test_every_body_is_of_the_documented_shape(view: fast.GenerationView) -> None:
    body = responses.Generation.model_validate(views.body(view, "", URLS))
    if body.progress is not None:
        assert 0 <= body.progress.step <= body.progress.steps
    for image in body.images:
        gone = view.erased or body.status in ("cancelled", "expired")
        assert (image.url is not None) is (image.status == "published" and not gone)
        assert (image.signed_url is None) is (image.signed_url_expires_at is None) is (image.url is None)
        assert (image.error is not None) is (image.status == "failed")
        assert (image.sha256 is not None) is (image.status == "published")


def test_the_tag_moves_with_all_that_can_move() -> None:
    moved: list[dict[str, Any]] = [{}, {"version": 2}, {"images": [_running(step=1)]}, {"backlog_position": 4}]
    tags = [views.etag(_view(**{"version": 1, "backlog_position": 3, **each}), URLS) for each in moved]
    assert len(set(tags)) == 4
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)


def test_the_tag_tells_steps_apart_that_two_lives_of_core_counted_alike() -> None:
    """Core's count of progress reports begins anew when it starts again, while the steps go on."""
    before, after = (_view(version=4, progress_revision=3, images=[_running(step=step)]) for step in (3, 12))
    assert views.body(before, "", URLS) != views.body(after, "", URLS)
    assert views.etag(before, URLS) != views.etag(after, URLS)


def _running(*, step: int) -> fast.ImageView:
    return fast.ImageView(status=pb.ImageStatus(pb.ImageStatus.RUNNING), progress_step=step)


def _view(**fields: Any) -> fast.GenerationView:
    running = pb.GenerationStatus(pb.GenerationStatus.RUNNING)
    return fast.GenerationView(status=running, spec=fast.GenerationSpec(num_inference_steps=20), **fields)


def test_links_begin_with_the_public_address() -> None:
    image = fast.ImageView(status=pb.ImageStatus(3))
    view = fast.GenerationView(generation_id="gen_1", status=pb.GenerationStatus(3), images=[image])
    body = views.body(view, "https://api.example.org/x", URLS)
    assert body["links"]["cancel"] == "https://api.example.org/x/v1/generations/gen_1/cancel"
    assert body["images"][0]["url"] == "https://api.example.org/x/v1/generations/gen_1/images/0"


def test_a_time_is_rfc_3339_with_milliseconds() -> None:
    view = fast.GenerationView(requested_at_ms=1_763_818_000_007)
    assert views.body(view, "", URLS)["created_at"] == "2025-11-22T13:26:40.007Z"
    assert views.body(view, "", URLS)["started_at"] is None


def test_every_failure_that_core_knows_has_a_name_for_clients() -> None:
    for each in pb.AttemptFailure:
        code = "unknown" if each == 0 else str(each.name).lower()
        assert views.failure(int(each))["code"] == code


def test_what_a_later_core_says_is_shown_as_unknown() -> None:
    assert views.failure(99)["code"] == "unknown"
    assert views.status_name(fast.GenerationView(status=pb.GenerationStatus(0))) == "unknown"


def test_why_a_model_is_out_is_told_and_what_a_model_raised_is_not() -> None:
    detail = "1 of 1 images failed: unet/model.safetensors is a git-lfs pointer"
    for failure, told in (
        (pb.AttemptFailure.MODEL_BROKEN, True),
        (pb.AttemptFailure.REFUSED, True),
        (pb.AttemptFailure.MODEL_ERROR, False),
    ):
        image = fast.ImageView(status=pb.ImageStatus(pb.ImageStatus.FAILED), failure=pb.AttemptFailure(failure))
        view = fast.GenerationView(
            status=pb.GenerationStatus(pb.GenerationStatus.FAILED), images=[image], failure_detail=detail
        )
        assert (detail in views.body(view, "", URLS)["error"]["message"]) is told
