"""deployctl as whoever calls it sees it: a process, its JSON lines as they come, its end."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support import proc, warm
from tests.support.proc import Proc, wait_until
from tests.support.warm import Started

Event = dict[str, Any]
Match = Callable[[Event], bool]

PROGRAM = warm.PROGRAM
LIMIT_S = 60.0
KEYS = {"schema", "event", "run", "release", "ts"}
ENDS = {"ok", "failed", "cancelled", "skipped", "reverted"}
WITHOUT_CODE = {"ok", "cancelled", "skipped", "reverted"}


@dataclass(frozen=True)
class Pushed:
    """A run that has ended, checked against what every run promises."""

    code: int
    events: Sequence[Event]
    stderr: str
    seconds: float

    def __post_init__(self) -> None:
        check_stream(self.events, self.code)
        assert "Traceback" not in self.stderr

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def outcome(self) -> str:
        return str(self.last["outcome"])

    @property
    def release(self) -> str:
        return str(self.last["release"])

    @property
    def bytes_sent(self) -> int:
        return int(self.last["bytes_sent"])

    @property
    def hosts(self) -> dict[str, Event]:
        found: dict[str, Event] = self.last["hosts"]
        return found

    @property
    def states(self) -> dict[str, str]:
        return {name: host["state"] for name, host in self.hosts.items()}

    @property
    def serving(self) -> dict[str, str | None]:
        """What the run says that each host serves."""
        return {name: host["live"] for name, host in self.hosts.items()}

    def of(self, host: str) -> list[Event]:
        return [event for event in self.events if event["event"] == "host" and event["host"] == host]

    def phases(self, host: str) -> list[str]:
        """`phase:state` of each line about the host."""
        return [f"{event['phase']}:{event['state']}" for event in self.of(host)]

    def failure(self, host: str) -> tuple[str, int, str]:
        """Phase, code and message of the line that tells why the host failed."""
        [line] = [event for event in self.of(host) if event["state"] == "failed"]
        return line["phase"], line["code"], line["message"]

    def sent(self, host: str) -> int | None:
        """Bytes that this host was sent; None when its upload never ended well."""
        return next(
            (e["data"]["bytes"] for e in self.of(host) if e["phase"] == "upload" and e["state"] == "ok"), None
        )


def check_stream(events: Sequence[Event], code: int) -> None:
    """Hold one run's lines against the contract: keys, one run, one last word, one end for each host."""
    assert events, "not one line was printed"
    for event in events:
        assert event.keys() >= KEYS, event
        assert event["schema"] == 1
    assert len({event["run"] for event in events}) == 1
    assert [event["event"] for event in events].count("run_finished") == 1
    last = events[-1]
    assert last["event"] == "run_finished"
    assert last["exit_code"] == code, (last, code)
    assert {"outcome", "release", "bytes_sent", "elapsed_s", "skew_s"} <= set(last)
    if events[0]["event"] != "run_started":
        return
    assert set(last["hosts"]) == set(events[0]["hosts"])
    for name, host in last["hosts"].items():
        assert host["state"] in ENDS, host
        assert (host["code"] == 0) is (host["state"] in WITHOUT_CODE), host
        said = [e["state"] for e in events if e["event"] == "host" and e["host"] == name]
        ends = [state for state in said if state in ENDS - {"ok"}]
        # A host that failed can fail once more while it is switched back.
        most = 2 if host["state"] == "failed" else host["state"] != "ok"
        assert set(ends) == {host["state"]} - {"ok"}, (name, said, host)
        assert len(ends) <= most, (name, said, host)


@dataclass
class Running:
    """A run under way; `events` grows as lines arrive. What it leaves behind is killed by `close`."""

    process: Started
    errors: IO[bytes]
    began_at: float = field(default_factory=time.monotonic)
    events: list[Event] = field(default_factory=list)
    _rest: bytes = b""

    @classmethod
    def start(cls, arguments: Sequence[str | Path], env: Mapping[str, str] | None, errors: Path) -> Running:
        """Run it in a session of its own, so that every process that comes of it can be found."""
        stderr = errors.open("w+b")
        return cls(warm.start([*arguments, "-o", "json"], env, stderr), stderr)

    def wait_for(self, match: Match, *, timeout_s: float = LIMIT_S) -> Event:
        """The first line, past or to come, that matches."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        while True:
            for event in self.events[seen:]:
                if match(event):
                    return event
            seen = len(self.events)
            assert self._read(deadline), (
                f"ended or silent before the line came: {self.events[-3:]} {self.stderr()}"
            )

    def wait_for_host(self, host: str, phase: str, state: str = "running") -> Event:
        return self.wait_for(
            lambda e: e["event"] == "host" and (e["host"], e["phase"], e["state"]) == (host, phase, state)
        )

    def _read(self, deadline: float) -> bool:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.events += [json.loads(line) for line in lines]
        return bool(data)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def family(self) -> list[Proc]:
        """Every living process of the run's session: itself, its workers, whatever they started."""
        return [p for p in proc.everything() if p.state not in "ZX" and session_of(p.pid) == self.process.pid]

    def workers_of(self, port: int) -> list[Proc]:
        inodes = connected_to(port)
        return [p for p in self.family() if p.pid != self.process.pid and sockets_of(p.pid) & inodes]

    def worker_of(self, port: int) -> Proc:
        """The worker that holds a connection to this port."""
        [found] = self.workers_of(port)
        return found

    def named(self, role: str) -> list[Proc]:
        """Processes that `ps` shows as `deployctl: ROLE N`."""
        start = f"deployctl: {role} ".encode()
        return [p for p in self.family() if command_line(p.pid).startswith(start)]

    def finish(self, *, timeout_s: float = LIMIT_S) -> Pushed:
        """Read on to the end; nothing of the run is left after it."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        code = self.process.wait(max(0.1, deadline - time.monotonic()))
        seconds = time.monotonic() - self.began_at
        assert self._rest == b""
        wait_until(lambda: not self.family(), 3, f"the end of {self.family()}")
        return Pushed(code, self.events, self.stderr(), seconds)

    def stderr(self) -> str:
        self.errors.flush()
        return Path(self.errors.name).read_text(errors="replace")

    def close(self) -> None:
        proc.kill(self.family())
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self.errors.close()


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def connected_to(port: int) -> set[str]:
    """Inodes of this machine's TCP sockets whose other end is `port`."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port}


def sockets_of(pid: int) -> set[str]:
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            text = str(entry.readlink())
            if text.startswith("socket:["):
                found.add(text[8:-1])
    except OSError:
        pass
    return found
