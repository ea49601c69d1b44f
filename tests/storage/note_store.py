"""A store that keeps one object per bucket and can do nothing else: what a core needs to begin a log, and no more.

One server for this process; each folder has a store of its own, by the first part of the path.
"""

import functools
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BUCKET = "darkroom-public"
_EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
_MISSING = b"<Error><Code>NoSuchKey</Code></Error>"


def url(folder: Path) -> str:
    """The endpoint for a core in this folder. Its queues, and all buckets but the public one, answer 503."""
    port = _server().server_address[1]
    return f"http://127.0.0.1:{port}/{sha256(bytes(folder)).hexdigest()[:16]}"


@functools.cache
def _server() -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, name="note_store", daemon=True).start()
    return server


_objects: dict[str, bytes] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def _key(self) -> str:
        """Store, bucket and key; empty for what is not served."""
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/", 2)
        served = len(parts) > 1 and parts[1] == _BUCKET
        return path if served and (len(parts) == 3 or not query or "list-type" in query) else ""

    def do_HEAD(self) -> None:
        self._answer(200 if self._key else 503)

    def do_GET(self) -> None:
        key = self._key
        if not key:
            self._answer(503)
        elif "list-type" in self.path:
            self._answer(200, _EMPTY)
        elif key in _objects:
            self._answer(200, _objects[key])
        else:
            self._answer(404, _MISSING)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._key:
            _objects[self._key] = body
        self._answer(200 if self._key else 503)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(503)

    def log_message(self, *_: object) -> None:
        pass
