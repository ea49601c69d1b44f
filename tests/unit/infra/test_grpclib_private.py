"""Each private part of grpclib that `infra.grpclib_private` uses is still there, and does what it is used for."""

import asyncio
from typing import Any

import grpclib
import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.health.service import Health
from grpclib.server import Server

from infra import grpclib_private, rpc
from schema import pb
from tests.emulators import free_port
from tests.unit.infra.test_rpc import Core, served


def test_the_installed_grpclib_is_the_one_that_was_tested() -> None:
    assert grpclib.__version__ == grpclib_private.TESTED_GRPCLIB


@pytest.mark.asyncio
async def test_a_channel_keeps_its_connection_and_h2_below_it_counts_stream_ids() -> None:
    async with served(Core()) as target:
        channel = rpc.open_channel(target, token="right")
        assert isinstance(channel, grpclib_private.RenewedChannel)
        library: Any = channel
        assert not library._protocol
        try:
            for next_id in (3, 5):  # ids of a client are odd, and the first call has 1
                await pb.CoreStub(channel).get(pb.GetRequest())
                assert library._protocol.connection._connection.get_next_available_stream_id() == next_id
        finally:
            channel.close()


def test_the_settings_of_pings_arrive_in_the_server() -> None:
    config = grpclib_private.ping_settings(9.0).__for_server__()
    pings = {name: getattr(config, name) for name in ("_keepalive_time", "_keepalive_timeout")}
    assert pings == {"_keepalive_time": 9.0, "_keepalive_timeout": 3.0}
    assert config._keepalive_permit_without_calls
    assert config._http2_max_pings_without_data == 0
    assert config._http2_min_sent_ping_interval_without_data == 4.5


@pytest.mark.asyncio
async def test_each_connection_of_a_server_passes_the_wrapper() -> None:
    made = []

    class Counting(grpclib_private.WrappedServer):
        def wrapped(self, make: Any) -> asyncio.Protocol:
            made.append(make)
            return super().wrapped(make)

    server, port = Counting([Core(), Health()]), free_port()
    await server.start("127.0.0.1", port)
    try:
        for _ in range(2):
            channel = Channel("127.0.0.1", port)
            await pb.CoreStub(channel).get(pb.GetRequest())
            channel.close()
    finally:
        server.close()
        await server.wait_closed()
    assert len(made) == 2


@pytest.mark.asyncio
async def test_the_size_of_a_message_is_checked_before_its_bytes_are_read() -> None:
    sizes: list[int] = []

    class Checking(Core):
        def __mapping__(self) -> Any:
            mapping = super().__mapping__()

            async def get(stream: Any) -> None:
                grpclib_private.check_sizes(stream, check)
                await stream.recv_message()

            name = "/darkroom.v1.Core/Get"
            return {**mapping, name: mapping[name]._replace(func=get)}

    def check(size: int) -> None:
        sizes.append(size)
        if size > 5:
            raise GRPCError(Status.INVALID_ARGUMENT, "too long")

    server, port = Server([Checking()]), free_port()
    await server.start("127.0.0.1", port)
    channel = Channel("127.0.0.1", port)
    try:
        with pytest.raises(GRPCError, match="too long"):
            await pb.CoreStub(channel).get(pb.GetRequest(generation_id="x" * 100))
    finally:
        channel.close()
        server.close()
        await server.wait_closed()
    assert sizes == [5, 102], "the prefix of a message, then its length"


@pytest.mark.asyncio
async def test_a_call_on_a_lost_connection_fails_with_an_error_of_the_missing_transport() -> None:
    async with served(Core()) as target:
        host, _, port = target.partition(":")
        channel = Channel(host, int(port))
        rpc.attach(channel, token="right")
        try:
            await pb.CoreStub(channel).get(pb.GetRequest())
            protocol: Any = channel._protocol
            protocol.processor.connection.close()
            with pytest.raises(AttributeError) as caught:
                await pb.CoreStub(channel).get(pb.GetRequest())
        finally:
            channel.close()
    assert grpclib_private.is_lost_connection(caught.value)
