"""Slow, hostile and broken connections before the gateway and before core (faults.md 4–8): the service goes on."""

import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from tests.api import CANARY
from tests.crash.network_attacks import (
    HALF_BODY,
    HALF_HEAD,
    MIB,
    bad_requests,
    dial,
    four_gibibytes,
    read_out,
    rubbish,
    streams_taken_back,
    ten_thousand_streams,
)
from tests.e2e import invariants
from tests.eventually import until
from tests.fault_proxy import TcpProxy
from tests.process import Process
from tests.stack import Stack

MOST = 300
"""Connections that the gateway under test allows."""
CROWD = 1_000
DEAF = 30
BIG = "/docs/swagger-ui-bundle.js"
"""1.4 MB: more than the kernel's buffers take."""


@pytest.fixture(scope="module")
def line() -> Iterator[TcpProxy]:
    """Between gateways and core."""
    with TcpProxy(seed=6) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(line: TcpProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        tmp_path_factory.mktemp("network"),
        env={"DARKROOM_CORE_TARGET": f"127.0.0.1:{line.port}"},
        gateway_env={"DARKROOM_GATEWAY_MAX_CONNECTIONS": str(MOST), "DARKROOM_GATEWAY_SEND_TIMEOUT_S": "2"},
    )
    line.target = stack.core_port
    with stack:
        yield stack
        invariants.check(stack)


