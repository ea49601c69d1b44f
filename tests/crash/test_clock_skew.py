"""This machine's clock is an hour from that of queue and store: links are born expired, and every process says why."""

from pathlib import Path

from tests import fault_actions as a
from tests.eventually import until
from tests.fault_cloud import FaultyCloud, Rule
from tests.stack import Stack


def test_a_clock_that_is_an_hour_off_turns_readiness_off_everywhere(tmp_path: Path) -> None:
    with FaultyCloud(seed=1) as cloud:
        stack = Stack(tmp_path, env={"AWS_ENDPOINT_URL": cloud.url, "DARKROOM_WORKER_RECEIVE_WAIT_S": "1"})
        cloud.target = stack.emulator_port
        with stack:
            admins = [stack.core_admin, *stack.worker_admins]
            later = [Rule(each, a.dated(3600)) for each in ("HeadObject", "ReceiveMessage")]
            with cloud.faulty(*later):
                for admin in admins:
                    until(lambda admin=admin: told(stack, admin), 60, what="an hour behind")  # type: ignore[misc]
                stack.gateways[0].stop()
                stack.gateways[0].start()
                until(lambda: told(stack, stack.gateway_admins[0]), 60, what="the gateway asks by itself")
            for admin in admins:
                until(lambda admin=admin: stack.readiness(admin)[0] == 200, 60, what="the clock is set")  # type: ignore[misc]
            stack.gateways[0].stop()
            stack.restart_gateway()


def told(stack: Stack, admin: int) -> bool:
    status, text = stack.readiness(admin)
    hour = any(f"{number} s behind that of queue and store" in text for number in range(3590, 3611))
    return status == 503 and hour
