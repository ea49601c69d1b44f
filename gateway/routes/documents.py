"""The files behind `/openapi.json` and `/docs`, read once at start."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway.routes.context import Document
from gateway.routes.docs import OPENAPI, PAGE

_STATIC = Path(__file__).parent.parent / "static"
_HTML, _CSS, _JS = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_FILES = {
    PAGE: ("docs.html", _HTML),
    "docs/page.js": ("page.js", _JS),
    "docs/page.css": ("page.css", _CSS),
    "docs/swagger-ui.css": ("swagger-ui/swagger-ui.css", _CSS),
    "docs/swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", _JS),
    "docs/favicon-32x32.png": ("swagger-ui/favicon-32x32.png", "image/png"),
}


def load(description: Mapping[str, Any]) -> dict[str, Document]:
    """All documents by name. `description` is the OpenAPI document."""
    found = {name: _document((_STATIC / file).read_bytes(), kind) for name, (file, kind) in _FILES.items()}
    found[OPENAPI] = _document(json.dumps(description, indent=1).encode(), "application/json")
    return found


def _document(content: bytes, content_type: str) -> Document:
    return Document(content=content, content_type=content_type, etag=f'"{sha256(content).hexdigest()[:20]}"')
