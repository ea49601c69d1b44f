"""Queue and store cannot be reached, at start or later: accept, say so, and go on by oneself (faults.md 34)."""

from pathlib import Path

from tests.api import Client
from tests.e2e import invariants
from tests.eventually import until
from tests.fault_proxy import TcpProxy
from tests.stack import Stack


def test_everything_starts_and_accepts_without_queue_and_store(tmp_path: Path) -> None:
    """With a log: the very first start asks the store whether there has been one before."""
    stack = Stack(tmp_path, env={"DARKROOM_CORE_BACKLOG_CAP": "30"})
    stack.make_keys()
    try:
        stack.emulator.start()
        stack.emulator_ready()
        stack.core.start()
        stack.service_ready(stack.core, stack.core_admin)
        stack.core.stop()
        stack.emulator.stop()

        for process in [stack.core, *stack.gateways, *stack.workers]:
            process.start()
        until(lambda: unready(stack), 40, what="core and worker say why they wait")
        client = stack.client()
        until(lambda: serves(client), 30, what="the gateway serves")
        until(lambda: client.call("GET", "/v1/generations").status == 200, 30, what="the gateway finds core")
        ids = [client.submit(n=2, seed=k)["id"] for k in range(10)]
        assert all(client.get(each)["status"] == "queued" for each in ids)
        ids.append(client.submit(n=10)["id"])
        refused = client.post(n=1)
        refused.problem(429)
        assert int(refused.headers["retry-after"]) >= 1

        stack.emulator.start()
        client.succeeded(ids, 60)
        stack.ready()
        assert client.post().status == 202
        client.succeeded(client.ids())
        invariants.check(stack)
        stack.stop()
        stack.check_logs()
    finally:
        stack.kill_everything()


def test_queue_and_store_go_away_for_a_while(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        client = stack.client()
        ids = client.submit_many([{"n": 2, "seed": k, "model": "slow"} for k in range(6)])
        until(lambda: any(client.get(each)["status"] == "running" for each in ids), 20, what="one runs")
        stack.emulator.stop()
        until(lambda: unready(stack), 40, what="core and worker say that they are not ready")
        ids += [client.submit(seed=k)["id"] for k in range(5)]
        stack.emulator.start()
        client.succeeded(ids, 60)
        stack.ready()
        invariants.check(stack)


def test_queue_and_store_swallow_everything_for_a_while(tmp_path: Path) -> None:
    """Nothing is refused, nothing is answered: each call has to end by its own deadline."""
    line = TcpProxy()
    stack = Stack(tmp_path, env={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
    line.target = stack.emulator_port
    with line, stack:
        client = stack.client()
        ids = client.submit_many([{"n": 2, "seed": k, "model": "slow"} for k in range(6)])
        until(lambda: any(client.get(each)["status"] == "running" for each in ids), 20, what="one runs")
        with line.faulty(blackhole=True):
            until(lambda: unready(stack), 60, what="core and worker say that they are not ready")
            ids += [client.submit(seed=k)["id"] for k in range(5)]
        client.succeeded(ids, 60)
        stack.ready()
        invariants.check(stack)


def serves(client: Client) -> bool:
    """The gateway listens; it may have started after the others."""
    try:
        return client.call("GET", "/healthz").status == 200
    except ConnectionError as error:
        raise AssertionError(str(error)) from None


def unready(stack: Stack) -> bool:
    """Core and each worker answer 503 with a reason."""
    for port in (stack.core_admin, *stack.worker_admins):
        status, text = stack.readiness(port)
        assert status == 503, f"{port}: {status} {text}"
        assert len(text) > 2, text
    return True
