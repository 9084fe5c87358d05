"""The relays that are compared, each with the tunnel clients it is measured through.

A set-up is one relay, one tunnel client and one service in a namespace of their own; visitors
reach all of them at 127.0.0.1:10001. Used by run.
"""

import json
import os
import re
import shutil
import subprocess
import time

from measure import Namespace, descriptor_limit, family

PUBLIC_PORT = 10001
SERVICE_PORT = 9000
# Where a relay waits for its tunnel client; without a tunnel, for visitors.
CONTROL_PORTS = {
    "nginx": PUBLIC_PORT,
    "haproxy": PUBLIC_PORT,
    "rust": 7835,
    "ours": 7835,
    "rathole": 2333,
    "frp": 7000,
}
# These end both directions when one has ended.
WITHOUT_HALF_CLOSE = ("frp",)
TARGET = f"127.0.0.1:{PUBLIC_PORT}"
NGINX_STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

NGINX = """
load_module {module};
daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log {folder}/nginx.log error;
events {{ worker_connections {connections}; }}
stream {{
    server {{
        listen 127.0.0.1:{public} backlog=4096;
        proxy_pass 127.0.0.1:{service};
        proxy_buffer_size 64k;
        proxy_half_close on;
    }}
}}
"""

HAPROXY = """
global
    maxconn {connections}
defaults
    mode tcp
    maxconn {connections}
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen load
    bind 127.0.0.1:{public} backlog 4096
    server service 127.0.0.1:{service}
"""

RATHOLE_SERVER = """
[server]
bind_addr = "127.0.0.1:2333"
default_token = "bench"
[server.services.load]
bind_addr = "127.0.0.1:{public}"
"""

RATHOLE_CLIENT = """
[client]
remote_addr = "127.0.0.1:2333"
default_token = "bench"
[client.services.load]
local_addr = "127.0.0.1:{service}"
"""

FRP_SERVER = """
bindAddr = "127.0.0.1"
bindPort = 7000
log.level = "error"
"""

FRP_CLIENT = """
serverAddr = "127.0.0.1"
serverPort = 7000
log.level = "error"
transport.tls.enable = false
[[proxies]]
name = "load"
type = "tcp"
localIP = "127.0.0.1"
localPort = {service}
remotePort = {public}
"""


# What `ours:NAME+client` adds to the command line of our relay.
VARIANTS = {"": [], "busy": ["--busy-poll-us", "50"], "epoll": ["--stream-driver", "epoll"]}


def parts(name):
    """'ours:busy+rust' → ('ours', 'busy', 'rust'); variant and client may be empty."""
    relay, _, client = name.partition("+")
    kind, _, variant = relay.partition(":")
    return kind, variant, client


# Relays and tunnel clients, each with the programs it cannot do without.
RELAYS = {
    "nginx": ["nginx", "nginx-stream"],
    "haproxy": ["haproxy"],
    "rust": ["rust"],
    "rathole": ["rathole"],
    "frp": ["frps", "frpc"],
    "ours": ["server"],
}
CLIENTS = {"": [], "rust": ["rust"], "bore": ["client"], "plain": []}


def needs(name):
    relay, _, client = parts(name)
    return ["load", *RELAYS[relay], *CLIENTS[client]]


class Programs:
    """Where every program is; `missing` tells what a set-up lacks."""

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

    def missing(self, names):
        return [f"{name} ({self.paths[name]})" for name in names if not os.path.exists(self[name])]

    def versions(self):
        commands = {
            "ours": [self["server"], "--version"],
            "nginx": [self["nginx"], "-v"],
            "haproxy": [self["haproxy"], "-v"],
            "rust": [self["rust"], "--version"],
            "rathole": [self["rathole"], "--version"],
            "frp": [self["frps"], "--version"],
        }
        found = {}
        for name, command in commands.items():
            if os.path.exists(command[0]):
                output = subprocess.run(command, capture_output=True, text=True, timeout=10)
                lines = (output.stdout + output.stderr).strip().splitlines()
                found[name] = next((one for one in lines if re.search(r"\d\.\d+\.\d", one)), "?").strip()
        return found