def files(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def resident(process: Process) -> int:
    """Bytes of memory in use."""
    text = Path(f"/proc/{process.pid}/statm").read_text()
    return int(text.split()[1]) * resource.getpagesize()


def served(stack: Stack, count: int = 3) -> None:
    """Others are answered as ever."""
    client = stack.client()
    client.succeeded([client.submit(seed=k)["id"] for k in range(count)])


def crowd() -> int:
    """A thousand, or what this process may open; the files it may open are raised to that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 300
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return min(CROWD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 300)


def test_4_a_thousand_clients_that_send_half_of_a_request(stack: Stack) -> None:
    """Files and memory stay bounded, and whoever asks in between is served."""
    gateway, port = stack.gateways[0], stack.gateway_ports[0]
    served(stack)
    files_before, memory_before = files(gateway), resident(gateway)
    half_body = HALF_BODY % stack.client().key.encode()
    with ExitStack() as open_ones:
        for number in range(crowd()):
            open_ones.enter_context(dial(port, (HALF_HEAD, half_body)[number % 2]))
            if number % 100 == 99:
                served(stack, 1)
                until(lambda: files(gateway) - files_before <= MOST + 20, what="no more than allowed")
                assert resident(gateway) - memory_before < MOST * MIB // 4
        served(stack)
        assert stack.metrics(stack.gateway_admins[0])["darkroom_gateway_connections"] <= MOST
    until(lambda: files(gateway) <= files_before + 20, 20, what="all are gone")


def test_5_clients_that_never_read_their_answers(stack: Stack) -> None:
    """A list, waiting GETs and files, pipelined, nothing read: cut after the time for sending, memory bounded."""
    gateway, port, client = stack.gateways[0], stack.gateway_ports[0], stack.client()
    waiting = "/v1/generations/" + client.submit(seed=5)["id"]
    head = f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\nPrefer: wait=5\r\n\r\n"
    asked = "".join(f"GET {path}{head}" for path in ("/v1/generations", waiting, *[BIG] * 20)).encode()
    memory_before, cut = resident(gateway), 'darkroom_gateway_connections_cut_total{reason="unread"}'
    with ExitStack() as deaf:
        for _ in range(DEAF):
            deaf.enter_context(dial(port, asked, read_buffer=4_096))
        served(stack)
        assert resident(gateway) - memory_before < 50 * MIB
        until(lambda: stack.metrics(stack.gateway_admins[0]).get(cut, 0) >= DEAF, 30, what="all are cut")
    served(stack)


def persistent(stack: Stack, keys: Sequence[str], statuses: Counter[int], prompt: str = CANARY) -> list[str]:
    """Ids of submissions that are repeated with their keys until they are accepted; counts every status."""

    def submit(key: str) -> str:
        for _ in range(200):
            answer = stack.client().post(key=key, prompt=prompt)
            statuses[answer.status] += 1
            if answer.status == 202:
                return str(answer.json()["id"])
        raise AssertionError(f"{key} was never accepted: {statuses}")

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(submit, keys))


def keys(count: int) -> list[str]:
    """Idempotency keys that nobody has used."""
    return [uuid4().hex for _ in range(count)]


def streams(stack: Stack) -> set[str]:
    return {event.stream for event in invariants.read_log(stack)}


def test_6_the_stream_is_cut_in_the_middle_of_cores_answer(stack: Stack, line: TcpProxy) -> None:
    """Core has accepted, the gateway has heard half of it: it asks again, and the client hears of one generation."""
    before, spoiled, statuses = streams(stack), line.resets, Counter[int]()
    marker = "halfheard"
    stop = threading.Event()

    def heal_after_some() -> None:
        until(lambda: line.resets - spoiled >= 3 or stop.is_set(), 60)
        line.faults = type(line.faults)()

    with line.faulty(cut_answer_to=marker.encode()):
        healer = threading.Thread(target=heal_after_some)
        healer.start()
        try:
            ids = persistent(stack, keys(10), statuses, prompt=f"{marker} {CANARY}")
        finally:
            stop.set()
            healer.join()
    assert line.resets - spoiled >= 3, "nothing was cut"
    assert len(set(ids)) == 10
    assert streams(stack) - before == set(ids), "a repeated submission has become another generation"
    assert set(statuses) <= {202, 503}, statuses
    stack.client().succeeded(ids)


def test_7_a_slow_line_that_breaks_a_third_of_the_time(stack: Stack, line: TcpProxy) -> None:
    """Submissions, reads, lists and cancels: what they end in is success or 503, never 500; nothing is doubled."""
    before, spoiled, statuses, reads = streams(stack), line.resets, Counter[int](), Counter[int]()
    client = stack.client()
    with line.faulty(delay_s=0.2, reset_share=0.3):
        ids = persistent(stack, keys(40), statuses)
        paths = [("GET", f"/v1/generations/{each}") for each in ids[:15]] + [("GET", "/v1/generations")] * 10
        paths += [("POST", f"/v1/generations/{each}/cancel") for each in ids[:5]]
        with ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda asked: client.call(*asked), paths):
                reads[answer.status] += 1
                if answer.status == 503:
                    assert int(answer.headers["retry-after"]) >= 1
    assert line.resets - spoiled >= 3, "hardly anything was cut"
    assert set(statuses) <= {202, 503}, statuses
    assert set(reads) <= {200, 503, 409}, reads
    assert streams(stack) - before == set(ids)
    stack.ready()
    for each in ids:
        assert client.ended(each)["status"] in {"succeeded", "cancelled"}


def test_7_a_line_that_swallows_everything(stack: Stack, line: TcpProxy) -> None:
    """No answer at all: 503 when the time is up, not ready, and well again by itself."""
    client = stack.client()
    with line.faulty(blackhole=True):
        answer = client.call("GET", "/v1/generations", timeout_s=60)
        answer.problem(503)
        until(lambda: stack.readiness(stack.gateway_admins[0])[0] == 503, 20, what="the gateway is not ready")
    stack.ready()
    served(stack)


@pytest.mark.parametrize("attack", [four_gibibytes, ten_thousand_streams, streams_taken_back, rubbish])
def test_8_cores_port_is_attacked(stack: Stack, attack: Callable[[int], None]) -> None:
    """Memory stays within 50 MiB, files do not leak, and everybody else is served."""
    served(stack)
    memory_before, files_before = resident(stack.core), files(stack.core)
    for _ in range(5 if attack is four_gibibytes else 1):
        attack(stack.core_port)
        assert resident(stack.core) - memory_before < 50 * MIB
    served(stack)
    until(lambda: files(stack.core) <= files_before + 5, 20, what="its connections are gone")


def test_8_rubbish_at_the_gateway(stack: Stack) -> None:
    """It is refused in HTTP or not at all, the connection is closed, and no refusal is a 5xx."""
    gateway = stack.gateways[0]
    served(stack)
    memory_before, files_before = resident(gateway), files(gateway)
    statuses: list[str] = []
    for sent in bad_requests():
        with dial(stack.gateway_ports[0], sent) as client:
            answer = read_out(client)
        statuses.append(answer[9:12].decode("ascii", "replace"))
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert "400" in statuses, statuses
    assert resident(gateway) - memory_before < 50 * MIB
    served(stack)
    until(lambda: files(gateway) <= files_before + 5, 20, what="its connections are gone")
