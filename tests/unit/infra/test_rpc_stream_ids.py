"""A connection carries 2**30 calls and no more: what becomes of the next one."""

import asyncio
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.exceptions import StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from infra import rpc
from infra.retry import Retryable
from schema import pb
from tests.eventually import eventually
from tests.unit.infra.test_rpc import METHOD, Core, lost, served

pytestmark = pytest.mark.asyncio


def leave_ids(channel: Channel, number: int) -> None:
    """As if the connection had carried a billion calls: so many stream ids are left."""
    protocol: Any = channel._protocol
    h2 = protocol.connection._connection
    h2.highest_outbound_stream_id = h2.HIGHEST_ALLOWED_STREAM_ID - 2 * number


async def answered_on(channel: Channel) -> object:
    async with rpc.calling(METHOD, deadline_s=5):
        await pb.CoreStub(channel).get(pb.GetRequest(generation_id="x"))
    return channel._protocol


async def test_a_connection_that_has_used_up_its_stream_ids_is_replaced_before_the_next_call() -> None:
    core = Core()
    async with served(core) as target:
        channel = rpc.open_channel(target, token="right")
        try:
            first = await answered_on(channel)
            leave_ids(channel, 1)
            assert await answered_on(channel) is first
            renewed = await answered_on(channel)
            assert renewed is not first
            assert await answered_on(channel) is renewed
        finally:
            channel.close()
    assert core.calls == 4


async def test_calls_that_wait_on_a_used_up_connection_are_retryable() -> None:
    core = Core()
    async with served(core) as target:
        channel = rpc.open_channel(target, token="right")
        try:
            await answered_on(channel)
            leave_ids(channel, 1)
            waiting = asyncio.create_task(lost(pb.CoreStub(channel)))
            await eventually(lambda: core.waiting)
            await answered_on(channel)
            assert await waiting == 0
        finally:
            channel.close()


async def test_an_error_of_h2_is_retryable_and_one_of_grpclib_s_to_who_probes() -> None:
    async with served(Core()) as target:
        host, _, port = target.partition(":")
        channel = Channel(host, int(port))  # grpclib's own, which keeps a connection that is used up
        rpc.attach(channel, token="right")
        try:
            await answered_on(channel)
            leave_ids(channel, 0)
            with pytest.raises(Retryable):
                await answered_on(channel)
            with pytest.raises(StreamTerminatedError, match="NoAvailableStreamIDError"), rpc.contain_errors():
                await HealthStub(channel).Check(HealthCheckRequest())
        finally:
            channel.close()
