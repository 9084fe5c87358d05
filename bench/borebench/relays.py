"""The relays that are compared: what each is called, what it needs, and how it is started. Pure:
this module makes command lines and the text of configuration files, targets.py runs them.

A target is `RELAY[:VARIANT][+CLIENT]`. Our relay and the Rust one take a tunnel client (`bore`
ours, `rust` the original, `plain` a plain socket that is its own service); the others have one of
their own or none.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess

PUBLIC_PORT = 10001
SERVICE_PORT = 8000
CONTROL_PORT = 7835  # of bore; compiled into the Rust client
SERVER_ID = f"bench-{os.getpid()}"
NGINX_STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
# Beside the visitors' tunnel there is room for 10,000 more, also for a relay that looks for a free
# port by chance.
PORT_RANGE = (8_001, 20_000)


@dataclasses.dataclass(frozen=True)
class Relay:
    text: str
    needs: tuple
    control_port: int  # where it waits for its tunnel client; without a tunnel, for visitors
    variants: dict  # name: sentence; "" is the relay without a variant
    clients: tuple = ("",)
    limits_bandwidth: bool = False


RELAYS = {
    "ours": Relay(
        "bore-server of this tree",
        ("server",),
        CONTROL_PORT,
        {
            "": "stream engine on the driver it chooses",
            "uring": "stream engine on io_uring",
            "epoll": "stream engine on epoll",
            "busy": "stream engine, busy polling for 50 µs",
            "packet": "packet engine on DPDK's af_packet over a veth pair; polls, so it uses "
            "a core whatever the load",
        },
        ("bore", "rust", "plain"),
        limits_bandwidth=True,
    ),
    "rust": Relay(
        "bore-cli 0.6.0, the Rust relay", ("rust",), CONTROL_PORT, {"": ""}, ("rust", "plain")
    ),
    "nginx": Relay(
        "nginx stream proxy, no tunnel",
        ("nginx", "nginx-stream"),
        PUBLIC_PORT,
        {
            "": "64 KiB buffers and proxy_half_close, as somebody who cares would set",
            "default": "its own buffers, no half-close",
        },
        limits_bandwidth=True,
    ),
    "haproxy": Relay(
        "HAProxy in TCP mode, no tunnel", ("haproxy",), PUBLIC_PORT, {"": "with splice-auto"}
    ),
    "rathole": Relay("rathole without encryption", ("rathole",), 2333, {"": ""}),
    "frp": Relay(
        "frps and frpc",
        ("frps", "frpc"),
        7000,
        {
            "": "multiplexed, without TLS, as all others run here",
            "tls": "multiplexed over TLS, its default",
            "nomux": "not multiplexed, without TLS",
        },
        limits_bandwidth=True,
    ),
    "direct": Relay(
        "no relay: visitors connect to the service", (), SERVICE_PORT, {"": "the limit"}
    ),
}
CLIENT_NEEDS = {"": (), "bore": ("client",), "rust": ("rust",), "plain": ()}


@dataclasses.dataclass(frozen=True)
class Spec:
    """A target's name, taken apart."""

    relay: str
    variant: str = ""
    client: str = ""

    @staticmethod
    def parse(name):
        """Raises ValueError that says what a target may be."""
        head, _, client = name.partition("+")
        relay, _, variant = head.partition(":")
        known = RELAYS.get(relay)
        if known is None or variant not in known.variants or client not in known.clients:
            raise ValueError(f"'{name}' is no target; such are {', '.join(names())}")
        return Spec(relay, variant, client)

    def __str__(self):
        variant = f":{self.variant}" if self.variant else ""
        return f"{self.relay}{variant}{f'+{self.client}' if self.client else ''}"

    @property
    def needs(self):
        return ("load", *RELAYS[self.relay].needs, *CLIENT_NEEDS[self.client])

    @property
    def is_bore(self):
        """Speaks the bore protocol, so that tunnels can be registered by hand."""
        return self.relay in ("ours", "rust")

    @property
    def half_closes(self):
        """Whether a direction outlives the other's end. Only bulk uploads need to know: what these
        lose in an exchange, `halfclose` measures."""
        return not (self.relay == "frp" or (self.relay, self.variant) == ("nginx", "default"))

    @property
    def cabled(self):
        """Needs an interface of its own, not the loopback."""
        return self.variant == "packet"

    @property
    def text(self):
        relay = RELAYS[self.relay]
        clients = {
            "bore": "our client",
            "rust": "the Rust client",
            "plain": "a plain socket as client",
        }
        by = f"; {clients[self.client]}" if self.client else ""
        said = relay.variants[self.variant]
        return f"{relay.text}{f', {said}' if said else ''}{by}"


