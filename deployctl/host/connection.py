"""One logged-in SSH connection to one host, and the way to get it.

Owns opening (address or jump hosts or proxy command, host key, login, retries), sessions on it, and its end: `close`
from any thread, with a reason that every later error carries. Refuses to run commands and to write files: it reports
what it `learned`, the parent writes that. Nothing here may run in a process that forks later.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import paramiko

from deployctl.errors import Code, HostError
from deployctl.host.credentials import Credentials
from deployctl.host.failures import Limit, Scene, dropped, lost, quote, timed_out, to_host_error
from deployctl.host.hostkey import Learned, check_host_key
from deployctl.host.keeper import PATIENCE, Keeper, Patience
from deployctl.host.knownhosts import KnownHosts
from deployctl.host.login import Login
from deployctl.host.peer import Peer, key_type
from deployctl.host.target import Target
from deployctl.host.wire import NotSsh, Proxy, Wire, dial

LOGIN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 2.0
NEAR_S = 0.002  # a window of 2 MiB in that time is 1 GB/s
SERVER_S = 0.03  # of the time in which a channel opens: as much as a server under load may take for it
BACKOFF_S = 0.25  # before the second attempt, about; doubled before each further one
NO_MORE_SESSIONS = paramiko.common.OPEN_FAILED_CONNECT_FAILED  # what sshd says beyond MaxSessions
END_S = 1.0
LOOK_S = 0.2
FULL_S, FULL_PAUSE_S = (
    1.5,
    0.05,
)  # a server that counts its sessions still counts one for a moment after we have closed it


class Jumps(Protocol):
    """The way through jump hosts; `jump.JumpCache`, which builds on Connection."""

    def wire(self, target: Target, deadline: float) -> Wire: ...
    def lost(self, target: Target) -> HostError | None: ...
    def close(self) -> None: ...


class Connection:
    """Use `Connection.open`. Every method may be called from any thread."""

    def __init__(
        self,
        target: Target,
        peer: Peer,
        learned: Learned | None,
        patience: Patience,
        jumps: Jumps | None = None,
        own: Jumps | None = None,
    ) -> None:
        self.target = target
        self.learned = learned
        self.transport: Peer = peer
        self.make_room: Callable[[], object] = lambda: None  # gives up a session that is not needed
        self._opened_s = LOGIN_TIMEOUT_S  # the shortest time that a channel took to open
        self._reason: HostError | None = None
        self._jumps = jumps
        self._own_jumps = own
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._keeper = Keeper(peer.wire, target.endpoint, patience, self.close)

    @classmethod
    def open(
        cls,
        target: Target,
        credentials: Credentials,
        known_hosts: KnownHosts,
        *,
        deadline: float,
        jumps: Jumps | None = None,
        patience: Patience = PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Connect and log in, with `target.retries` more attempts where another may help; `deadline` is monotonic.

        Never again after a wrong host key or a refused login. Raises HostError: UNREACHABLE, TIMED_OUT, HOST_KEY,
        LOGIN or JUMP.
        """
        from deployctl.host.jump import JumpCache  # noqa: PLC0415 - it builds on Connection

        own = JumpCache(credentials, known_hosts, patience) if target.hops and jumps is None else None
        opening = Opening(target, credentials, known_hosts, deadline, jumps or own)
        for attempt in range(target.retries + 1):
            try:
                peer, learned = opening.attempt()
                break
            except HostError as error:
                pause_s = BACKOFF_S * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, no secret
                again = error.data.get("retry") and attempt < target.retries
                if not again or time.monotonic() + pause_s >= deadline:
                    if attempt:
                        error.message += f", {attempt + 1} attempts"
                        error.args = (error.message,)
                    if own:
                        own.close()
                    raise
                sleep(pause_s)
        connection = cls(target, peer, learned, patience, jumps or own, own)
        peer.watch(patience.ask_after_s)
        connection._keeper.start()
        return connection

    @property
    def peer(self) -> str:
        """`address:port`, for messages."""
        return self.target.endpoint

    @property
    def alive(self) -> bool:
        return self._reason is None and self.transport.is_active()

    def open_session(self, timeout_s: float) -> paramiko.Channel:
        """A new session channel. Raises HostError; with `data["channel"]` when the server allows no more of them."""
        if not self.alive:
            raise self.why()
        try:
            return self._open_session(timeout_s)
        except (paramiko.SSHException, OSError, EOFError) as error:
            if self.alive and "Timeout" in str(error):
                limit = Limit(time.monotonic(), timeout_s, "--timeout")
                raise timed_out(replace(self._scene(), limit=limit), "no session") from error
            raise self.why(error) from error

    def _open_session(self, timeout_s: float) -> paramiko.Channel:
        """Where the server allows no more of them, give up one that is not needed, and wait until it has noticed."""
        full_until = time.monotonic() + min(timeout_s, FULL_S)
        while True:
            try:
                with self._opening:  # paramiko has one place for why channels were refused
                    asked_at = time.monotonic()
                    channel = self.transport.open_session(timeout=timeout_s)
                    self._opened_s = min(self._opened_s, time.monotonic() - asked_at)
                channel.event = _Reply(channel, timeout_s)
                return channel
            except paramiko.ChannelException as error:
                if error.code != NO_MORE_SESSIONS or time.monotonic() > full_until:
                    raise
                self.make_room()
                time.sleep(FULL_PAUSE_S)

    @property
    def is_far(self) -> bool:
        """Whether a round trip takes so long that the window of one channel may not fill the line.

        The kernel sees no farther than to a proxy or a jump host; opening a channel goes all the way.
        """
        to_peer_s = self.transport.wire.round_trip_s() or 0.0
        return max(to_peer_s, self._opened_s - SERVER_S) >= NEAR_S

    def why(self, error: BaseException | None = None) -> HostError:
        """The reason for which it ended, or what `error` on it means; LOST when nobody knows better."""
        self.ended(0.1)
        with self._lock:
            if self._reason is not None:
                return self._reason
            if self.transport.is_active():
                return lost(self._scene()) if error is None else to_host_error(error, self._scene())
            cause = self.transport.get_exception() or error
            scene = self._scene()
            said = scene.said or cause is None
            self._reason = self._jumps.lost(self.target) if self._jumps and self.target.hops else None
            if self._reason is None:
                self._reason = lost(scene) if said or cause is None else to_host_error(cause, scene)
            return self._reason

    def ended(self, within_s: float = END_S) -> bool:
        """Whether it is not alive; readers see the end of their channel a moment before the transport counts as ended."""
        if self._reason is None and self.transport.is_active():
            self.transport.join(within_s)
        return not self.alive

    def close(self, reason: HostError | None = None) -> None:
        """End it; the first reason given is what later errors on it say. Takes a moment at most, and works once."""
        with self._lock:
            if self._reason is None:
                self._reason = reason or HostError(Code.LOST, f"connection to {self.peer} is closed")
        self._keeper.stop()
        shut(self.transport)
        if self._own_jumps:
            self._own_jumps.close()

    def _scene(self) -> Scene:
        return Scene(self.peer, user=self.target.user, said=self.transport.parting, established=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reply(threading.Event):
    """What a channel waits for after a request. paramiko waits without a bound, and may miss that the channel was closed."""

    def __init__(self, channel: paramiko.Channel, limit_s: float) -> None:
        super().__init__()
        self._channel = channel
        self._limit_s = limit_s

    def wait(self, timeout: float | None = None) -> bool:
        """TimeoutError when there was no answer in time."""
        until = time.monotonic() + (self._limit_s if timeout is None else timeout)
        while not super().wait(LOOK_S):
            if self._channel.closed:
                self.set()
            elif time.monotonic() > until:
                raise TimeoutError("no answer to a request")
        return True


def shut(peer: Peer) -> None:
    """Close a transport so that its thread wakes up and ends."""
    peer.wire.close()
    peer.close()
    if peer.is_alive() and peer is not threading.current_thread():
        peer.join(CLOSE_TIMEOUT_S)


@dataclass(slots=True)
class Opening:
    """One or more attempts to reach and log in to a target."""

    target: Target
    credentials: Credentials
    known_hosts: KnownHosts
    deadline: float
    jumps: Jumps | None = None
    began_at: float = field(default_factory=time.monotonic)
    _others: set[str] = field(default_factory=set)  # types of the server's keys that we can check

    def attempt(self) -> tuple[Peer, Learned | None]:
        """One attempt; where a fingerprint is pinned, one for each key that the server has, until it is the pinned one."""
        wrong: HostError | None = None
        shown: set[str] = set()
        while True:
            try:
                return self._attempt(shown)
            except HostError as error:
                wrong = wrong or error
                kind = error.data.get("key_type")
                if not self.target.fingerprint or kind is None or not self._others - shown - {kind}:
                    raise wrong from None
                shown.add(kind)

    def _attempt(self, shown: set[str]) -> tuple[Peer, Learned | None]:
        """All up to the login within `connect_timeout_s`, which begins after the jump hosts, if any."""
        limit = self._limit(self.target.connect_timeout_s, "ssh.connect_timeout")
        wire = self._wire(limit)
        if self.target.hops:
            limit = self._limit(self.target.connect_timeout_s, "ssh.connect_timeout")
        try:
            peer = Peer(wire)
        except BaseException:
            wire.close()
            raise
        try:
            answer = self.known_hosts.lookup(self.target)
            peer.prefer_keys(answer.types, without=shown)
            self._negotiate(peer, limit)
            self._others = {key_type(name) for name in peer.offered["server_key_algo_list"]} & set(
                peer.key_types
            )
            key = peer.get_remote_server_key()
            learned = check_host_key(self.target, answer, key.get_name(), key.asbytes())
            Login(peer, self.target, self.credentials, self._limit(LOGIN_TIMEOUT_S)).run()
        except BaseException:
            shut(peer)
            raise
        return peer, learned

    def _limit(self, seconds: float, setting: str = "") -> Limit:
        """The limit of a step, or that of the whole phase where it comes first."""
        phase = Limit(self.deadline, self.deadline - self.began_at, "--timeout")
        return min(phase, Limit(time.monotonic() + seconds, seconds, setting), key=lambda limit: limit.at)

    def _wire(self, limit: Limit) -> Wire:
        target = self.target
        if target.hops and self.jumps:
            return self.jumps.wire(target, self.deadline)
        try:
            if target.proxy_command:
                proxy = Proxy(target.proxy_command)
                return Wire(proxy.link, proxy)
            return Wire(dial(target.address, target.port, limit.at))
        except (OSError, UnicodeError) as error:
            raise to_host_error(error, Scene(target.endpoint, limit=limit)) from error

    def _negotiate(self, peer: Peer, limit: Limit) -> None:
        """Banner and keys; what the other end sent instead is part of the message."""
        done = threading.Event()
        peer.banner_timeout = 3600  # ours is the limit that ends it: it can tell what is missing
        peer.start_client(event=done)
        if done.wait(limit.left_s) and peer.is_active():
            return
        error = peer.get_exception()
        if error is None and peer.is_active():
            what = "no SSH banner" if not peer.remote_version else "no key exchange"
            raise timed_out(replace(self._scene(peer), limit=limit), what)
        raise self._broken(peer, error or EOFError())

    def _broken(self, peer: Peer, error: BaseException) -> HostError:
        head, scene = peer.wire.head, self._scene(peer)
        if peer.remote_version:
            return to_host_error(error, scene)
        # paramiko has one exception for all that can come instead of a banner; the bytes tell more.
        if head.startswith((b"Exceeded", b"Not allowed")) or not head:
            return dropped(scene, "it refuses connections for now" if head else "without a word")
        return to_host_error(NotSsh(), scene)

    def _scene(self, peer: Peer) -> Scene:
        said = peer.parting or ("" if peer.remote_version else quote(peer.wire.head))
        if not said and peer.wire.proxy:
            said = peer.wire.proxy.said()
        offered = ""
        if peer.offered:
            pairs = (
                ("kex_algo_list", "kex"),
                ("server_key_algo_list", "keys"),
                ("client_encrypt_algo_list", "ciphers"),
            )
            offered = "; ".join(
                f"{ours}: it has {' '.join(peer.offered[theirs])}, we have {' '.join(getattr(peer, 'preferred_' + ours))}"
                for theirs, ours in pairs
                if not set(peer.offered[theirs]) & set(getattr(peer, "preferred_" + ours))
            )
        return Scene(self.target.endpoint, user=self.target.user, said=said, offered=offered)
