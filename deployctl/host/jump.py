"""Jump hosts: one connection to each for all hosts behind it that one worker has.

Owns sharing and the words for a hop's failure; the way to connect is `connection`'s.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

import paramiko
from paramiko.ssh_exception import ChannelException

from deployctl.errors import Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.credentials import Credentials
from deployctl.host.failures import Limit, Scene, quote, timed_out
from deployctl.host.hostkey import Learned
from deployctl.host.keeper import PATIENCE, Patience
from deployctl.host.knownhosts import KnownHosts
from deployctl.host.target import Target
from deployctl.host.wire import Wire

REMEMBER_S = 30.0  # a hop that failed is not tried again for each host behind it


@dataclass(slots=True)
class _Hop:
    lock: threading.Lock = field(default_factory=threading.Lock)
    connection: Connection | None = None
    failure: HostError | None = None
    failed_at: float = 0.0


class JumpCache:
    """Connections to jump hosts, made when first needed; any thread may ask. `close` ends them all."""

    def __init__(
        self, credentials: Credentials, known_hosts: KnownHosts, patience: Patience = PATIENCE
    ) -> None:
        self._credentials = credentials
        self._known_hosts = known_hosts
        self._patience = patience
        self._lock = threading.Lock()
        self._hops: dict[tuple[Target, ...], _Hop] = {}

    def wire(self, target: Target, deadline: float) -> Wire:
        """A stream to the target through its hops. Raises HostError: JUMP, HOST_KEY of a hop, or UNREACHABLE."""
        return self._tunnel(self._connect(target.hops, deadline), target, deadline)

    def lost(self, target: Target) -> HostError | None:
        """The failure of the hop that led to a target whose connection has ended; None when that hop is alive."""
        hop = self._hops.get(target.hops)
        if hop is None or hop.connection is None:
            return None
        if hop.connection.alive:
            hop.connection.transport.join(0.1)  # it ends an instant after what it carries
        return None if hop.connection.alive else self._lost(hop.connection, EOFError())

    @property
    def learned(self) -> list[Learned]:
        """Host keys of hops that were new and accepted."""
        with self._lock:
            connections = [hop.connection for hop in self._hops.values()]
        return [one.learned for one in connections if one is not None and one.learned is not None]

    def close(self) -> None:
        with self._lock:
            hops, self._hops = list(self._hops.items()), {}
        for _, hop in sorted(hops, key=lambda item: -len(item[0])):  # the innermost first
            with hop.lock:
                if hop.connection is not None:
                    hop.connection.close()

    def _connect(self, chain: tuple[Target, ...], deadline: float) -> Connection:
        with self._lock:
            hop = self._hops.setdefault(chain, _Hop())
        with hop.lock:
            if hop.connection is not None and hop.connection.alive:
                return hop.connection
            if hop.failure is not None and time.monotonic() - hop.failed_at < REMEMBER_S:
                raise hop.failure
            try:
                hop.connection = self._open(chain, deadline)
            except HostError as error:
                hop.failure, hop.failed_at = error, time.monotonic()
                raise
            return hop.connection

    def _open(self, chain: tuple[Target, ...], deadline: float) -> Connection:
        target = replace(chain[-1], hops=chain[:-1])
        try:
            return Connection.open(
                target,
                self._credentials,
                self._known_hosts,
                deadline=deadline,
                jumps=self,
                patience=self._patience,
            )
        except HostError as error:
            if error.code is Code.JUMP:
                raise
            message = f"jump host {target.name}: {error.message}"
            if error.code is Code.HOST_KEY:
                raise HostError(Code.HOST_KEY, message, hint=error.hint, data=error.data) from error
            raise HostError(Code.JUMP, message, hint=error.hint, data={"cause": int(error.code)}) from error

    def _tunnel(self, hop: Connection, target: Target, deadline: float) -> Wire:
        left_s = deadline - time.monotonic()
        own = target.connect_timeout_s <= left_s
        limit_s = target.connect_timeout_s if own else left_s
        try:
            channel = hop.transport.open_channel(
                "direct-tcpip", (target.address, target.port), ("127.0.0.1", 0), timeout=max(0.1, limit_s)
            )
        except ChannelException as error:
            raise self._refused(hop, target, error) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            # paramiko has one place for why channels were refused, so this may be without its reason.
            if hop.alive and "Timeout" not in str(error):
                message = f"{target.endpoint}: not reachable from jump host {hop.target.name}"
                raise HostError(Code.UNREACHABLE, message, data={"retry": True}) from error
            if hop.alive:
                limit = Limit(deadline, limit_s, "ssh.connect_timeout" if own else "--timeout")
                scene = Scene(target.endpoint, limit=limit)
                raise timed_out(scene, f"no answer through jump host {hop.target.name}") from error
            raise self._lost(hop, error) from error
        return Wire(channel)

    def _refused(self, hop: Connection, target: Target, error: ChannelException) -> HostError:
        said = quote(error.text).lower()
        if error.code == paramiko.common.OPEN_FAILED_CONNECT_FAILED:
            message = f"{target.endpoint}: not reachable from jump host {hop.target.name}: {said}"
            return HostError(Code.UNREACHABLE, message, data={"retry": True})
        message = f"jump host {hop.target.name}: it does not forward to {target.endpoint}: {said}"
        return HostError(Code.JUMP, message, hint="its sshd_config needs AllowTcpForwarding yes")

    def _lost(self, hop: Connection, error: BaseException) -> HostError:
        cause = hop.why(error)
        data = {"cause": int(cause.code), "retry": True}
        return HostError(Code.JUMP, f"jump host {hop.target.name}: {cause.message}", data=data)
