"""What the timeline draws, and that the pictures come out."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from loadtests import timeline
from loadtests.timeline_draw import LANES, Run, Span, colours, draw, lay_out, waits


def span(lane: str, names: str, began_s: float, ended_s: float) -> Span:
    return Span(lane=lane, names=tuple(names.split()), began_s=began_s, ended_s=ended_s)


def test_images_that_are_at_it_at_once_stand_in_rows_of_their_own() -> None:
    bars = lay_out([span("upload", "a", 0, 2), span("upload", "b", 1, 3), span("upload", "c", 2, 4)], "upload")
    assert {bar.name: bar.row for bar in bars} == {"a": 0, "b": 1, "c": 0}


def test_an_image_keeps_its_row_from_its_first_step_to_its_last() -> None:
    """b is parked during the second step: nobody takes its row meanwhile."""
    steps = [span("render", "a b", 0, 1), span("render", "a c", 1, 2), span("render", "b c", 2, 3)]
    rows = {(bar.name, bar.row) for bar in lay_out(steps, "render")}
    assert rows == {("a", 0), ("b", 1), ("c", 2)}


def test_polls_have_no_identity() -> None:
    polls = [span("receive", "4 messages", at, at + 1) for at in range(3)]
    assert [bar.row for bar in lay_out(polls, "receive")] == [0, 0, 0]


def test_the_gpu_waits_between_its_spans_and_not_before_or_after() -> None:
    spans = [
        span("receive", "x", 0, 1),
        span("render", "a", 1, 2),
        span("decode", "a", 2, 2.5),
        span("render", "b", 3, 4),
        span("render", "b", 4.0001, 5),
        span("upload", "a", 5, 9),
    ]
    assert waits(spans) == [(2.5, 0.5)]


def test_images_that_began_together_share_a_hue_and_all_are_told_apart() -> None:
    steps = [span("render", "a b", 0, 1), span("render", "a b c", 1, 2), span("render", "c d", 2, 3)]
    palette = colours(steps)
    assert len(set(palette.values())) == 4
    hues = {name: max(range(3), key=lambda channel: colour[channel]) for name, colour in palette.items()}
    assert hues["a"] == hues["b"] != hues["c"]


def test_both_files_are_drawn(tmp_path: Path) -> None:
    spans = [span(lane, "a", at, at + 1) for at, lane in enumerate(LANES)]
    paths = draw([Run(title="one", spans=spans), Run(title="none", spans=[])], "caption", tmp_path, "stem")
    assert [path.name for path in paths] == ["stem.svg", "stem.png"]
    assert ET.parse(paths[0]).getroot().tag.endswith("svg")
    with Image.open(paths[1]) as image:
        assert image.format == "PNG"
        assert image.width > 1000


@pytest.mark.parametrize("mode", timeline.MODES)
def test_a_run_of_each_mode_is_recorded_whole(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--images", "4", "--batch", "2", "--steps", "2", "--batch-ms", "20", "--store-ms", "20", "--px", "64"]
    assert timeline.main(["--mode", mode, "--out", str(tmp_path), *few]) == 0
    assert f"{mode}: 4 images" in capsys.readouterr().out
    assert (tmp_path / f"timeline-{mode}.png").stat().st_size > 1000


async def recorded(mode: str) -> Run:
    words = ["--images", "6", "--batch", "2", "--steps", "3", "--batch-ms", "60", "--store-ms", "60", "--px", "64"]
    return await timeline.run(mode, timeline.options(words))


@pytest.mark.asyncio
async def test_the_plain_loop_settles_each_image_before_the_next_begins() -> None:
    run = await recorded("plain")
    replies = sorted(each.ended_s for each in run.spans if each.lane == "reply")
    steps = [each for each in run.spans if each.lane == "render"]
    assert len(replies) == 6
    assert {len(each.names) for each in steps} == {1}
    firsts = [min(each.began_s for each in steps if each.names == names) for names in {each.names for each in steps}]
    assert all(done < begun for done, begun in zip(replies, sorted(firsts)[1:], strict=False))


@pytest.mark.asyncio
async def test_the_real_loop_renders_while_it_uploads_and_records_every_lane() -> None:
    run = await recorded("overlapped")
    by_lane = {lane: [each for each in run.spans if each.lane == lane] for lane in LANES}
    images = {f"gen_{number:026d}/0" for number in range(6)}
    for lane in ("render", "decode", "encode", "upload", "reply"):
        assert {name for each in by_lane[lane] for name in each.names} == images, lane
    assert by_lane["receive"]
    assert any(
        step.began_s < upload.ended_s and upload.began_s < step.ended_s
        for step in by_lane["render"]
        for upload in by_lane["upload"]
    )
    ordered = sorted(by_lane["render"] + by_lane["decode"], key=lambda each: each.began_s)
    assert all(one.ended_s <= other.began_s for one, other in pairwise(ordered))
