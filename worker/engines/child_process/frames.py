"""Frames on a Unix domain socket between a worker and its engine server: 4 bytes of length, header, raw pixels.

Both sides use `Connection`, which knows sizes and nothing of engines. The header is an EngineFrame of
schema/darkroom/v1/engine.proto. Pixels are sent raw: one sendmsg on one side, one recv into the bytes object that
becomes the picture on the other, so user space never copies them.
"""

import contextlib
import select
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from schema import fast, limits

MAX_HEADER_BYTES: Final = 8 * 1024 * 1024
"""Twice what a batch of 256 jobs needs, each with two prompts of 2,000 characters of four bytes."""

MAX_PIXEL_BYTES: Final = 4 * limits.MAX_SIDE_PX**2
BUFFER_BYTES: Final = 1024 * 1024
"""The socket buffer requested of the kernel, which may grant less. A 1024x1024 picture took 0.80 ms with it, 0.89 ms
with 256 KiB and 1.03 ms with 4 MiB, which no longer fits into the processor's cache (two shared cores).
"""

_LENGTH = struct.Struct(">I")
_UCRED = struct.Struct("3i")  # pid, uid, gid of socket(7)'s struct ucred


class Closed(Exception):
    """The other side is gone."""


class Garbage(Exception):
    """The other side sent something that is no engine frame. The text holds none of it."""


class Silent(Exception):
    """The other side is connected and does not answer in time."""


class Connection:
    """One end, blocking. One thread sends and receives; others use `send_now`, never while that one sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self._head = bytearray(_LENGTH.size)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    def send(self, frame: fast.EngineFrame, pixels: bytes = b"") -> None:
        """The whole frame. Raises Closed."""
        parts = [memoryview(_packed(frame, len(pixels))), memoryview(pixels)]
        try:
            while parts:
                sent = self._socket.sendmsg(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][sent:]
        except OSError as error:
            raise Closed(type(error).__name__) from None

    def send_now(self, frame: fast.EngineFrame) -> bool:
        """Send a small frame without blocking. False if the buffer has no room or the peer is gone. Any thread."""
        data = _packed(frame, 0)
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT) == len(data)
        except OSError:
            return False

    def receive(self) -> fast.EngineFrame:
        """The next header. Its pixels, if it has any, must be taken with `pixels` next. Raises Closed and Garbage."""
        self._fill(self._head)
        (size,) = _LENGTH.unpack(self._head)
        if not 0 < size <= MAX_HEADER_BYTES:
            raise Garbage(f"a header of {size} bytes")
        header = bytearray(size)
        self._fill(header)
        try:
            frame = fast.EngineFrame.FromString(bytes(header))
        except DecodeError:
            raise Garbage("a header that cannot be decoded") from None
        if frame.pixel_bytes > MAX_PIXEL_BYTES:
            raise Garbage(f"{frame.pixel_bytes} bytes of pixels")
        return frame

    def pixels(self, size: int) -> bytes:
        """The `size` bytes of pixels that follow a header. Raises Closed."""
        if not size:
            return b""
        first = self._recv(size)
        if len(first) == size:
            return first
        parts = [first]  # a signal came in between
        missing = size - len(first)
        while missing:
            parts.append(self._recv(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether data has arrived, or the other side is gone."""
        return bool(self._readable.poll(seconds * 1000))

    def close(self) -> None:
        """Ends the stream: the other side reads its end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _recv(self, size: int) -> bytes:
        try:
            data = self._socket.recv(size, socket.MSG_WAITALL)
        except OSError as error:
            raise Closed(type(error).__name__) from None
        if not data:
            raise Closed("end of stream")
        return data

    def _fill(self, buffer: bytearray) -> None:
        view = memoryview(buffer)
        while view:
            try:
                got = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise Closed(type(error).__name__) from None
            if not got:
                raise Closed("end of stream")
            view = view[got:]


def peer_pid(sock: socket.socket, uid: int) -> int:
    """The process at the other end. Raises Garbage when it belongs to another user than `uid`."""
    pid, peer_uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if peer_uid != uid:
        raise Garbage(f"the other side runs as user {peer_uid}")
    return int(pid)


def listen(path: Path, uid: int) -> socket.socket:
    """A listening socket at `path`, mode 0600. Raises PermissionError unless its folder is private to `uid`."""
    folder = path.parent.stat()
    if folder.st_uid != uid or stat.S_IMODE(folder.st_mode) & 0o077:
        raise PermissionError(f"{path.parent} must belong to this user and be closed to others (chmod 700)")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(0o600)  # no other user reaches it before: the folder is private
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that a killed server left behind. One that is still served stays, and `bind` fails."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _packed(frame: fast.EngineFrame, pixel_bytes: int) -> bytes:
    frame.pixel_bytes = pixel_bytes
    header: bytes = frame.SerializeToString()
    return _LENGTH.pack(len(header)) + header
