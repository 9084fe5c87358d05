"""A bore client, byte by byte, for tests: upstream (U) and fork (F) dialects.

Nothing here retries, reconnects or guesses; what the relay sends is what the test sees. A tunnel
reads its control connection only when the test asks for something, never in the background.
"""
import hashlib
import hmac
import json
import select
import socket
import struct
import time
import uuid

CONTROL_PORT = 7835
BODY_LIMIT = 256
DEFAULT_TIMEOUT_S = 10.0


class EndOfStream(Exception):
    """The relay closed in order (FIN) where a frame was expected."""


class RelayError(Exception):
    """The relay sent an Error frame; str() is its text."""


def frame(value):
    """One message as the wire wants it: compact JSON and a NUL."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\0"


def hello(port=0):
    return frame({"Hello": port})


def accept(identity):
    return frame({"Accept": identity})


def authenticate(text):
    return frame({"Authenticate": text})


def tag(secret, challenge):
    """The 64 hex digits which answer a challenge (UUID text) under a shared secret."""
    key = hashlib.sha256(secret.encode()).digest()
    return hmac.new(key, uuid.UUID(challenge).bytes, hashlib.sha256).hexdigest()


def connect(address, source=None, timeout=DEFAULT_TIMEOUT_S, receive_buffer=None):
    """A TCP connection without Nagle's delay; `source` is a local address to come from."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        if source:
            sock.bind((source, 0))
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock):
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Framed:
    """A control-port connection which reads frames and keeps what came behind them."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def send(self, *messages):
        self.sock.sendall(b"".join(messages))

    def receive_bytes(self, timeout=DEFAULT_TIMEOUT_S):
        """The next frame's JSON text. EndOfStream on FIN, ConnectionResetError on RST."""
        deadline = time.monotonic() + timeout
        while True:
            body, nul, rest = self.buffer.partition(b"\0")
            if nul:
                assert len(body) <= BODY_LIMIT, f"the relay sent a frame of {len(body)} bytes"
                self.buffer = rest
                return body
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no frame within {timeout} s; so far {self.buffer!r}")
            self.sock.settimeout(left)
            piece = self.sock.recv(4096)
            if not piece:
                assert not self.buffer, f"the relay closed inside a frame: {self.buffer!r}"
                raise EndOfStream()
            self.buffer += piece

    def receive(self, timeout=DEFAULT_TIMEOUT_S):
        return json.loads(self.receive_bytes(timeout))

    def receive_past_heartbeats(self, timeout=DEFAULT_TIMEOUT_S):
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.001, deadline - time.monotonic()))
            if message != "Heartbeat":
                return message

    def expect(self, variant, timeout=DEFAULT_TIMEOUT_S):
        """The value of a message which must be `variant`; an Error frame becomes RelayError."""
        message = self.receive(timeout)
        if isinstance(message, dict) and "Error" in message:
            raise RelayError(message["Error"])
        assert isinstance(message, dict) and list(message) == [variant], f"{message} instead of {variant}"
        return message[variant]

    def expect_silence(self, seconds):
        assert not self.buffer, f"unexpected {self.buffer!r}"
        readable, _, _ = select.select([self.sock], [], [], seconds)
        assert not readable, f"unexpected {self.sock.recv(300)!r}"

    def expect_end(self, timeout=DEFAULT_TIMEOUT_S):
        """An orderly end: FIN and nothing before it."""
        try:
            message = self.receive(timeout)
        except EndOfStream:
            return
        raise AssertionError(f"{message} instead of an end of stream")

    def expect_closed(self, timeout=DEFAULT_TIMEOUT_S):
        """An end without any frame, in order or by reset."""
        try:
            self.expect_end(timeout)
        except (ConnectionResetError, BrokenPipeError):
            pass

    def expect_error(self, text, timeout=DEFAULT_TIMEOUT_S):
        """An Error frame with exactly this text, then the end of the stream."""
        raw = self.receive_bytes(timeout)
        assert raw == frame({"Error": text})[:-1], f"{raw!r} instead of Error {text!r}"
        self.expect_end(timeout)

    def close(self):
        self.sock.close()


class Tunnel:
    """An open tunnel: its control connection, its public port, and how it claims visitors."""

    def __init__(self, framed, port, address, secret=None, source=None):
        self.framed, self.port, self.address = framed, port, address
        self.data_secret = secret  # U dialect with a secret: every data connection authenticates
        self.source = source

    def connection(self, timeout=DEFAULT_TIMEOUT_S):
        """The id of the next waiting visitor."""
        message = self.framed.receive_past_heartbeats(timeout)
        assert isinstance(message, dict) and list(message) == ["Connection"], f"unexpected {message}"
        return message["Connection"]

    def claim(self, identity, extra=b"", receive_buffer=None):
        """A data connection for this visitor; `extra` goes into the same segment as Accept."""
        sock = connect(self.address, source=self.source, receive_buffer=receive_buffer)
        if self.data_secret is None:
            sock.sendall(accept(identity) + extra)
        else:
            framed = Framed(sock)
            challenge = framed.expect("Challenge")
            assert not framed.buffer, f"{framed.buffer!r} behind the Challenge"
            framed.send(authenticate(tag(self.data_secret, challenge)), accept(identity), extra)
        sock.settimeout(DEFAULT_TIMEOUT_S)
        return sock

    def visit(self, receive_buffer=None, source=None):
        return connect((self.address[0], self.port), receive_buffer=receive_buffer, source=source)

    def pair(self, extra=b"", receive_buffer=None):
        """A visitor and the data connection which serves it."""
        visitor = self.visit(receive_buffer=receive_buffer)
        return visitor, self.claim(self.connection(), extra, receive_buffer=receive_buffer)

    def close(self):
        self.framed.close()

    def kill(self):
        reset(self.framed.sock)


def open_upstream(address, secret=None, port=0, source=None):
    """U dialect: with a secret the relay speaks first, on every connection."""
    framed = Framed(connect(address, source=source))
    try:
        if secret is None:
            framed.send(hello(port))
        else:
            challenge = framed.expect("Challenge")
            framed.send(authenticate(tag(secret, challenge)), hello(port))
        return Tunnel(framed, framed.expect("Hello"), address, secret, source)
    except BaseException:
        framed.close()
        raise


def open_fork(address, secret=None, token=None, port=0, source=None):
    """F dialect: the client speaks first; a token goes before Hello, a secret waits for the Challenge."""
    framed = Framed(connect(address, source=source))
    try:
        if token is not None:
            framed.send(authenticate(token), hello(port))
        else:
            framed.send(hello(port))
            if secret is not None:
                framed.send(authenticate(tag(secret, framed.expect("Challenge"))))
        return Tunnel(framed, framed.expect("Hello"), address, None, source)
    except BaseException:
        framed.close()
        raise
