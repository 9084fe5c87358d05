"""A program on a pseudo-terminal, and the screen that a person would see (pyte)."""
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

import pyte

from harness import programs

TERM = "xterm-256color"


class Screen:
    """Runs `command` on a terminal of so many lines and columns; text() is what it shows now."""

    def __init__(self, command, lines=24, columns=80, environment=None):
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._raw = bytearray()
        self._status = None
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            wanted = {"TERM": TERM, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(environment or {})}
            try:
                # The size is set before the program asks for it.
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
                os.execvpe(str(command[0]), [str(word) for word in command], programs.clean_environment(wanted))
            finally:
                os._exit(127)

    def pump(self, seconds=0.0):
        """Takes in what the program writes, until nothing came for `seconds`."""
        while select.select([self.terminal], [], [], seconds)[0]:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:  # EIO: the program has ended
                return
            if not data:
                return
            self._raw += data
            self._stream.feed(data)

    def text(self):
        self.pump(0.02)
        return "\n".join(self.screen.display)

    def expect(self, wanted, timeout=10.0):
        """Waits until the screen shows `wanted`: text, or a function of the screen's text."""
        shows = wanted if callable(wanted) else lambda text: wanted in text
        deadline = time.monotonic() + timeout
        while not shows(text := self.text()):
            assert time.monotonic() < deadline, f"not on the screen within {timeout} s: {wanted}\n{text}"
            assert self.running(), f"ended with {self._status}\n{text}"
            time.sleep(0.02)
        return text

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def resize(self, lines, columns):
        self.pump()
        self.screen.resize(lines, columns)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self):
        """The terminal's settings, as the program left them."""
        return termios.tcgetattr(self.terminal)

    def running(self):
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is None

    def wait(self, timeout=10.0):
        """The exit status; minus the signal's number for one that ended by a signal."""
        deadline = time.monotonic() + timeout
        while self.running():
            self.pump()
            assert time.monotonic() < deadline, f"still runs after {timeout} s\n{self.text()}"
            time.sleep(0.02)
        self.pump()
        return self._status

    def raw(self):
        return bytes(self._raw)

    def close(self):
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self.terminal)
