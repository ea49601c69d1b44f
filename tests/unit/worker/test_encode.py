"""Files that an engine's server made: kept as they are, encoded again, or refused."""

from hashlib import sha256
from io import BytesIO
from random import Random
from typing import Any
from zlib import crc32

import pytest
from PIL import Image, PngImagePlugin

from worker.engines.contract import EncodedPicture
from worker.engines.errors import BadOutput
from worker.output.encode import encode

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
    files = [
        made("PNG", pnginfo=notes),
        made("JPEG", exif=exif),
        made("WEBP", exif=exif),
        made("JPEG", comment="a prompt"),
    ]
    for picture in files:
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


SECRET = b"a secret prompt"


def chunk(kind: bytes, data: bytes = SECRET) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + crc32(kind + data).to_bytes(4, "big")


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data


def webp_with(data: bytes, extra: bytes) -> bytes:
    whole = data + extra
    return whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]


@pytest.mark.parametrize("name", FORMS)
def test_nothing_but_the_picture_comes_through(name: str) -> None:
    """What a reader of pictures does not look at: private chunks, padded known ones, bytes behind the end."""
    plain = made(name).data
    files = [plain + SECRET]
    if name == "PNG":
        kinds = (b"caBX", b"prPt", b"eXIf", b"gAMA", b"tIME", b"PLTE")
        files += [plain[:33] + chunk(kind) + plain[33:] for kind in kinds]
        files += [plain[:-12] + chunk(b"prPt") + plain[-12:], plain + chunk(b"tEXt")]
    elif name == "JPEG":
        thumbnail = segment(0xE0, plain[6:18] + bytes((5, 1)) + SECRET)
        files += [plain[:2] + segment(marker, SECRET) + plain[2:] for marker in (0xEB, 0xED, 0xEF, 0xFE)]
        files += [plain[:2] + thumbnail + plain[20:]]
    else:
        files += [webp_with(plain, b"C2PA" + len(SECRET).to_bytes(4, "little") + SECRET + b"\0")]
    for data in files:
        assert SECRET in data
        picture = EncodedPicture(width=64, height=72, data=data, media_type=MEDIA[name])
        made_anew, _ = encode(picture, FORMS[name])
        assert SECRET not in made_anew
        with Image.open(BytesIO(made_anew)) as image:
            assert image.size == (64, 72)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNG", {"dpi": (72, 72), "compress_level": 0}),
        ("PNG", {"optimize": True}),
        ("JPEG", {"progressive": True, "restart_marker_blocks": 2}),
        ("JPEG", {"dpi": (72, 72), "subsampling": 2}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_files_as_servers_write_them_are_taken_as_they_are(name: str, options: dict[str, Any]) -> None:
    picture = made(name, **options)
    assert encode(picture, FORMS[name])[0] == picture.data
