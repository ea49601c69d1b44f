"""What hostile and broken peers send to a listening port of the gateway or core (faults.md 4, 5, 8)."""

import random
import socket
from contextlib import suppress

import h2.config
import h2.connection
import h2.events

MIB = 1024 * 1024
HALF_HEAD = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 4_000
HALF_BODY = (
    b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n" + b"{" * 50_000
)


def dial(port: int, sent: bytes, *, read_buffer: int = 0) -> socket.socket:
    """A connection on which `sent` was sent, as far as the other side took it within a second."""
    client = socket.socket()
    if read_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
    client.settimeout(1)
    client.connect(("127.0.0.1", port))
    with suppress(OSError):
        client.sendall(sent)
    return client


def read_out(client: socket.socket) -> bytes:
    """What comes until the other side closes; it must close."""
    client.settimeout(20)
    found = b""
    with suppress(ConnectionError):
        while data := client.recv(65_536):
            found += data
    return found


def http2(port: int) -> tuple[socket.socket, h2.connection.H2Connection]:
    """A connection to core's API that speaks HTTP/2."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    return dial(port, connection.data_to_send()), connection


def submit_headers() -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/darkroom.v1.Core/Submit"),
        (":authority", "core"),
        ("te", "trailers"),
        ("content-type", "application/grpc+proto"),
    ]


def pushed(client: socket.socket, data: bytes) -> bool:
    """Whether all of it was taken."""
    client.settimeout(20)
    try:
        client.sendall(data)
    except OSError:
        return False
    return True


def four_gibibytes(port: int) -> None:
    """A message said to be 4 GiB long, of which 100 MiB are ready to be sent: it is refused before they are."""
    client, connection = http2(port)
    sent = 0
    with client:
        connection.send_headers(1, submit_headers())
        connection.send_data(1, b"\x00\xff\xff\xff\xff")
        ended = False
        while not ended and sent < 100 * MIB:
            size = min(connection.local_flow_control_window(1), connection.max_outbound_frame_size)
            if size > 0:
                connection.send_data(1, b"x" * size)
                sent += size
            assert pushed(client, connection.data_to_send())
            client.settimeout(0.001 if size > 0 else 20)
            with suppress(TimeoutError):
                events = connection.receive_data(client.recv(65_536))
                ended = any(isinstance(each, h2.events.StreamEnded | h2.events.StreamReset) for each in events)
    assert ended, f"{sent} bytes were taken"


def ten_thousand_streams(port: int) -> None:
    """More streams than allowed at once: the connection is closed."""
    client, connection = http2(port)
    connection.config.validate_outbound_headers = False
    with client:
        for number in range(10_000):
            connection.send_headers(2 * number + 1, submit_headers())
            if number % 100 == 99 and not pushed(client, connection.data_to_send()):
                break
        read_out(client)


def streams_taken_back(port: int) -> None:
    """Thousands of streams, each opened and reset at once (CVE-2023-44487)."""
    client, connection = http2(port)
    with client:
        for number in range(4_000):
            connection.send_headers(2 * number + 1, submit_headers())
            connection.reset_stream(2 * number + 1)
            if number % 100 == 99:
                with suppress(OSError):
                    client.setblocking(False)
                    while client.recv(65_536):
                        pass
                client.settimeout(10)
                if not pushed(client, connection.data_to_send()):
                    break


def rubbish(port: int) -> None:
    """Bytes that are no HTTP/2, of which some begin like it."""
    draw = random.Random(8)
    preface, settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    broken = (
        b"\xff\xff\xff" + bytes(6),  # a frame too long
        bytes([0, 0, 1, 0, 0, 0, 0, 0, 0, 7]),  # data of no stream
        bytes([0, 0, 50, 1, 4, 0, 0, 0, 1]) + b"\xff" * 50,  # headers that cannot be decoded
    )
    for start in (b"", b"GET / HTTP/1.1\r\n\r\n", *(preface + settings + frame for frame in broken)):
        with dial(port, start + draw.randbytes(100_000)) as client:
            read_out(client)
    for _ in range(20):  # what happens to look like the beginning of a frame may be waited for
        dial(port, preface + settings + draw.randbytes(10_000)).close()


def bad_requests() -> list[bytes]:
    draw = random.Random(9)
    head = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return [
        draw.randbytes(100_000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + draw.randbytes(500),
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 4294967296\r\nConnection: close\r\n\r\n",
        head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        b"GET /\x00 HTTP/9.9\r\n\r\n",
    ]
