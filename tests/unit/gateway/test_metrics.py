"""What the admin port shows of the gateway, and that the public one does not."""

from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.unit.gateway.harness import Rig, rig


async def metrics(gateway: Rig) -> str:
    async with gateway.session.get(f"http://127.0.0.1:{gateway.admin_port}/metrics") as answer:
        return await answer.text()


@pytest.mark.asyncio
async def test_requests_submissions_batches_and_keys_are_counted(tmp_path: Path) -> None:
    async with rig(tmp_path, tenants=("a", "b")) as gateway:
        for _ in range(3):
            assert (await gateway.submit()).status == 202
        (await gateway.submit(width=100)).problem(422)
        await gateway.call("GET", "/nowhere")
        shown = await metrics(gateway)
        for line in (
            'darkroom_gateway_requests_total{operation="createGeneration",status="202"} 3.0',
            'darkroom_gateway_requests_total{operation="createGeneration",status="422"} 1.0',
            'darkroom_gateway_requests_total{operation="unmatched",status="404"} 1.0',
            'darkroom_gateway_request_seconds_count{operation="createGeneration"} 4.0',
            'darkroom_gateway_submissions_total{outcome="accepted"} 3.0',
            "darkroom_gateway_submit_batch_items_sum 3.0",
            "darkroom_gateway_keys 2.0",
            "darkroom_gateway_core_up 1.0",
            "darkroom_gateway_submissions_waiting 0.0",
        ):
            assert line in shown.splitlines(), line
        (await gateway.call("GET", "/metrics")).problem(404)


@pytest.mark.asyncio
async def test_a_core_that_goes_away_is_seen_on_both_ports(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        gateway.core.serving = False
        await eventually(gateway.answers("/readyz", 503))
        assert "darkroom_gateway_core_up 0.0" in await metrics(gateway)
        async with gateway.session.get(f"http://127.0.0.1:{gateway.admin_port}/readyz") as answer:
            assert answer.status == 503
        gateway.core.serving = True
        await eventually(gateway.answers("/readyz", 200))
