"""Files that an engine's server made: taken as they are, or made anew, or refused."""

from hashlib import sha256
from io import BytesIO
from random import Random

import pytest
from PIL import Image, PngImagePlugin

from worker.encode import encode
from worker.engines.contract import EncodedPicture
from worker.errors import BadOutput

FORMS = {"PNG": 1, "WEBP": 2, "JPEG": 3}
MEDIA = {"PNG": "image/png", "WEBP": "image/webp", "JPEG": "image/jpeg"}


def made(name: str, *, mode: str = "RGB", width: int = 64, height: int = 72, **options: object) -> EncodedPicture:
    image = Image.frombytes(mode, (width, height), Random(1).randbytes(width * height * len(mode)))
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return EncodedPicture(width=width, height=height, data=buffer.getvalue(), media_type=MEDIA[name])


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_the_asked_format_is_taken_as_it_is(name: str) -> None:
    picture = made(name)
    assert encode(picture, FORMS[name]) == (picture.data, sha256(picture.data).digest())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("asked", FORMS)
def test_another_format_is_made_anew(name: str, asked: str) -> None:
    data, digest = encode(made(name), FORMS[asked])
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == (asked, (64, 72), "RGB")
    assert digest == sha256(data).digest()


def test_a_text_inside_the_file_does_not_come_through() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("parameters", "a prompt that must not be kept")
    exif = Image.Exif()
    exif[0x010E] = "a prompt that must not be kept"
    told = [
        made("PNG", pnginfo=notes),
        made("JPEG", exif=exif),
        made("WEBP", exif=exif),
        made("JPEG", comment="a prompt"),
    ]
    for picture in told:
        assert b"a prompt" in picture.data
        name = picture.media_type.partition("/")[2].upper()
        data, _ = encode(picture, FORMS[name])
        assert b"a prompt" not in data


def test_an_alpha_channel_goes() -> None:
    data, _ = encode(made("PNG", mode="RGBA"), FORMS["PNG"])
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("name", FORMS)
def test_what_is_no_whole_picture_of_its_size_is_refused(name: str) -> None:
    picture = made(name)
    cut = picture.data[: len(picture.data) // 2]
    for data, width in ((cut, 64), (b"", 64), (b"no picture at all", 64), (picture.data, 72)):
        with pytest.raises(BadOutput):
            encode(EncodedPicture(width=width, height=72, data=data, media_type=MEDIA[name]), FORMS[name])


def test_a_gif_is_no_picture_here() -> None:
    buffer = BytesIO()
    Image.new("L", (64, 72)).save(buffer, "GIF")
    with pytest.raises(BadOutput):
        encode(EncodedPicture(width=64, height=72, data=buffer.getvalue(), media_type="image/gif"), 1)
