"""Real OpenSSH servers for tests: each its own process, port, host key and deploy root.

Works as root and as any user (who can then only log in as themselves). Commands run in the login user's shell, but with
an empty home directory, so that no start-up file of the machine's user slows or spoils a test: 8 ms for a command where
a version manager in `.bashrc` takes 90 ms and more.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import proc
from tests.support.keys import KeyPair
from tests.support.proc import Proc, wait_until

ADVICE = (
    "OpenSSH's server is missing: install openssh-server (Debian, Ubuntu, Fedora) or openssh (Arch, Alpine)"
)
ATTEMPTS = 20  # at a free port, which another process can take between our look and sshd's bind


def find_sshd() -> str | None:
    return shutil.which(
        "sshd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"))
    )


def login_user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def free_port(address: str) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Sshd:
    """One server. `root` is an empty directory for what is deployed to it.

    `config` are further sshd_config lines; they replace the harness's (leave LogLevel alone). `wrapper` is sh script text
    that runs before each command (`$SSH_ORIGINAL_COMMAND`), whatever it is; unless it ends by itself, the command then
    runs in `$RUN_WITH -c` (default `/bin/sh`). `env` is set for each session, PATH too.
    """

    name: str
    directory: Path
    keys: Sequence[KeyPair]
    authorized: Sequence[str]  # public key lines
    address: str = "127.0.0.1"
    config: Sequence[str] = ()
    wrapper: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.root = self.directory / "root"
        self.log = self.directory / "sshd.log"
        self.user = login_user()
        self._marker = f"DEPLOYCTL_TEST_SSHD={uuid.uuid4().hex}"
        self._seen: set[Proc] = set()  # sessions that a stopped listener left behind
        self._listener: subprocess.Popen[bytes] | None = None
        self.root.mkdir(parents=True)
        (self.directory / "home").mkdir()
        (self.directory / "authorized_keys").write_text("".join(line + "\n" for line in self.authorized))

    @property
    def host_key(self) -> KeyPair:
        return self.keys[0]

    @property
    def known_hosts_name(self) -> str:
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def known_hosts_lines(self) -> str:
        return "".join(f"{self.known_hosts_name} {key.public}\n" for key in self.keys)

    # --- life

    def start(self) -> Self:
        """Start listening; the same port again after `stop_listener`. Returns once it does."""
        fixed = self.port != 0
        for _ in range(ATTEMPTS):
            if not fixed:
                self.port = free_port(self.address)
            if self._try_start():
                return self
            if "Address already in use" not in self.log.read_text(errors="replace"):
                break
        raise RuntimeError(f"sshd {self.name} did not start:\n{self.log.read_text(errors='replace')}")

    def _try_start(self) -> bool:
        sshd = find_sshd()
        if sshd is None:
            raise RuntimeError(ADVICE)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(
                mode=0o755, exist_ok=True
            )  # what the distribution's service unit would do
        config = self.directory / "sshd_config"
        config.write_text(self._config_text())
        self.log.write_text("")
        command = [str(Path(sshd).resolve()), "-D", "-f", str(config), "-E", str(self.log)]
        self._listener = listener = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=proc.die_with_parent,  # noqa: PLW1509 - no threads in tests
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        # sshd says so after listen(2). A probe would occupy a place of MaxStartups just when a test begins.
        ready = f"Server listening on {self.address} port {self.port}."
        wait_until(
            lambda: listener.poll() is not None or ready in self.log.read_text(errors="replace"),
            what=f"the start of sshd {self.name}",
        )
        return listener.poll() is None

    def _config_text(self) -> str:
        listen = f"[{self.address}]" if ":" in self.address else self.address
        env = {"HOME": str(self.directory / "home"), "SHLVL": "1", **self.env}
        name, value = self._marker.split("=")
        env[name] = value
        own = [
            f"ListenAddress {listen}:{self.port}",
            *(f"HostKey {key.path}" for key in self.keys),
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
            "SetEnv " + " ".join(f'"{key}={text}"' for key, text in env.items()),
            "UsePAM no",
            "StrictModes no",
            "PidFile none",
            "UseDNS no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitUserRC no",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 1000:30:2000",
            "MaxSessions 1000",
            "LoginGraceTime 60",
            "LogLevel VERBOSE",
        ]
        # For most keywords the first line counts, for MaxStartups the last: let there be only one.
        given = {line.split()[0].lower() for line in self.config}
        lines = [*self.config, *(line for line in own if line.split()[0].lower() not in given)]
        if self.wrapper is not None:
            script = self.directory / "wrapper.sh"
            run = 'exec ${RUN_WITH:-/bin/sh} ${SSH_ORIGINAL_COMMAND:+-c "$SSH_ORIGINAL_COMMAND"}'
            script.write_text(f"{self.wrapper}\n{run}\n")
            lines.append(f"ForceCommand exec /bin/sh {shlex.quote(str(script))}")
        return "\n".join(lines) + "\n"

    def stop_listener(self) -> None:
        """As a restart of the service does: no new connection, those there go on."""
        self._seen.update(stop_listeners([self]))

    def stop(self) -> None:
        """End the listener, every session and everything a session started; nothing is left."""
        stop_all([self])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- faults

    def _below(self) -> list[Proc]:
        roots = [self._listener.pid] if self._listener else []
        return [
            *(p for p in self._seen if p.alive()),
            *proc.descendants([*roots, *(p.pid for p in self._seen)]),
        ]

    def session_pids(self) -> list[int]:
        """Processes of sshd itself, one or more for each connection; not the commands they run."""
        return sorted({p.pid for p in self._below() if p.name.startswith("sshd")})

    def command_pids(self) -> list[int]:
        """What sessions run: shells and commands, also those that outlived their connection."""
        return sorted(p.pid for p in proc.marked(self._marker) if not p.name.startswith("sshd"))

    def freeze(self, *, listener: bool = False) -> None:
        """SIGSTOP every session (and the listener): bytes are accepted by the kernel and never answered."""

        def frozen() -> bool:  # again and again, since a process can fork until it has stopped
            running = [p for p in self._targets(listener=listener) if p.state not in "TZX"]
            for process in running:
                process.signal(signal.SIGSTOP)
            return not running

        wait_until(frozen, what="the stop of all sessions")

    def thaw(self) -> None:
        for process in self._targets(listener=True):
            process.signal(signal.SIGCONT)

    def kill_sessions(self) -> None:
        """SIGKILL every session; the listener goes on, and commands outlive it if they can."""
        while sessions := self._targets(listener=False):
            proc.kill(sessions)

    def _targets(self, *, listener: bool) -> list[Proc]:
        own = proc.read(self._listener.pid) if listener and self._listener else None
        return [*([own] if own else []), *(p for p in self._below() if p.name.startswith("sshd"))]


def stop_listeners(hosts: Sequence[Sshd]) -> list[Proc]:
    """End the listeners and return what they leave behind."""
    listeners = [host._listener for host in hosts if host._listener is not None]
    for listener in listeners:
        with contextlib.suppress(ProcessLookupError):
            os.kill(listener.pid, signal.SIGSTOP)  # no session can begin unseen from here on
    for listener in listeners:
        wait_until(
            lambda pid=listener.pid: (now := proc.read(pid)) is None or now.state in "TZX",  # type: ignore[misc]
            what="the listener's stop",
        )
    left = proc.descendants(listener.pid for listener in listeners) if listeners else []
    for listener in listeners:
        listener.kill()
        listener.wait()
    for host in hosts:
        host._listener = None
    return left


def stop_all(hosts: Sequence[Sshd]) -> None:
    """Stop these servers with one look at all processes instead of one for each."""
    if not hosts:
        return
    seen = {*stop_listeners(hosts), *(p for host in hosts for p in host._seen)}
    markers = [host._marker for host in hosts]
    proc.kill({*seen, *proc.descendants(p.pid for p in seen), *proc.marked(*markers)})
    # A process that forked while it was killed has left its child with the marker.
    while left := proc.marked(*markers):
        proc.kill(left)
    for host in hosts:
        host._seen.clear()


class SshdFarm:
    """Makes servers below one directory and stops them all; a context manager."""

    def __init__(self, directory: Path, keys: Iterator[KeyPair], authorized: Sequence[str]) -> None:
        self.directory = directory
        self.keys = keys
        self.authorized = list(authorized)
        self.hosts: list[Sshd] = []

    def __call__(
        self,
        *config: str,
        address: str = "127.0.0.1",
        keys: Sequence[KeyPair] | None = None,
        authorized: Sequence[str] | None = None,
        wrapper: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Sshd:
        """One more server, named h01, h02 …; it listens already unless `start` says no."""
        name = f"h{len(self.hosts) + 1:02}"
        host = Sshd(
            name=name,
            directory=self.directory / name,
            keys=keys or (next(self.keys),),
            authorized=self.authorized if authorized is None else authorized,
            address=address,
            config=config,
            wrapper=wrapper,
            env=env or {},
        )
        self.hosts.append(host)
        return host.start() if start else host

    def several(
        self, count: int, *config: str, address: str = "127.0.0.1", wrapper: str | None = None
    ) -> list[Sshd]:
        return [self(*config, address=address, wrapper=wrapper) for _ in range(count)]

    def stop(self) -> None:
        stop_all(self.hosts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
