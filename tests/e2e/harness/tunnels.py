"""One interface for "a tunnel with something behind it", whoever the tunnel client is: pair() gives a
visitor's socket and the socket at the service's end of the same connection."""
import socket

from harness import programs, protocol


class ProgramTunnel:
    """A client program (ours or Rust's) in front of a local service that the test plays itself."""

    def __init__(self, command, relay, secret=None, host=None):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.settimeout(protocol.DEFAULT_TIMEOUT_S)
        arguments = ["local", self.listener.getsockname()[1], "--to", host or relay.address[0], *command[1:]]
        environment = {} if secret is None else {"BORE_SECRET": secret}
        self.client = programs.Client(command[0], [str(word) for word in arguments], environment)
        try:
            self.port = self.client.public_port()
        except BaseException:
            self.close()
            raise
        self.address = relay.address

    def visit(self, receive_buffer=None):
        return protocol.connect((self.address[0], self.port), receive_buffer=receive_buffer)

    def accept(self):
        service, _ = self.listener.accept()
        service.settimeout(protocol.DEFAULT_TIMEOUT_S)
        service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return service

    def pair(self, receive_buffer=None):
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        visitor = self.visit(receive_buffer)
        return visitor, self.accept()

    def close(self):
        self.client.kill()
        self.listener.close()
