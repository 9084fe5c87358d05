"""borectl, run as an operator would."""
import json
import subprocess

from harness import programs


class Ctl:
    """One relay's borectl: ctl("tunnels") gives what it printed, ctl.json("tunnels") what it means."""

    def __init__(self, program, relay):
        self.program, self.relay = str(program), str(relay)

    def command(self, *words):
        return [self.program, "--relay", self.relay, *(str(word) for word in words)]

    def run(self, *words, timeout=20):
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout, check=False,
                              env=programs.clean_environment())

    def __call__(self, *words, status=0):
        done = self.run(*words)
        assert done.returncode == status, f"{done.args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stdout + done.stderr

    def json(self, *words, status=0):
        return json.loads(self(*words, "--json", status=status))
