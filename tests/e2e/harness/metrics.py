"""bore-exporter and Prometheus as processes of a test, and what one reads from them."""
import http.client
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse

from harness import programs, traffic

SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """The answer of /metrics, taken apart: {(name, frozenset of labels): value}."""

    def __init__(self, text):
        self.text = text
        self.samples = {}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = SAMPLE.match(line).groups()
            key = (name, frozenset(LABEL.findall(labels or "")))
            assert key not in self.samples, f"twice: {line}"
            self.samples[key] = float(value)
        self.names = {name for name, _ in self.samples}
        self.families = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))

    def values(self, name, **labels):
        wanted = set(labels.items())
        return [value for (found, have), value in self.samples.items() if found == name and wanted <= have]

    def total(self, name, **labels):
        return sum(self.values(name, **labels))

    def one(self, name, **labels):
        values = self.values(name, **labels)
        assert len(values) == 1, f"{name}{labels}: {len(values)} series"
        return values[0]


class Exporter(programs.Process):
    """A running bore-exporter; ready when it has said where it serves."""

    def __init__(self, program, *arguments, listen=("127.0.0.1:0",), **keywords):
        words = [word for address in listen for word in ("--listen", address)]
        super().__init__([program, *words, *map(str, arguments)], **keywords)
        self.wait_for_log(r"serving http://" if len(listen) == 1 else f"(?s)(serving http://.*){{{len(listen)}}}", 20)
        self.addresses = [(host.strip("[]"), int(port)) for host, port in
                          re.findall(r"serving http://(\S+):(\d+)/metrics", self.log())]

    def ask(self, path, method="GET", address=0):
        """Status, headers and text of one request."""
        connection = http.client.HTTPConnection(*self.addresses[address], timeout=20)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def scrape(self):
        status, _, text = self.ask("/metrics")
        assert status == 200, text
        return Scrape(text)

    def health(self):
        status, _, text = self.ask("/health")
        return status, json.loads(text)

    def stop(self):
        self.child.terminate()
        assert self.wait() == 0, self.tail()
        self.assert_no_sanitizer_report()


class Prometheus(programs.Process):
    """Debian's Prometheus with a configuration as it stands, its data in a folder of the test."""

    ADDRESS = ("127.0.0.1", 9090)

    def __init__(self, configuration, folder):
        super().__init__(["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder}",
                          f"--web.listen-address={self.ADDRESS[0]}:{self.ADDRESS[1]}", "--log.level=warn"])
        traffic.eventually(self._is_ready, 20, f"Prometheus is ready\n{self.tail()}")

    def _is_ready(self):
        try:
            with socket.create_connection(self.ADDRESS, 1):
                return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path):
        connection = http.client.HTTPConnection(*self.ADDRESS, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def query(self, expression):
        """The instant vector: [(labels, value)]."""
        status, text = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert status == 200, text
        return [(entry["metric"], float(entry["value"][1])) for entry in json.loads(text)["data"]["result"]]

    def value(self, expression):
        found = self.query(expression)
        return found[0][1] if len(found) == 1 else None

    def wait_for(self, expression, value, seconds):
        """Until the expression has this value; says what it had."""
        deadline = time.monotonic() + seconds
        while (seen := self.value(expression)) != value:
            assert time.monotonic() < deadline, f"{expression} is {seen}, not {value}, after {seconds} s"
            time.sleep(0.2)

    def rules(self):
        return json.loads(self._get("/api/v1/rules")[1])["data"]["groups"]

    def targets(self):
        return json.loads(self._get("/api/v1/targets")[1])["data"]["activeTargets"]


def missing(program):
    return None if shutil.which(program) else f"{program} is missing: tools/setup --only test"


def promtool(*words, text=None):
    return subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False)


def names_in(expression):
    """The metrics of ours that a PromQL expression names, without the endings of histograms."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bbore_\w+", expression)}