def names():
    """Every target, in the order of the tables."""
    return [
        str(Spec(name, variant, client))
        for name, relay in RELAYS.items()
        for variant in relay.variants
        for client in relay.clients
    ]


class Programs:
    """Where every program is, and its version."""

    def __init__(self, server, client, load, prefix):
        self.paths = {
            "load": load,
            "server": server,
            "client": client,
            "nginx": shutil.which("nginx") or "/usr/sbin/nginx",
            "nginx-stream": NGINX_STREAM_MODULE,
            "haproxy": shutil.which("haproxy") or "/usr/sbin/haproxy",
            "rust": f"{prefix}/bore-0.6.0/bin/bore",
            "rathole": f"{prefix}/rathole/bin/rathole",
            "frps": f"{prefix}/bin/frps",
            "frpc": f"{prefix}/bin/frpc",
        }

    def __getitem__(self, name):
        return self.paths[name]

    def missing(self, needs):
        return [
            f"{name} ({self.paths[name]})"
            for name in needs
            if not os.access(self.paths[name], os.R_OK if name == "nginx-stream" else os.X_OK)
        ]

    def versions(self):
        ask = {
            "ours": "server",
            "rust": "rust",
            "nginx": "nginx",
            "haproxy": "haproxy",
            "rathole": "rathole",
            "frp": "frps",
        }
        found = {}
        for relay, program in ask.items():
            if os.access(self[program], os.X_OK):
                option = "-v" if relay in ("nginx", "haproxy") else "--version"
                done = subprocess.run(
                    [self[program], option], capture_output=True, text=True, timeout=10, check=False
                )
                lines = (done.stdout + done.stderr).splitlines()
                found[relay] = next(
                    (one.strip() for one in lines if re.search(r"\d\.\d+\.\d", one)), "?"
                )
        return found


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a target runs: addresses, a folder for its files, and what it may be asked for."""

    folder: str
    host: str = "127.0.0.1"
    connections: int = 50_000
    limit_mbit: int = 0
    packet_port: str = ""

    def file(self, name):
        return os.path.join(self.folder, name)


@dataclasses.dataclass(frozen=True)
class Launch:
    """What to write and start, in this order; None where a target has no such part."""

    files: dict
    relay: list | None
    client: list | None
    own_service: bool  # whether bore-load serve is started for it
    visitor_port: int


def launch(spec, programs, place):
    files, relay, client = _LAUNCHES[spec.relay](spec, programs, place)
    port = SERVICE_PORT if spec.relay == "direct" else PUBLIC_PORT
    return Launch(
        {place.file(name): text for name, text in files.items()},
        relay,
        client,
        spec.client != "plain",
        port,
    )


def _bore_client(spec, programs, place):
    if spec.client == "plain":
        return [
            programs["load"],
            "plain",
            "--to",
            f"{place.host}:{CONTROL_PORT}",
            "--port",
            str(PUBLIC_PORT),
        ]
    program = programs["client" if spec.client == "bore" else "rust"]
    return [program, "local", str(SERVICE_PORT), "--to", place.host, "--port", str(PUBLIC_PORT)]


def _ours(spec, programs, place):
    command = [
        programs["server"],
        "--min-port",
        str(PORT_RANGE[0]),
        "--max-port",
        str(PORT_RANGE[1]),
        "--open",
        # One address plays everybody here.
        *("--handshake-rate-per-source", "0", "--max-tunnels-per-source", "65535"),
        *("--max-unauthenticated-per-source", "4096"),
        # /dev/shm and /run/bore are the whole machine's, which may have a relay already.
        *("--server-id", SERVER_ID),
        "--log-level",
        "warn",
    ]
    command += {
        "": [],
        "uring": ["--stream-driver", "io_uring"],
        "epoll": ["--stream-driver", "epoll"],
        "busy": ["--busy-poll-us", "50"],
        "packet": [
            "--engine",
            "packet",
            "--packet-path",
            "splice",
            "--packet-memory-mib",
            "128",
            "--packet-port",
            place.packet_port,
        ],
    }[spec.variant]
    if place.limit_mbit:
        command += ["--tunnel-bandwidth-mbit", str(place.limit_mbit)]
    return {}, command, _bore_client(spec, programs, place)


def _rust(spec, programs, place):
    command = [
        programs["rust"],
        "server",
        "--min-port",
        str(PORT_RANGE[0]),
        "--max-port",
        str(PORT_RANGE[1]),
    ]
    return {}, command, _bore_client(spec, programs, place)


def _nginx(spec, programs, place):
    settings = "" if spec.variant == "default" else "proxy_buffer_size 64k; proxy_half_close on;"
    if place.limit_mbit:
        bytes_per_s = place.limit_mbit * 1_000_000 // 8
        settings += f" proxy_download_rate {bytes_per_s}; proxy_upload_rate {bytes_per_s};"
    text = f"""load_module {NGINX_STREAM_MODULE};
