"""An SSH server for one throwaway host: `python -m deployctl.demo.server --help`.

Owns a listener on 127.0.0.1 and who may log in: one public key, no password, no forwarding, no terminal. A command runs
through /bin/sh as the user who started the server. It ends with the process that started it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import getpass
import logging
import os
import select
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import paramiko
from paramiko import Channel, Message, ServerInterface, Transport
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

from deployctl.demo.guard import MARK, Guard
from deployctl.demo.session import Session

_LOOK_S = 0.2  # how often lost clients and a lost parent are looked for
_PR_SET_PDEATHSIG = 1
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass
class Host:
    """What the connections of one host share."""

    home: Path
    authorized_key: paramiko.PKey
    environ: Mapping[str, str]
    guard: Guard
    sessions: list[Session] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, channel: Channel, command: bytes) -> None:
        session = Session(channel, command, self.environ, self.home, self.guard)
        with self.lock:
            self.sessions.append(session)
        session.start()

    def tend(self) -> None:
        with self.lock:
            self.sessions = [session for session in self.sessions if not session.finished]
            current = list(self.sessions)
        for session in current:
            session.tend()


class Login(ServerInterface):
    """Says yes to the one key and to commands, no to everything else a client may ask for."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.asked: dict[int, bytes] = {}  # commands by channel, until the client has heard our yes

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        return AUTH_SUCCESSFUL if key == self.host.authorized_key else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: Channel, command: bytes) -> bool:
        first = channel.get_id() not in self.asked
        self.asked.setdefault(channel.get_id(), command)
        return first


def _request(channel: Channel, message: Message) -> None:
    """Answer a channel request, then start its command: no byte of it may reach the client before the answer."""
    login: Any = channel.get_transport().server_object
    before = len(login.asked)
    channel._handle_request(message)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    if len(login.asked) > before:
        login.host.start(channel, login.asked[channel.get_id()])


class Connection(Transport):
    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001
        MSG_CHANNEL_REQUEST: _request,
    }


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    options = _options(arguments)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    with contextlib.suppress(ImportError):
        import setproctitle  # noqa: PLC0415

        setproctitle.setproctitle(f"deployctl: demo host {options.name}")
    wake = _end_on_signals()
    parent = options.parent or os.getppid()
    _end_with_parent()
    token = uuid.uuid4().hex
    guard = Guard(token)
    options.root.mkdir(parents=True, exist_ok=True)
    host = Host(
        options.root.resolve(),
        _public_key(options.authorized_key),
        _environ(options, token),
        guard,
    )
    status = 1
    try:
        _serve(host, paramiko.PKey.from_path(options.host_key), options, wake, parent)
        status = 0
    except (OSError, paramiko.SSHException) as error:
        sys.stderr.write(f"{error}\n")
    finally:
        guard.finish()
        sys.stderr.flush()
        os._exit(status)  # threads of connections end here


def _serve(host: Host, host_key: paramiko.PKey, options: argparse.Namespace, wake: int, parent: int) -> None:
    listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
    _write_atomically(options.port_file, f"{listener.getsockname()[1]}\n")
    connections: list[Connection] = []
    while os.getppid() == parent:
        readable, _, _ = select.select([listener.fileno(), wake], [], [], _LOOK_S)
        if wake in readable and _told_to_end(wake):
            return
        if listener.fileno() in readable:
            with contextlib.suppress(OSError, paramiko.SSHException):
                connections.append(_welcome(listener, host, host_key))
        connections = [connection for connection in connections if connection.is_alive()]
        host.tend()


def _welcome(listener: socket.socket, host: Host, host_key: paramiko.PKey) -> Connection:
    link, _ = listener.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(link)
    connection.daemon = True
    connection.add_server_key(host_key)
    connection.start_server(event=threading.Event(), server=Login(host))  # the event: do not wait here
    return connection


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployctl.demo.server", description="One throwaway SSH host."
    )
    parser.add_argument("--root", type=Path, required=True, help="home directory of whoever logs in")
    parser.add_argument("--host-key", type=Path, required=True, help="private key of the host")
    parser.add_argument("--authorized-key", type=Path, required=True, help="the public key that may log in")
    parser.add_argument(
        "--port-file", type=Path, required=True, help="where the port is written once it listens"
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--name", default="demo", help="shown by ps")
    parser.add_argument("--path-prefix", type=Path, help="directory that comes first in PATH")
    parser.add_argument("--parent", type=int, help="process to end with; default: the one that started this")
    return parser.parse_args(arguments)


def _public_key(file: Path) -> paramiko.PKey:
    kind, data = file.read_text(encoding="ascii").split()[:2]
    return paramiko.PKey.from_type_string(kind, base64.b64decode(data))


def _environ(options: argparse.Namespace, token: str) -> dict[str, str]:
    path = os.environ.get("PATH") or _PATH
    user = getpass.getuser()
    return {
        "HOME": str(options.root.resolve()),
        "PATH": f"{options.path_prefix.resolve()}:{path}" if options.path_prefix else path,
        "SHELL": "/bin/sh",
        "USER": user,
        "LOGNAME": user,
        MARK: token,
    }


def _write_atomically(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(text, encoding="ascii")
    partial.replace(file)


def _end_on_signals() -> int:
    """Make TERM, INT, HUP and the loss of our parent (USR1) readable on the returned descriptor."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    return reading


def _told_to_end(wake: int) -> bool:
    """USR1 alone is no reason: the kernel sends it too when only the parent's thread that started us is gone."""
    return any(number != signal.SIGUSR1 for number in os.read(wake, 512))


def _end_with_parent() -> None:
    """Have Linux wake us when the parent is gone; elsewhere looking at the parent's number does it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)


if __name__ == "__main__":
    main()
