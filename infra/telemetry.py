"""Logs and traces, set up once per process; modules themselves only call structlog.get_logger and trace.get_tracer.

Logs go to stderr: JSON, or readable lines on a terminal. A line logged inside a span carries its trace and span ids.
Prompts, keys, tokens and signed links are redacted by field name and, as a last resort, by pattern. A line that cannot
be written raises nothing: the next one says how many were missed. Traces follow the standard `OTEL_*` variables; with
no exporter named there no SDK is imported, and a span costs next to nothing.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, TextIO, cast

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from infra import journal
from infra.settings import Settings

REDACTED = "[redacted]"
_SECRET_KEYS = frozenset(
    {
        *("prompt", "negative_prompt", "prompts", "text", "body", "payload"),
        *("authorization", "api_key", "key", "token", "internal_token", "secret", "password", "cookie"),
        *("link", "links", "url", "location", "public_token", "public_key", "signed_url", "signature"),
    }
)
_SECRET_PATTERNS = re.compile(
    r"(?<![A-Za-z0-9])dk_[A-Za-z0-9]+_[A-Za-z0-9_-]+"  # API keys
    r"|(?<=Bearer )[^\s\"',}]+"
    r"|(?<=[?&]signature=)[^&\s\"'<>]+"  # signed URLs of images
    r"|(?<=X-Amz-Signature=)[0-9a-fA-F]+|(?<=X-Amz-Security-Token=)[^&\s\"']+|(?<=X-Amz-Credential=)[^&\s\"']+"
)
# These log requests, bodies and all, below WARNING.
_CHATTY = (
    *("botocore", "aiobotocore", "aiohttp.access", "urllib3", "hpack", "h2", "grpclib", "asyncio", "aiosqlite"),
    *("filelock",),
)
_DEPTH = 6


def set_up(service_name: str, settings: Settings, *, stream: TextIO | None = None) -> Callable[[], None]:
    """Configures this process's logs (to `stream`, stderr by default) and traces.

    Call the result before the process ends: it flushes the spans and shuts the exporter down.
    """
    _set_up_logs(service_name, settings, stream or sys.stderr)
    return _set_up_traces(service_name)


class _Lines:
    """Lines to `stream`, as a file for loggers: a full disk or a log reader that is gone must not end a service.

    `missed` counts those since the last that got through: they are lost, or come late out of the stream's own buffer.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.missed = 0

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self.missed += 1
        else:
            self.missed = 0

    def flush(self) -> None:
        """Done by `write`."""


def _set_up_logs(service_name: str, settings: Settings, stream: TextIO) -> None:
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    readable = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service_name)
        return event

    lines = _Lines(stream)
    cheap = journal.Output(write=lines.write, missed=lambda: lines.missed, service=service_name)
    journal.direct(None if readable or level > logging.INFO else cheap)

    def add_missed(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if lines.missed:
            event["log_lines_missed"] = lines.missed
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        add_trace_ids,
        add_missed,
        *([] if settings.log_model_errors else [without_error_text]),
        redact,
    ]
    render = _rendering(readable=readable, colors=stream.isatty())
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _rendering(*, readable: bool, colors: bool) -> Sequence[Processor]:
    """The last processors, which render a line. Neither kind prints a traceback's variables: they hold prompts."""
    if readable:
        console = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        return (console, scrub)
    return (structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str), scrub)


def add_trace_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The ids of the current span, where there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def without_error_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drops the text of a model's error, which may hold what a client wrote. Unused if `log_model_errors` is set."""
    event.pop("error_text", None)
    return event


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replaces values that must not be logged, found by their names at any depth."""
    return {name: REDACTED if name in _SECRET_KEYS else _redacted(value, _DEPTH) for name, value in event.items()}


def scrub(_: WrappedLogger, __: str, line: Any) -> Any:
    """Replaces keys, tokens and signatures anywhere in the finished line, tracebacks included."""
    return _SECRET_PATTERNS.sub(REDACTED, line)


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, MutableMapping):
        if depth == 0:
            return REDACTED
        return {
            name: REDACTED if str(name).lower() in _SECRET_KEYS else _redacted(inner, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(inner, depth - 1) if depth else REDACTED for inner in value]
    return value


def _set_up_traces(service_name: str) -> Callable[[], None]:
    exporter_name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or exporter_name == "none" or not (exporter_name or endpoint):
        return lambda: None
    # Imported here: 0.2 s that a process without tracing does not pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    exporter = ConsoleSpanExporter(out=sys.stderr) if exporter_name == "console" else OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def shutdown() -> None:
        provider.force_flush(timeout_millis=3_000)
        provider.shutdown()

    return shutdown
