"""Short ways to a target and a connection, for the tests of this folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from deployctl.errors import Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.credentials import Credentials, prepare_credentials
from deployctl.host.jump import JumpCache
from deployctl.host.keeper import PATIENCE, Patience
from deployctl.host.knownhosts import KnownHosts
from deployctl.host.target import Target, resolve_targets
from deployctl.model import Host, HostKeys
from tests.support.sshd import Sshd, login_user


def never(_pause_s: float) -> None:
    raise AssertionError("this must not be tried again")


@dataclass
class Kit:
    """Makes targets that know the servers given, and opens connections that are closed with the test."""

    directory: Path
    identity: Path | None
    known: str = ""  # content of known_hosts
    config: str = ""  # content of ssh config
    environ: dict[str, str] = field(default_factory=dict)
    opened: list[Any] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=lambda: set(threading.enumerate()))

    def knows(self, *servers: Sshd) -> Kit:
        self.known += "".join(server.known_hosts_lines for server in servers)
        return self

    def target(self, address: str = "127.0.0.1", port: int | None = None, **fields: Any) -> Target:
        known, config = self.directory / "known_hosts", self.directory / "ssh_config"
        if self.known or not known.exists():
            known.write_text(self.known)
        config.write_text(self.config)
        defaults: dict[str, Any] = {
            "user": login_user(),
            "identity_file": str(self.identity) if self.identity else None,
            "known_hosts": str(known),
            "host_keys": HostKeys.STRICT,
        }
        retries, limit_s = fields.pop("retries", 0), fields.pop("connect_timeout_s", 10)
        host = Host(name="web01", address=address, path="/srv/x", port=port, **{**defaults, **fields})
        environ = {"HOME": str(self.directory), **self.environ}
        [target] = resolve_targets([host], config_files=[config], environ=environ)
        return replace(target, retries=retries, connect_timeout_s=limit_s)

    def credentials(self, target: Target, **options: Any) -> Credentials:
        return prepare_credentials([target], environ=self.environ, **options)

    def open(
        self,
        target: Target,
        *,
        credentials: Credentials | None = None,
        within_s: float = 20,
        patience: Patience = PATIENCE,
        sleep: Callable[[float], None] = never,
    ) -> Connection:
        credentials = credentials or self.credentials(target)
        known = KnownHosts.load([target])
        jumps = JumpCache(credentials, known)
        self.opened.insert(0, jumps)
        connection = Connection.open(
            target,
            credentials,
            known,
            deadline=time.monotonic() + within_s,
            jumps=jumps,
            patience=patience,
            sleep=sleep,
        )
        self.opened.insert(0, connection)
        return connection

    def close(self) -> None:
        for one in self.opened:
            one.close()
        assert set(threading.enumerate()) <= self.threads


def to(server: Any) -> dict[str, Any]:
    return {"address": server.address, "port": server.port}


def ask(connection: Connection, command: str) -> str:
    with connection.open_session(5) as channel:
        channel.settimeout(10)
        channel.exec_command(command)
        with channel.makefile() as output:
            answer: bytes = output.read()
    return answer.decode()


def failure(call: Callable[[], object], code: Code, *words: str) -> HostError:
    """The HostError that `call` raises, which has this code and says these words."""
    with pytest.raises(HostError) as caught:
        call()
    error = caught.value
    assert error.code is code, error
    for word in words:
        assert word in f"{error.message} {error.hint}", error
    assert error.message[-1] != "."
    return error
