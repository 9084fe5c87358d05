"""Statistics of a relay as another process reads them."""
import json
import subprocess

from harness import programs, traffic


class Watcher:
    """watcher(): the relay's statistics now, or {"error": ..., "error_kind": ...}."""

    def __init__(self, program, name):
        self.child = subprocess.Popen(  # pylint: disable=consider-using-with
            [program, str(name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=programs.clean_environment())
        self.first = json.loads(self.child.stdout.readline())

    def __call__(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, f"the reader ended with {self.child.wait()}"
        return json.loads(line)

    def tunnel(self, port):
        """The newest tunnel on this port."""
        found = [tunnel for tunnel in self()["tunnels"] if tunnel["port"] == port]
        return max(found, key=lambda tunnel: tunnel["generation"]) if found else None

    def eventually(self, condition, timeout=10.0):
        """The first snapshot for which condition(snapshot) holds."""
        seen = {}

        def holds():
            seen["last"] = self()
            return condition(seen["last"])

        traffic.eventually(holds, timeout)
        return seen["last"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()
