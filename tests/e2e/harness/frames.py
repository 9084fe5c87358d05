"""Frames made by hand, for what no kernel would send: forged, malformed, fragmented. And a look at
the frames of a connection, to know where its sequence numbers stand."""
import socket
import struct
import time

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
ETHERTYPES = {4: 0x0800, 6: 0x86DD}


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def tcp(source, target, sequence, acknowledgement, flags=ACK, payload=b"", options=b"", window=500, urgent=0, offset=None):
    """A TCP segment between two (host, port), with its checksum right. `offset`: in words, if wrong."""
    header = struct.pack("!HHIIBBHHH", source[1], target[1], sequence % 2**32, acknowledgement % 2**32,
                         (5 + len(options) // 4 if offset is None else offset) << 4, flags, window, 0, urgent) + options
    pseudo = packed(source[0]) + packed(target[0]) + struct.pack("!II", len(header) + len(payload), 6)
    return header[:16] + struct.pack("!H", checksum(pseudo + header + payload)) + header[18:] + payload


def ipv4(source, target, body, options=b"", fragment=0, total=None, words=None, hops=64, protocol=6):
    """An IPv4 packet; `total`, `words`: length and header length, if wrong; `fragment`: flags and offset."""
    words = 5 + len(options) // 4 if words is None else words
    total = 20 + len(options) + len(body) if total is None else total
    header = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, total, 1, fragment, hops, protocol, 0, packed(source), packed(target))
    header += options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def ipv6(source, target, body, next_header=6, length=None, hops=64):
    return struct.pack("!IHBB16s16s", 0x60000000, len(body) if length is None else length, next_header, hops,
                       packed(source), packed(target)) + body


def ping(side, family, count, wait=0.5):
    """Echo requests of the users to the relay; the sequence numbers of all answers, doubles as well."""
    kind, protocol, request, answer = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0),
                                       6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129)}[family]
    heard = []
    with side.users.inside(), socket.socket(kind, socket.SOCK_RAW, protocol) as sock:
        for number in range(1, count + 1):
            message = struct.pack("!BBHHH", request, 0, 0, 77, number) + b"is anybody there"
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]  # IPv6: the kernel's work
            sock.sendto(message, (side.host(family), 0))
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                message = sock.recv(2048)[20 if family == 4 else 0:]
            except TimeoutError:
                break
            if message[0] == answer and message[4:6] == b"\0\x4d":
                heard.append(struct.unpack("!H", message[6:8])[0])
    return sorted(heard)


class Forger:
    """Sends frames as if the users of a side had, and reads what they send."""

    def __init__(self, side, family=4):
        self.side, self.family = side, family
        with side.users.inside():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((side.interface, 3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.header = side.relay_mac(family) + side.own_mac()

    def send(self, packet, ethertype=None):
        self.socket.send(self.header + struct.pack("!H", ethertype or ETHERTYPES[self.family]) + packet)

    def send_raw(self, frame):
        self.socket.send(frame)

    def send_tcp(self, sock, *arguments, **keywords):
        """A segment on the tuple of this socket of the users."""
        source, target = sock.getsockname()[:2], sock.getpeername()[:2]
        wrap = ipv4 if self.family == 4 else ipv6
        self.send(wrap(source[0], target[0], tcp(source, target, *arguments, **keywords)))

    def position(self, sock, provoke, timeout=5.0):
        """(sequence, acknowledgement) behind the next segment that `provoke()` makes this socket send."""
        self.drain()
        provoke()
        source, target = sock.getsockname()[:2], sock.getpeername()[:2]
        ip_bytes = 20 if self.family == 4 else 40
        wanted = struct.pack("!HH", source[1], target[1])
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            frame, address = self.socket.recvfrom(2048)
            packet = frame[14:]
            if address[2] != socket.PACKET_OUTGOING or frame[12:14] != struct.pack("!H", ETHERTYPES[self.family]):
                continue
            segment = packet[ip_bytes:]
            if segment[:4] != wanted:
                continue
            sequence, acknowledgement, offset = struct.unpack("!IIB", segment[4:13])
            total = struct.unpack("!H", packet[2:4])[0] if self.family == 4 else 40 + struct.unpack("!H", packet[4:6])[0]
            length = total - ip_bytes - (offset >> 4) * 4
            if length > 0:
                return (sequence + length) % 2**32, acknowledgement
        raise AssertionError("the connection sent nothing")

    def drain(self):
        self.socket.setblocking(False)
        try:
            while self.socket.recv(2048):
                pass
        except BlockingIOError:
            pass
        self.socket.setblocking(True)

    def close(self):
        self.socket.close()
