"""One host as a worker sees it: its connection, opened when needed, and scripts run on it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from deployctl.errors import Code, HostError
from deployctl.host.connection import Connection
from deployctl.host.credentials import Credentials
from deployctl.host.facts import Facts, parse_history
from deployctl.host.growth import Growth
from deployctl.host.jump import JumpCache
from deployctl.host.knownhosts import KnownHosts
from deployctl.host.lock import BEAT_S, LEASE_S, Beat, Lock, named, take_lock
from deployctl.host.operation import Operation
from deployctl.host.owner import owner_text
from deployctl.host.script import Answer, Script
from deployctl.host.shell import Shell, run_script
from deployctl.host.tap import hide
from deployctl.host.target import Target
from deployctl.host.throttle import Throttle
from deployctl.model import Phase, Shared

FORWARD = frozenset(
    {Phase.UPLOAD, Phase.STAGE, Phase.ACTIVATE, Phase.CHECK}
)  # what is only done under our lock
BACK = frozenset(
    {Phase.REVERT, Phase.CLEAN}
)  # what is done without it too, and touches nothing that is not ours
PROVE_S = 10.0
AGAIN_HINT = "`deployctl status` tells what is live; start this again when the other run is done"


@dataclass(frozen=True, slots=True)
class Site:
    """What all hosts of a run have in common; handed to the workers by the fork."""

    run: str
    targets: dict[str, Target]
    roots: dict[str, str]  # deploy root by host
    credentials: Credentials
    known_hosts: KnownHosts
    shared: Shared
    timeout_s: float
    environments: dict[str, dict[str, str]] = field(default_factory=dict)  # vars of each host, for hooks
    secrets: tuple[str, ...] = ()  # values that no output may show
    rate_bytes_s: float | None = None  # what a worker may send until it is told its share
    debug: bool = False  # tell every remote command as it is sent


class Delivering(Protocol):
    """What parts.py does."""

    def stop(self) -> None: ...


@dataclass(slots=True)
class Session:
    """One host's connection and what its probe found."""

    host: str
    site: Site
    jumps: JumpCache
    throttle: Throttle = field(default_factory=Throttle)
    facts: Facts | None = None
    lock: Lock | None = None
    growth: Growth | None = None  # what is being packed, while a command follows it
    delivery: Delivering | None = None  # begun by one command, for another to end
    _lock_values: Mapping[str, str] = field(default_factory=dict)
    _beat: Beat | None = None
    _connection: Connection | None = None
    _shell: Shell | None = None  # waits for the next script
    _spare: Shell | None = None  # waits for the lock
    _starting: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def root(self) -> str:
        return self.site.roots[self.host]

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.alive

    def connection(self, timeout_s: float) -> Connection:
        """Return the open connection, opened anew, host key and all, when it was lost; HostError."""
        with self._lock:
            if self._connection is None or not self._connection.alive:
                if self._connection is not None:
                    self._connection.close()
                self._connection = Connection.open(
                    self.site.targets[self.host],
                    self.site.credentials,
                    self.site.known_hosts,
                    deadline=time.monotonic() + timeout_s,
                    jumps=self.jumps,
                )
                self._connection.make_room = self._make_room
            return self._connection

    def saw(self, probe: Answer) -> None:
        """Remember the sign of life of a lease that another run holds: its time runs from here on."""
        beat = probe.one("beat")
        self._beat = Beat(beat, time.monotonic()) if beat else None

    def take_lock(self, operation: Operation, values: Mapping[str, str]) -> Answer:
        """Take the lock of this run; the answer has `locked` when it is ours, `held` when another run has it."""
        settings = {**values, "BEAT_S": str(BEAT_S), "LEASE_S": str(LEASE_S)}
        if self._beat is not None:
            settings |= self._beat.values()
        taken = take_lock(
            self.connection(operation.timeout_s),
            self.script("lock", settings),
            timeout_s=operation.timeout_s,
            cancel=operation.cancel,
            spare=self._take_spare(),
        )
        if isinstance(taken, Answer):
            return taken
        self.lock, self._lock_values = taken, values
        return taken.answer

    def start_spare(self, timeout_s: float) -> None:
        """Begin to start the shell that will hold the lock, while the probe is on its way there and back."""
        connection = self.connection(timeout_s)

        def start() -> None:
            with contextlib.suppress(Exception):  # then the lock starts its own, and tells what was wrong
                shell = Shell.start(connection, timeout_s)
                with self._lock:
                    self._spare = shell

        self._starting = threading.Thread(target=start, name=f"spare shell {self.host}", daemon=True)
        self._starting.start()

    def _take_spare(self) -> Shell | None:
        if self._starting is not None:
            self._starting.join()
        with self._lock:
            shell, self._spare, self._starting = self._spare, None, None
        return shell

    def _keep_lock(self, operation: Operation) -> None:
        """Take the lock anew when it went with a lost connection; HostError LOCKED if another run came between.

        On the way back that is none: what is ours there is taken back all the same.
        """
        if self.lock is None or self.lock.connection.alive:
            return
        answer = self.take_lock(operation, {**self._lock_values, "AGAIN": "1"})
        if operation.phase in BACK:
            return
        if answer.one("locked") is None:
            said = "the lock went with the lost connection, and another run has taken it"
            raise HostError(Code.LOCKED, f"{said}: {owner_text(answer.one('held') or '')}", hint=AGAIN_HINT)
        last = next(iter(parse_history(answer.all("history"))), {})
        if (
            answer.one("current") != (self.facts.current if self.facts else None)
            and last.get("run") != self.site.run
        ):
            said = "the lock went with the lost connection, and another run was at work meanwhile"
            raise HostError(Code.LOCKED, said, hint=AGAIN_HINT)

    def hold(self, operation: Operation) -> Connection:
        """Return the open connection with the lock; both had anew where they were lost. HostError."""
        self._keep_lock(operation)
        return self.connection(operation.timeout_s)

    @contextlib.contextmanager
    def under_lock(self, operation: Operation) -> Iterator[None]:
        """Where a step fails because somebody took our lock, that is said."""
        try:
            yield
        except HostError as error:
            self._refuse_without_lock(operation, error)
            found = named(error)
            if found is error:
                raise
            raise found from error

    def show(self, operation: Operation, script: Script) -> None:
        """Tell of a command that is about to be sent, with --debug."""
        if self.site.debug:
            for line in script.head.splitlines():
                operation.log("command", hide(line, self.site.secrets))

    def run(
        self,
        operation: Operation,
        name: str,
        values: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        environment: Mapping[str, str] | None = None,
        tap: Callable[[str, bytes], None] | None = None,
    ) -> Answer:
        """Run `do_<name>` on the host under the operation's limits; HostError or Cancelled."""
        self._keep_lock(operation)
        script = self.script(name, values, environment=environment)
        self.show(operation, script)
        connection = self.connection(operation.timeout_s)
        operation.reach()
        # Whatever a hook does to its shell and its process group, no other command feels it.
        lasting: dict[str, Any] = (
            {} if tap else {"kept": self._take_shell(connection), "keep": self._keep_shell}
        )
        with self.under_lock(operation):
            answer = run_script(
                connection,
                script,
                timeout_s=timeout_s or operation.timeout_s,
                cancel=operation.cancel,
                tap=tap,
                **lasting,
            )
        self.learn(answer)
        return answer

    def learn(self, answer: Answer) -> None:
        """Remember what the host found out about its tools."""
        if self.facts is not None and (able := answer.one("able")):
            self.facts = replace(self.facts, able=able)

    def _take_shell(self, connection: Connection) -> Shell | None:
        with self._lock:
            shell, self._shell = self._shell, None
        if shell is None or (shell.connection is connection and shell.usable):
            return shell
        shell.close()
        return None

    def _keep_shell(self, shell: Shell) -> None:
        with self._lock:
            spare, self._shell = self._shell, shell
        if spare is not None:
            spare.close()

    def forget_shell(self) -> Shell | None:
        """Let go of the shell that waits and return it."""
        with self._lock:
            shell, self._shell = self._shell, None
        return shell

    def _make_room(self) -> None:
        """Give up the shell that waits, for a server that allows few sessions on a connection."""
        if shell := self.forget_shell():
            shell.close()

    def _refuse_without_lock(self, operation: Operation, error: HostError) -> None:
        """Whoever took our lock may have removed what a command of ours needed: then that is the failure's cause."""
        lock = self.lock
        if (
            lock is None
            or lock.held
            or error.code is Code.LOCKED
            or operation.phase not in FORWARD
            or lock.connection.ended()
        ):
            return
        try:
            script = self.script("prove_owned")
            run_script(lock.connection, script, timeout_s=PROVE_S, cancel=operation.cancel)
        except HostError as found:
            if found.code is Code.LOCKED:
                raise named(found) from error

    def script(
        self,
        name: str,
        values: Mapping[str, str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Script:
        return Script.build(
            name,
            {
                "LOCK": "1" if self.lock else "",
                "ABLE": self.facts.able if self.facts else "",
                **(values or {}),
            },
            run=self.site.run,
            root=self.root,
            shared=self.site.shared,
            environment=environment,
        )

    def release(self) -> Connection | None:
        """Let go of the connection and return it; the next command opens another."""
        connection, self._connection = self._connection, None
        return connection

    def end_early(self) -> None:
        """End a delivery that no other command will."""
        delivery, self.delivery = self.delivery, None
        if delivery is not None:
            delivery.stop()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
