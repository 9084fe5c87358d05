"""DPDK's own forwarder, dpdk-testpmd, on the same captures: what the packet path is compared with.

Packets come from its counters, the time from the CPU clock of the thread that forwards, so that
a neighbour on the same core lengthens neither its figures nor ours. Used by run.
"""

import os
import re
import select
import subprocess
import time

FORWARDING_CPU = 1
MBUF_HEADROOM_BYTES = 128  # RTE_PKTMBUF_HEADROOM, part of --mbuf-size


class TestPmd:
    """One run of one forwarding mode; use it as a context."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    def __init__(self, mode, captures, mbuf_count, buffer_bytes, program="dpdk-testpmd"):
        devices = []
        for number, capture in enumerate(captures):
            devices += ["--vdev", f"net_pcap{number},rx_pcap={capture},infinite_rx=1"]
        self.command = [
            "stdbuf", "-oL", program, "-l", f"0,{FORWARDING_CPU}", "--no-pci", "--in-memory", "--no-telemetry", *devices,
            "--", "-i", "--auto-start", "--nb-cores=1", "--burst=32", "--no-flush-rx",
            f"--forward-mode={mode}", f"--total-num-mbufs={mbuf_count}",
            f"--mbuf-size={buffer_bytes + MBUF_HEADROOM_BYTES}",
        ]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = b""
        try:
            self._wait_for(rb"Press enter|testpmd> ", 60)
            self._received()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.process.communicate(b"quit\n", timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def measure(self, seconds):
        """Packets received on both ports and CPU nanoseconds spent on them."""
        packets, spent = self._received(), self._cpu_ns()
        time.sleep(seconds)
        return self._received() - packets, self._cpu_ns() - spent

    def _received(self):
        self.text = b""
        self.process.stdin.write(b"show port stats all\n")
        self.process.stdin.flush()
        found = rb"RX-packets: (\d+).*RX-packets: (\d+).*Rx-pps.*\n.*\n.*####"
        match = self._wait_for(found, 10)
        return int(match.group(1)) + int(match.group(2))

    def _cpu_ns(self):
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            folder = f"/proc/{self.process.pid}/task/{task}"
            with open(f"{folder}/comm", encoding="ascii") as comm:
                name = comm.read().strip()
            if name in (f"lcore-worker-{FORWARDING_CPU}", f"rte-worker-{FORWARDING_CPU}"):
                with open(f"{folder}/schedstat", encoding="ascii") as line:
                    return int(line.read().split()[0])
        raise RuntimeError("dpdk-testpmd has no forwarding thread")

    def _wait_for(self, pattern, seconds):
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.text, re.DOTALL)
            if match:
                return match
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                said = self.text.decode(errors="replace")[-600:]
                raise RuntimeError(f"dpdk-testpmd did not answer; it said: {said}")
            self.text += chunk
