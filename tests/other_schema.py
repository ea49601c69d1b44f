"""Peers that speak an older or a newer schema, made on the wire: messages changed on their way between real processes.

`newer` adds fields that nobody here knows, to a message and to all that it holds. `older` takes away what a peer of an
older schema might not send yet: every field without which the contract (`schema/validate.py`) can do. `Relay` stands
before core and does either to every call and answer; `fault_actions.rewritten` does it to what goes to a queue.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.server import Server

from schema import fast, messages
from schema.envelope import Envelope, seal, unseal
from tests.fault_proxy import InThread
from tests.process import free_port

Change = Callable[[Any], None]

_UNKNOWN = bytes.fromhex("a038ffffffff0f") + b"\xaa\x38\x0atomorrow's" + b"\xb2\x38\x02\x08\x07"
"""Field 900 a number, 901 a text, 902 a message."""
_NOT_NEEDED = {
    "ImageJob": ("priority", "solo", "requested_at_ms", "trace"),
    "ImageStarted": ("solo",),
    "ImageRendered": ("timings",),
    "ImageAttemptFailed": ("solo", "detail"),
    "RenderFacts": (
        "engine",
        "model",
        "model_revision",
        "scheduler",
        "dtype",
        "device",
        "libraries",
        "batch_members",
        "guidance",
        "guidance_scale",
        "negative_prompt",
        "rendered_width",
        "rendered_height",
    ),
    "SubmitItem": ("priority", "ttl_s", "trace"),
    "GenerationView": ("backlog_position", "failure_detail", "progress_revision", "priority", "ttl_s"),
    "ImageView": ("progress_step", "failure"),
    "HeldImage": ("running", "step"),
}


def untouched(message: Any) -> None:
    """A peer with the same schema: changes nothing."""


def newer(message: Any) -> None:
    """Unknown fields, in the message and in all that it holds."""
    for inner in _held(message):
        newer(inner)
    message.MergeFromString(_UNKNOWN)


def older(message: Any) -> None:
    """Without the fields that are not needed, in the message and in all that it holds."""
    for name in _NOT_NEEDED.get(message.DESCRIPTOR.name, ()):
        message.ClearField(name)
    for inner in _held(message):
        older(inner)


def _held(message: Any) -> list[Any]:
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            found += [value] if hasattr(value, "ListFields") else list(value)
    return found


def in_queue(change: Change, *, version: int = 0) -> Callable[[bytes], bytes]:
    """`change` for a sealed queue message; `version` replaces that of its envelope."""

    def rewrite(body: bytes) -> bytes:
        envelope = unseal(body)
        message = messages.decode(body)
        change(message)
        return seal(
            Envelope(type=envelope.type, version=version or envelope.version, payload=message.SerializeToString())
        )

    return rewrite


class Relay(InThread):
    """Core's API at `port`, in front of core at `target`; `missing` calls are unknown to this core."""

    def __init__(self, target: int = 0) -> None:
        super().__init__()
        self.port = free_port()
        self.target = target
        self.change: Change = untouched
        self.missing: frozenset[str] = frozenset()
        self.calls = 0

    async def start(self) -> Callable[[], Awaitable[None]]:
        server = Server([self])
        await server.start("127.0.0.1", self.port)
        self._channels: list[Channel] = []

        async def stop() -> None:
            server.close()
            for channel in self._channels:
                channel.close()
            await server.wait_closed()

        return stop

    def __mapping__(self) -> dict[str, Handler]:
        names = ("Submit", "Get", "List", "Cancel", "StillWanted", "Models")
        kinds: dict[str, tuple[Any, Any]] = {
            f"/darkroom.v1.Core/{name}": (getattr(fast, f"{name}Request"), getattr(fast, f"{name}Reply"))
            for name in names
        }
        kinds["/grpc.health.v1.Health/Check"] = (HealthCheckRequest, HealthCheckResponse)
        return {
            path: Handler(self._call(path, *classes), Cardinality.UNARY_UNARY, *classes)
            for path, classes in kinds.items()
        }

    def _call(self, path: str, asked: type[Any], answered: type[Any]) -> Any:
        async def serve(stream: Any) -> None:
            request = await stream.recv_message()
            if path.rpartition("/")[2] in self.missing:
                raise GRPCError(Status.UNIMPLEMENTED)
            changes = self.change if path.startswith("/darkroom") else untouched
            changes(request)
            channel = Channel("127.0.0.1", self.target)  # one each: waiting calls must not fill a shared one
            self._channels.append(channel)
            try:
                reply = await UnaryUnaryMethod(channel, path, asked, answered)(request)
            finally:
                channel.close()
                self._channels.remove(channel)
            changes(reply)
            self.calls += 1
            await stream.send_message(reply)

        return serve
