"""An SSH server that takes passwords, in a process of its own: sshd needs root and PAM or shadow for that.

Run as a program with JSON settings: `methods` in turn (all have to succeed: publickey, password,
keyboard-interactive), `password`. Prints its port and its host key as JSON, answers every exec with `in as USER`.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import Any

import paramiko


class Server(paramiko.ServerInterface):
    def __init__(self, methods: list[str], password: str) -> None:
        self.left = list(methods)
        self.password = password
        self.user = ""

    def get_allowed_auths(self, username: str) -> str:
        self.user = username
        return self.left[0]

    def _passed(self, method: str, *, right: bool) -> int:
        if not right or self.left[0] != method:
            return paramiko.common.AUTH_FAILED
        if len(self.left) == 1:
            return paramiko.common.AUTH_SUCCESSFUL
        self.left.pop(0)
        return paramiko.common.AUTH_PARTIALLY_SUCCESSFUL

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._passed("publickey", right=True)

    def check_auth_password(self, username: str, password: str) -> int:
        return self._passed("password", right=password == self.password)

    def check_auth_interactive(
        self, username: str, submethods: str
    ) -> int | paramiko.server.InteractiveQuery:
        if self.left[0] != "keyboard-interactive":
            return paramiko.common.AUTH_FAILED
        return paramiko.server.InteractiveQuery("Login", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return self._passed("keyboard-interactive", right=responses == [self.password])

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        channel.sendall(f"in as {self.user}\n".encode())
        channel.send_exit_status(0)
        channel.shutdown_write()
        return True


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    key = paramiko.Ed25519Key.from_private_key_file(settings["host_key"])
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)  # noqa: T201
    threading.Thread(target=serve, args=(listener, key, settings), daemon=True).start()
    sys.stdin.read()  # until whoever started us is gone


def serve(listener: socket.socket, key: paramiko.PKey, settings: dict[str, Any]) -> None:
    kept = []
    while True:
        transport = paramiko.Transport(listener.accept()[0])
        transport.add_server_key(key)
        transport.start_server(
            server=Server(settings["methods"], settings["password"]), event=threading.Event()
        )
        kept.append(transport)


if __name__ == "__main__":
    main()