class Setup:
    """One relay with its tunnel client and service, running. Use as a context manager."""

    def __init__(self, name, programs, folder):
        self.name = name
        self.relay_kind, self.variant, self.client_kind = parts(name)
        self.programs = programs
        self.folder = folder
        self.log = os.path.join(folder, "log")
        self.commands = []
        self.namespace = None
        self.relay = None

    def __enter__(self):
        os.makedirs(self.folder, exist_ok=True)
        self.namespace = Namespace()
        try:
            # A plain client is its own service.
            if self.client_kind != "plain":
                self._start([self.programs["load"], "serve", "--listen", f"127.0.0.1:{SERVICE_PORT}"])
            self.relay = self._start(self._relay_command())
            # What ended or never listened shows below, with its log.
            self.namespace.wait_listening(CONTROL_PORTS[self.relay_kind], self.relay)
            client = self._client_command()
            if client:
                self._start(client)
            self._wait_until_it_relays()
        except BaseException:
            self.namespace.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.namespace.stop()

    def relay_pids(self):
        return family(self.relay.pid)

    def load(self, arguments, timeout=180):
        """Runs bore-load against the public port; returns its result."""
        finished = self.namespace.run([self.programs["load"], *arguments], timeout)
        lines = finished.stdout.strip().splitlines()
        result = json.loads(lines[-1]) if lines else {}
        if finished.returncode != 0:
            raise RuntimeError(
                f"{self.name}: bore-load {' '.join(arguments)}: {result} {finished.stderr.strip()}"
            )
        return result

    def _start(self, command):
        self.commands.append(" ".join(command))
        environment = os.environ | {"RUST_LOG": "error"}
        return self.namespace.start(command, self.log, env=environment)

    def _file(self, name, template):
        path = os.path.join(self.folder, name)
        with open(path, "w") as output:
            output.write(
                template.format(
                    public=PUBLIC_PORT,
                    service=SERVICE_PORT,
                    folder=self.folder,
                    module=NGINX_STREAM_MODULE,
                    # HAProxy reserves 2.5 descriptors for each and refuses to start without.
                    connections=min(50_000, descriptor_limit() * 2 // 5 - 100),
                )
            )
        return path

    def _relay_command(self):
        programs = self.programs
        ports = ["--min-port", "10000", "--max-port", "20000"]
        match self.relay_kind:
            case "nginx":
                return [programs["nginx"], "-p", self.folder, "-c", self._file("nginx.conf", NGINX)]
            case "haproxy":
                return [programs["haproxy"], "-f", self._file("haproxy.cfg", HAPROXY)]
            case "rust":
                return [programs["rust"], "server", *ports]
            case "rathole":
                return [programs["rathole"], "--server", self._file("server.toml", RATHOLE_SERVER)]
            case "frp":
                return [programs["frps"], "-c", self._file("frps.toml", FRP_SERVER)]
            case "ours":
                level = ["--open", "--log-level", "warn"]
                return [programs["server"], *ports, *level, *VARIANTS[self.variant]]
        raise ValueError(f"no relay '{self.relay_kind}'")

    def _client_command(self):
        programs = self.programs
        to = ["--to", "127.0.0.1", "--port", str(PUBLIC_PORT)]
        match self.relay_kind, self.client_kind:
            case ("nginx" | "haproxy"), _:
                return None
            case "rathole", _:
                return [programs["rathole"], "--client", self._file("client.toml", RATHOLE_CLIENT)]
            case "frp", _:
                return [programs["frpc"], "-c", self._file("frpc.toml", FRP_CLIENT)]
            case _, "rust":
                return [programs["rust"], "local", str(SERVICE_PORT), *to]
            case _, "bore":
                return [programs["client"], "local", str(SERVICE_PORT), *to]
            case _, "plain":
                return [programs["load"], "plain-client", "--port", str(PUBLIC_PORT)]
        raise ValueError(f"no tunnel client '{self.client_kind}'")

    def _wait_until_it_relays(self):
        deadline = time.monotonic() + 20
        probe = [self.programs["load"], "short", "--to", TARGET, "--count", "1", "--concurrency", "1"]
        while True:
            if self.namespace.run(probe, 15).returncode == 0:
                return
            ended = [p.args for p in self.namespace.processes if p.poll() is not None]
            if ended or time.monotonic() > deadline:
                with open(self.log) as log:
                    text = log.read()[-2000:]
                raise RuntimeError(f"{self.name} does not relay; ended: {ended}; log:\n{text}")
            time.sleep(0.1)
