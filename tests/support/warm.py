"""Runs of deployctl that begin in a fork of a process with everything imported; half of what most runs cost is imports.

Each is a process of its own, leader of its own session, with its own streams, environment, directory and signals, and ends
as an interpreter ends. What can't be so is started for real: `cold` says what. Tests that are marked `cold` start all
their runs for real, as does `make test-wide`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.support.proc import die_with_parent
from tests.support.wide import WIDE

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("warm_process.py")
PROGRAM = (sys.executable, "-m", "deployctl")
LIMIT_S = 60.0
# What an interpreter reads when it starts.
AT_START = ("PYTHON", "LANG", "LC_", "TZ", "LD_", "OPENSSL_", "MALLOC_")


class Process:
    """What tests of a run use of subprocess.Popen; `returncode` as it has it."""

    def __init__(self, pid: int, told: socket.socket, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("deployctl", timeout or 0)
        return code

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout_s)[0]:
            answer = self._told.recv(64)
            self._told.close()
            if not answer:
                raise RuntimeError("the server of warm runs has died")
            self.returncode = int(answer)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        self._told.close()


Started = subprocess.Popen[bytes] | Process


class Server:
    """Forks the runs; ends with this process."""

    def __init__(self) -> None:
        self.environ = dict(os.environ)
        self._owner = os.getpid()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(SERVER), str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads in tests
            )
        atexit.register(self.close)

    def close(self) -> None:
        if os.getpid() == self._owner:
            self._orders.close()
            self._process.kill()
            self._process.wait()

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        streams: Sequence[int],
    ) -> tuple[int, socket.socket]:
        """Return the number of the process and where its end will be told."""
        umask = os.umask(0)
        os.umask(umask)
        run = {"arguments": arguments, "env": dict(env), "cwd": str(Path.cwd()), "umask": umask}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._orders, [json.dumps(run).encode()], [*streams, theirs.fileno()])
        return int(ours.recv(64)), ours


class Warm:
    """Whether runs may be warm, and the server once one was."""

    allowed = not WIDE
    _server: Server | None = None

    @classmethod
    def server(cls) -> Server:
        if cls._server is None:
            cls._server = Server()
        return cls._server


def cold(env: Mapping[str, str]) -> bool:
    """Whether a run with this environment has to be started for real."""
    if not Warm.allowed or not hasattr(os, "pidfd_open"):
        return True
    ours = Warm.server().environ
    return any(
        name.startswith(AT_START) and env.get(name) != ours.get(name) for name in env.keys() | ours.keys()
    )


def start(
    arguments: Sequence[str | Path], env: Mapping[str, str] | None, stderr: IO[bytes] | None
) -> Started:
    """Start deployctl with a pipe for standard output (for both without `stderr`), and nothing to read."""
    words, environ = [*map(str, arguments)], {**os.environ, **(env or {})}
    if cold(environ):
        return subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr or subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
    reader, writer = os.pipe()
    stdout = open(reader, "rb")  # noqa: PTH123, SIM115 - whoever asked closes it
    with open(os.devnull) as null, open(writer, "wb") as pipe:  # noqa: PTH123
        streams = [null.fileno(), pipe.fileno(), stderr.fileno() if stderr else pipe.fileno()]
        return Process(*Warm.server().start(words, environ, streams), stdout)


def run(arguments: Sequence[str | Path], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run deployctl without a terminal, at most a minute: exit code, and all it says on both streams."""
    process = start(arguments, env, None)
    assert process.stdout
    with process.stdout as pipe:
        said = bytearray()
        deadline = time.monotonic() + LIMIT_S
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(pipe.fileno(), 1 << 16)
            if not piece:
                return process.wait(LIMIT_S), said.decode("utf-8", "replace")
            said += piece
    process.kill()
    process.wait()
    raise subprocess.TimeoutExpired("deployctl", LIMIT_S, bytes(said))