daemon off; worker_processes auto;
pid {place.folder}/nginx.pid; error_log {place.folder}/nginx.log error;
events {{ worker_connections {place.connections}; }}
stream {{
    server {{
        listen 127.0.0.1:{PUBLIC_PORT} backlog=4096;
        proxy_pass 127.0.0.1:{SERVICE_PORT};
        {settings}
    }}
}}
"""
    command = [programs["nginx"], "-p", place.folder, "-c", place.file("nginx.conf")]
    return {"nginx.conf": text}, command, None


def _haproxy(_spec, programs, place):
    text = f"""global
    maxconn {place.connections}
defaults
    mode tcp
    maxconn {place.connections}
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen load
    bind 127.0.0.1:{PUBLIC_PORT} backlog 4096
    server service 127.0.0.1:{SERVICE_PORT}
"""
    return {"haproxy.cfg": text}, [programs["haproxy"], "-f", place.file("haproxy.cfg")], None


def _rathole(_spec, programs, place):
    server = f"""[server]
bind_addr = "127.0.0.1:2333"
default_token = "bench"
[server.services.load]
bind_addr = "127.0.0.1:{PUBLIC_PORT}"
"""
    client = f"""[client]
remote_addr = "127.0.0.1:2333"
default_token = "bench"
[client.services.load]
local_addr = "127.0.0.1:{SERVICE_PORT}"
"""
    program = programs["rathole"]
    return (
        {"server.toml": server, "client.toml": client},
        [program, "--server", place.file("server.toml")],
        [program, "--client", place.file("client.toml")],
    )


def _frp(spec, programs, place):
    multiplexed = json.dumps(spec.variant != "nomux")
    server = f"""bindAddr = "127.0.0.1"
bindPort = 7000
log.level = "error"
transport.tcpMux = {multiplexed}
"""
    client = f"""serverAddr = "127.0.0.1"
serverPort = 7000
log.level = "error"
transport.tcpMux = {multiplexed}
transport.tls.enable = {json.dumps(spec.variant == "tls")}
[[proxies]]
name = "load"
type = "tcp"
localIP = "127.0.0.1"
localPort = {SERVICE_PORT}
remotePort = {PUBLIC_PORT}
"""
    if place.limit_mbit:
        # Its unit is the kibibyte per second.
        kib_per_s = place.limit_mbit * 1_000_000 // 8 // 1024
        client += f'transport.bandwidthLimit = "{kib_per_s}KB"\n'
        client += 'transport.bandwidthLimitMode = "server"\n'
    return (
        {"frps.toml": server, "frpc.toml": client},
        [programs["frps"], "-c", place.file("frps.toml")],
        [programs["frpc"], "-c", place.file("frpc.toml")],
    )


def _direct(_spec, _programs, _place):
    return {}, None, None


_LAUNCHES = {
    "ours": _ours,
    "rust": _rust,
    "nginx": _nginx,
    "haproxy": _haproxy,
    "rathole": _rathole,
    "frp": _frp,
    "direct": _direct,
}
