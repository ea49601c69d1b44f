"""Pictures as other machines, pages and clients fetch them: through real processes, on every address of the machine."""

import http.client
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests import browser
from tests.api import Answer, Body, fetch
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

pytestmark = pytest.mark.timeout(240)
LIFE_S = 8


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"DARKROOM_GATEWAY_HOST": "::", "DARKROOM_GATEWAY_SIGNED_URL_S": "600"}
    with Stack(tmp_path_factory.mktemp("pictures"), gateways=2, gateway_env=env) as stack:
        yield stack
        invariants.check(stack)


@pytest.fixture(scope="module")
def body(stack: Stack) -> Body:
    client = stack.client()
    return client.succeeded([client.submit(width=256, height=256, output_format="webp")["id"]])[0]


def by_url(url: str, method: str = "GET", **headers: str) -> Answer:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    return fetch(parts.hostname or "", parts.port or 80, method, path, None, sent, 30)


def test_the_stable_link_gives_the_picture_by_get_head_and_range(stack: Stack, body: Body) -> None:
    client, path = stack.client(), body["images"][0]["url"]
    whole = client.call("GET", path)
    assert whole.status == 200
    assert whole.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(whole.body)).size == (256, 256)
    assert len(whole.body) == body["images"][0]["size_bytes"] == int(whole.headers["content-length"])
    assert whole.headers["etag"] == f'"{body["images"][0]["sha256"]}"'
    head = client.call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    part = client.call("GET", path, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert client.call("GET", path, headers={"If-None-Match": whole.headers["etag"]}).status == 304
    assert stack.client("bob").call("GET", path).status == 404


def test_the_signed_url_works_from_every_address_and_at_every_gateway(stack: Stack, body: Body) -> None:
    whole = stack.client().picture(body["id"]).body
    url = body["images"][0]["signed_url"]
    assert url.startswith(f"http://127.0.0.1:{stack.gateway_ports[0]}/")
    query = urlsplit(url)
    for host in ("127.0.0.1", "127.0.0.2", "[::1]", "localhost"):
        for port in stack.gateway_ports:
            answer = by_url(f"http://{host}:{port}{query.path}?{query.query}", Authorization="Bearer wrong")
            assert (answer.status, answer.body) == (200, whole), (host, port)
    assert by_url(url, "HEAD").headers["content-length"] == str(len(whole))
    assert by_url(url, Range="bytes=-5").body == whole[-5:]
    for host in ("127.0.0.2", "::1"):
        headers = {"Authorization": f"Bearer {stack.client().key}"}
        shown = fetch(host, stack.gateway_ports[1], "GET", f"/v1/generations/{body['id']}", None, headers, 30).json()
        netloc = f"[{host}]" if ":" in host else host
        own = shown["images"][0]["signed_url"]
        assert own.startswith(f"http://{netloc}:{stack.gateway_ports[1]}/")
        assert by_url(own).body == whole


def test_an_altered_or_ended_url_is_refused(stack: Stack, body: Body) -> None:
    url = body["images"][0]["signed_url"]
    for wrong in (url[:-1] + ("A" if url[-1] != "A" else "B"), url.replace("/images/0", "/images/1")):
        by_url(wrong).problem(403, "signed-url-invalid")
    with restarted(stack, DARKROOM_GATEWAY_SIGNED_URL_S=str(LIFE_S)):
        client = stack.client()
        short = client.get(body["id"])["images"][0]["signed_url"]
        assert by_url(short).status == 200
        until(lambda: by_url(short).status == 403, LIFE_S + 20, what="it ends", every_s=0.5)
        by_url(short).problem(403, "signed-url-expired")
        assert by_url(url).status == 200, "the secret has survived the restart"


@contextmanager
def restarted(stack: Stack, **env: str) -> Iterator[None]:
    stack.gateways[0].stop()
    stack.restart_gateway(0, **env)
    try:
        yield
    finally:
        stack.gateways[0].stop()
        stack.restart_gateway(0)


@contextmanager
def site(html: str) -> Iterator[str]:
    """A page of an origin of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


_SIZES = """() => Promise.all([...document.images].map(async image => {
    await (image.complete ? null : new Promise(done => { image.onload = image.onerror = done }));
    return image.naturalWidth;
}))"""


def test_a_page_of_another_origin_shows_it(stack: Stack, body: Body) -> None:
    url = body["images"][0]["signed_url"]
    stable = f"http://127.0.0.1:{stack.gateway_ports[0]}{body['images'][0]['url']}"
    html = f'<!doctype html><img src="{url}"><img src="{stable}"><img src="{url[:-2]}">'
    with site(html) as origin, browser.page() as page:
        page.goto(origin.replace("127.0.0.1", "localhost"))
        assert page.evaluate(_SIZES) == [256, 0, 0], "the signed one alone is shown"
        page.goto(url)
        assert page.evaluate(_SIZES) == [256], "opened by itself"


def test_a_client_that_hangs_up_leaves_nothing_open(stack: Stack, body: Body) -> None:
    path = urlsplit(body["images"][0]["signed_url"])
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", stack.gateway_ports[0], timeout=10)
        connection.request("GET", f"{path.path}?{path.query}")
        connection.close()

    def idle() -> bool:
        return stack.metrics(stack.gateway_admins[0])["darkroom_gateway_picture_streams"] == 0.0

    until(idle, 20)
