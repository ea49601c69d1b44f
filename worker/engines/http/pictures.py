"""Pictures in the answers of foreign model servers: none of it is believed before it has been looked at."""

import base64
import binascii
import json
from io import BytesIO

from worker.engines.contract import EncodedPicture
from worker.engines.errors import BadOutput, Refused
from worker.engines.http.calls import REFUSED_FOR_GOOD, error_code


def from_base64(body: bytes) -> bytes:
    """The file in an answer of the OpenAI Images API."""
    try:
        data = json.loads(body)["data"][0]["b64_json"]
        return base64.b64decode(data, validate=True)
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
        if (code := error_code(body)) in REFUSED_FOR_GOOD:
            raise Refused(f"the model server answered 200 ({code})") from None
        raise BadOutput("the model server's answer holds no picture in base64") from None


def looked_at(data: bytes, scheduler: str) -> EncodedPicture:
    """A file with the size and the kind that its header says. Its pixels are checked where it is encoded."""
    from PIL import Image  # noqa: PLC0415  (pixels from our own server need no Pillow)

    try:
        with Image.open(BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as image:
            width, height = image.size
            media_type = f"image/{(image.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadOutput(f"the model server's answer is no picture ({type(error).__name__})") from None
    return EncodedPicture(width=width, height=height, data=data, media_type=media_type, scheduler=scheduler)
