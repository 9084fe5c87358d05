"""Byte streams with known digests, and threads which report what went wrong in them."""
import functools
import hashlib
import random
import socket
import threading
import time

BLOCK_BYTES = 1 << 20
_POOL = memoryview(random.Random(20261121).randbytes(8 * BLOCK_BYTES))


def blocks(size, seed=0):
    """`size` bytes in blocks of at most a MiB; a block is found nowhere else at the same place."""
    index = seed * 7919
    while size > 0:
        # 4093 is prime: neighbouring blocks start at different places of the pool, so a lost, doubled
        # or swapped block changes the digest.
        offset = index * 4093 % (len(_POOL) - BLOCK_BYTES)
        length = min(size, BLOCK_BYTES)
        yield _POOL[offset:offset + length]
        size -= length
        index += 1


@functools.lru_cache(maxsize=None)
def digest(size, seed=0):
    total = hashlib.sha256()
    for block in blocks(size, seed):
        total.update(block)
    return total.hexdigest()


def payload(size, seed=0):
    return b"".join(blocks(size, seed))


def send(sock, size, seed=0, fin=True):
    for block in blocks(size, seed):
        sock.sendall(block)
    if fin:
        sock.shutdown(socket.SHUT_WR)


def receive_digest(sock):
    """Reads to the end of the stream: (bytes, sha-256)."""
    total, count, buffer = hashlib.sha256(), 0, bytearray(1 << 19)
    view = memoryview(buffer)
    while True:
        length = sock.recv_into(buffer)
        if length == 0:
            return count, total.hexdigest()
        total.update(view[:length])
        count += length


def receive_exactly(sock, size):
    pieces, left = [], size
    while left > 0:
        piece = sock.recv(min(left, 1 << 20))
        if not piece:
            raise AssertionError(f"stream ended {left} bytes before the expected {size}")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def receive_all(sock):
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


class Background(threading.Thread):
    """Runs a function at once; result() gives what it returned or raises what it raised."""

    def __init__(self, function, *arguments, **keywords):
        super().__init__(daemon=True)
        self._call = functools.partial(function, *arguments, **keywords)
        self._value = self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._call()
        except BaseException as error:  # pylint: disable=broad-except
            self._error = error

    def result(self, timeout=30.0):
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"{self._call.func.__name__} did not end within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value


def eventually(condition, timeout=5.0, what=None):
    """Polls until condition() is true; the condition may fail by AssertionError meanwhile. `what`: text,
    or a function that makes it at the end."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return
            failure = AssertionError(f"not within {timeout} s: {what() if callable(what) else what or condition}")
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        time.sleep(0.01)


def transfer(sender, receiver, size, seed=0, timeout=120.0):
    """Sends and receives at the same time; the digest must fit."""
    sending = Background(send, sender, size, seed)
    received = receive_digest(receiver)
    sending.result(timeout)
    assert received == (size, digest(size, seed))


class LocalService:
    """A TCP server on loopback: `handler(socket)` in a thread per connection."""

    def __init__(self, handler, host="127.0.0.1", port=0, backlog=4096):
        self._handler = handler
        self.listener = socket.create_server((host, port), backlog=backlog)
        self.port = self.listener.getsockname()[1]
        self.errors = []
        self._thread = Background(self._serve)

    def _serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            Background(self._handle, sock)

    def _handle(self, sock):
        try:
            with sock:
                sock.settimeout(60)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._handler(sock)
        except BaseException as error:  # pylint: disable=broad-except
            self.errors.append(error)

    def close(self):
        # shutdown() wakes the thread which sits in accept(); close() alone would leave it there.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def echo(sock):
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    while length := sock.recv_into(buffer):
        sock.sendall(view[:length])
    sock.shutdown(socket.SHUT_WR)


def typical_seconds(action, times=5):
    """The median duration: a busy machine may hold up one attempt, but not most of them."""
    seconds = []
    for _ in range(times):
        start = time.monotonic()
        action()
        seconds.append(time.monotonic() - start)
    return sorted(seconds)[times // 2]
