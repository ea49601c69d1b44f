"""Logs hold no secret and name their trace; traces go out when, and only when, OTEL_* asks for it."""

import errno
import http.server
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from infra import lifecycle, telemetry
from infra.settings import Settings
from tests.emulators import clean_environment

CANARY = "canary-4711"
KEY = f"dk_abc_{CANARY}"
LINK = f"http://127.0.0.1/b/k?X-Amz-Credential={CANARY}&X-Amz-Signature=0123abc0123&x=1"


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    before, level = structlog.get_config(), logging.root.level
    handlers = logging.root.handlers[:]
    yield io.StringIO()
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def settings(log_format: str, monkeypatch: pytest.MonkeyPatch, level: str = "debug") -> Settings:
    monkeypatch.setenv("DARKROOM_LOG_FORMAT", log_format)
    monkeypatch.setenv("DARKROOM_LOG_LEVEL", level)
    return Settings()


def say_everything_secret() -> None:
    log = structlog.get_logger()
    log.info("image.rendered", prompt=CANARY, spec={"Negative_Prompt": CANARY, "deep": [{"api_key": CANARY}]})
    log.info("call", authorization=CANARY, link=LINK, headers={"Authorization": f"Bearer {CANARY}"})
    message = f"key {KEY} was used with Bearer {CANARY} for {LINK}"
    log.warning(message)
    logging.getLogger("some.library").error("token %s and %s", KEY, LINK)
    logging.getLogger("botocore.endpoint").debug("body %s", CANARY)
    try:
        secret_local = CANARY  # noqa: F841  (a renderer that shows locals would print it)
        raise RuntimeError(f"refused {KEY}")
    except RuntimeError:
        log.exception("went.wrong")
        logging.getLogger("some.library").exception("went wrong")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_holds_a_secret(log_format: str, monkeypatch: pytest.MonkeyPatch, output: io.StringIO) -> None:
    telemetry.set_up("darkroom-test", settings(log_format, monkeypatch), stream=output)
    say_everything_secret()
    text = output.getvalue()
    assert "image.rendered" in text
    assert "RuntimeError" in text
    assert text.count("went") >= 2
    assert CANARY not in text
    assert "0123abc0123" not in text


def test_json_lines_are_json_and_name_service_and_trace(monkeypatch: pytest.MonkeyPatch, output: io.StringIO) -> None:
    telemetry.set_up("darkroom-test", settings("auto", monkeypatch), stream=output)
    with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        structlog.get_logger().info("image.rendered", generation_id="gen_1", index=0)
        logging.getLogger("library").warning("beware")
    ours, theirs = (json.loads(line) for line in output.getvalue().splitlines())
    for line in (ours, theirs):
        assert line["service"] == "darkroom-test"
        assert line["trace_id"] == trace.format_trace_id(span.get_span_context().trace_id)
        assert line["span_id"] == trace.format_span_id(span.get_span_context().span_id)
    assert (ours["event"], ours["level"], ours["index"]) == ("image.rendered", "info", 0)
    assert (theirs["event"], theirs["logger"]) == ("beware", "library")


def test_the_level_holds_for_both_kinds_of_logger(monkeypatch: pytest.MonkeyPatch, output: io.StringIO) -> None:
    telemetry.set_up("darkroom-test", settings("json", monkeypatch, "warning"), stream=output)
    structlog.get_logger().info("quiet")
    logging.getLogger("library").info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in output.getvalue().splitlines()] == ["loud"]


class Disk(io.StringIO):
    """Full while told so."""

    full = False

    def flush(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("output")  # puts the set-up back
def test_lines_that_cannot_be_written_are_counted_in_the_next_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    telemetry.set_up("darkroom-test", settings("json", monkeypatch), stream=disk)
    structlog.get_logger().info("before")
    disk.full = True
    structlog.get_logger().warning("commit.refused")
    logging.getLogger("library").warning("beware")
    disk.full = False
    structlog.get_logger().info("after")
    logging.getLogger("library").warning("later")
    counted = {each["event"]: each.get("log_lines_missed") for each in map(json.loads, disk.getvalue().splitlines())}
    assert (counted["before"], counted["after"], counted["later"]) == (None, 2, None)


NOWHERE_TO_LOG = """
import logging, structlog
from infra import lifecycle, telemetry
from infra.settings import Settings
telemetry.set_up("darkroom-test", Settings())
async def main(shutdown):
    for _ in range(1000):
        structlog.get_logger().warning("commit.refused", reason="full")
        logging.getLogger("library").warning("beware")
    print("serves", flush=True)
    raise lifecycle.ConfigError("no")
raise SystemExit(lifecycle.run(main))
"""


@pytest.mark.parametrize("gone", ["full disk", "dead reader"])
def test_a_process_whose_log_cannot_be_written_goes_on(gone: str) -> None:
    reader, log = os.pipe()
    os.close(reader)
    if gone == "full disk":
        os.close(log)
        log = os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", NOWHERE_TO_LOG],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(log)
    assert (done.stdout, done.returncode) == ("serves\n", lifecycle.EXIT_MISCONFIGURED)


CHILD = """
import sys
from opentelemetry import trace
from infra import telemetry
from infra.settings import Settings
shutdown = telemetry.set_up("darkroom-test", Settings())
with trace.get_tracer("t").start_as_current_span("outer"):
    with trace.get_tracer("t").start_as_current_span("inner") as span:
        print(span.is_recording(), "opentelemetry.sdk.trace" in sys.modules)
shutdown()
"""


def run_child(**environment: str) -> str:
    clean = {name: value for name, value in clean_environment().items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=clean | environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


@contextmanager
def receiver() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A real OTLP/HTTP receiver on loopback."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="otlp")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", got
        server.shutdown()
        thread.join()


def test_without_an_exporter_no_sdk_is_loaded_and_nothing_recorded() -> None:
    assert run_child() == "False False"
    assert run_child(OTEL_TRACES_EXPORTER="none", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") == "False False"
    assert run_child(OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") == "False False"


def test_spans_reach_the_otlp_endpoint_under_the_services_name() -> None:
    with receiver() as (url, got):
        assert run_child(OTEL_EXPORTER_OTLP_ENDPOINT=url) == "True True"
    (resource_spans,) = (each for request in got for each in request.resource_spans)
    attributes = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
    assert attributes["service.name"] == "darkroom-test"
    assert {span.name for scope in resource_spans.scope_spans for span in scope.spans} == {"outer", "inner"}


def test_the_standard_sampler_variables_hold() -> None:
    with receiver() as (url, got):
        output = run_child(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_TRACES_SAMPLER="always_off")
    assert output == "False True"
    assert got == []


def test_an_unreachable_endpoint_delays_the_exit_only_a_little() -> None:
    assert run_child(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="2") == "True True"


def test_signed_urls_of_images_lose_their_signature() -> None:
    line = "GET /v1/generations/gen_1/images/0?expires=1800003600&signature=0a1b2c3d.QUJD_x-9 HTTP/1.1"
    for text in (line, f'{{"at": "{line}"}}', "http://h/i?signature=0a1b2c3d.QUJD_x-9&expires=1"):
        clean = telemetry.scrub(None, "", text)
        assert "QUJD" not in clean
        assert "expires=1" in clean
