"""A stand-in for a foreign model server: the OpenAI Images API as vLLM-Omni and SGLang-Diffusion publish it.

Written from their published request schemas, with the standard library, and sharing no code with darkroom. Its
pictures are of one colour, which tells the seed. A prompt may order a fault: "fault:NAME" each time, "once:NAME" only
the first time.

https://docs.vllm.ai/projects/vllm-omni/en/stable/serving/image_generation_api/
https://github.com/sgl-project/sglang/blob/main/docs/diffusion/openai_api.md
"""

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image

KEY = "sk-a-key-that-must-not-show"


@dataclass
class Seen:
    """What the server was asked, and its settings. A nonzero `answer` is the status of every request for a picture;
    `about` is the body of /health, `headers` are added to each picture.
    """

    bodies: list[dict[str, Any]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    healthy: bool = True
    answer: int = 0
    about: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    looks: int = 0
    key: str = ""
    faults: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    release: threading.Event = field(default_factory=threading.Event)


def colour(seed: int) -> tuple[int, int, int]:
    return seed % 256, seed // 256 % 256, 77


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: Seen

    def do_GET(self) -> None:
        if self.path == "/health":
            self.seen.looks += 1
            return self._raw(200 if self.seen.healthy else 503, self.seen.about, {})
        if self.seen.key and self.headers.get("Authorization") != f"Bearer {self.seen.key}":
            return self._json(401, {"error": {"message": "invalid api key", "code": "invalid_api_key"}})
        return self._json(200, {"object": "list", "data": [{"id": "Qwen/Qwen-Image", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.seen.lock:
            self.seen.bodies.append(body)
            self.seen.at_s.append(time.monotonic())
            fault = self._fault(str(body.get("prompt", "")))
        if self.path != "/v1/images/generations":
            return self._json(404, {"detail": "Not Found"})
        if not self.seen.healthy:
            return self._json(503, {"detail": "Diffusion engine not initialized."})
        if self.seen.answer:
            return self._json(self.seen.answer, {"detail": "not now"})
        problem = self._problem(body)
        if problem:
            return self._json(422, {"detail": [{"loc": ["body", problem], "msg": "wrong", "input": body["prompt"]}]})
        return self._faulty(fault, body) if fault else self._json(200, self._pictures(body), self.seen.headers)

    def _fault(self, prompt: str) -> str:
        kind, _, name = prompt.partition(":")
        if kind == "fault":
            return name
        if kind != "once" or prompt in self.seen.faults:
            return ""
        self.seen.faults.add(prompt)
        return name

    @staticmethod
    def _problem(body: dict[str, Any]) -> str:
        if not isinstance(body.get("prompt"), str):
            return "prompt"
        if body.get("response_format", "url") != "b64_json":  # SGLang's default is url, and refused for generations
            return "response_format"
        if not 1 <= body.get("num_inference_steps", 1) <= 200:
            return "num_inference_steps"
        if not 0.0 <= body.get("guidance_scale", 1.0) <= 20.0:
            return "guidance_scale"
        return "" if "x" in body.get("size", "1024x1024") else "size"

    @staticmethod
    def _pictures(body: dict[str, Any], *, add: int = 0) -> dict[str, Any]:
        width, height = (int(side) + add for side in body["size"].split("x"))
        data = []
        for index in range(body.get("n", 1)):
            buffer = BytesIO()
            Image.new("RGB", (width, height), colour(body["seed"] + index)).save(buffer, "PNG")
            file = base64.b64encode(buffer.getvalue()).decode()
            data.append({"b64_json": file, "url": None, "revised_prompt": None})
        return {"created": 1701234567, "data": data, "output_format": "png", "size": body["size"]}

    def _faulty(self, fault: str, body: dict[str, Any]) -> None:
        whole = self._pictures(body)
        match fault.split("="):
            case ["status", status]:
                return self._json(int(status), {"detail": f"broken: {body['prompt']}"})
            case ["later", seconds]:
                return self._json(429, {"detail": "rate limited"}, {"Retry-After": seconds})
            case ["filter", status]:
                error = {"code": "content_policy_violation", "message": body["prompt"]}
                return self._json(int(status), {"error": error})
            case ["slow"]:
                self.seen.release.wait(60)
                return self._json(200, whole)
            case ["reset"]:
                return self._reset(json.dumps(whole).encode())
            case ["redirect"]:
                return self._json(302, {}, {"Location": "http://127.0.0.1:1/"})
            case ["size"]:
                return self._json(200, self._pictures(body, add=8))
            case ["html" | "list" | "huge" | "deep" as name]:
                bodies = {"html": b"<html>all is well</html>", "list": b"[]", "huge": b" " * 2_000_000}
                bodies["deep"] = b'{"data":' * 8_000
                return self._raw(200, bodies[name], {})
            case [wrong]:
                file = {
                    "base64": "!" + whole["data"][0]["b64_json"],
                    "cut": base64.b64encode(base64.b64decode(whole["data"][0]["b64_json"])[:20]).decode(),
                    "text": base64.b64encode(b"no picture").decode(),
                    "url": None,
                }[wrong]
                return self._json(200, {"created": 1, "data": [{"b64_json": file, "url": "http://127.0.0.1:1/x"}]})
        raise AssertionError(fault)

    def _reset(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _raw(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Silent."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is part of the tests."""


@contextmanager
def standin() -> Iterator[tuple[str, Seen]]:
    """Its address, and what it sees."""
    seen = Seen()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        seen.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
