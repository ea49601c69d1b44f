"""Pictures in the responses of foreign model servers: nothing is trusted before it has been checked."""

import base64
import binascii
import json
from io import BytesIO

from worker.engines.contract import EncodedPicture
from worker.engines.errors import BadOutput, Refused
from worker.engines.http.calls import REFUSED_FOR_GOOD, error_code


def from_base64(body: bytes) -> bytes:
    """The file in a response of the OpenAI Images API. Raises Refused for an error that blames the request, BadOutput
    for any other response without a picture.
    """
    try:
        data = json.loads(body)["data"][0]["b64_json"]
        return base64.b64decode(data, validate=True)
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
        if (code := error_code(body)) in REFUSED_FOR_GOOD:
            raise Refused(f"the model server answered 200 ({code})") from None
        raise BadOutput("the model server's answer holds no picture in base64") from None


def looked_at(data: bytes, scheduler: str) -> EncodedPicture:
    """The file, with size and type from its header. Raises BadOutput. Its pixels are checked by the encoder."""
    from PIL import Image  # noqa: PLC0415  (pixels from our own server need no Pillow)

    try:
        with Image.open(BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as image:
            width, height = image.size
            media_type = f"image/{(image.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadOutput(f"the model server's answer is no picture ({type(error).__name__})") from None
    return EncodedPicture(width=width, height=height, data=data, media_type=media_type, scheduler=scheduler)
