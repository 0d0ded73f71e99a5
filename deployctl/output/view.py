"""The run as its events tell it: what every way of showing it asks.

Owns the state built from events; refuses to know how it is shown. Events are the JSON objects of the contract; keys and
events unknown here, and values of an unexpected type, are passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deployctl.output.stream import log_lines

_RATE_WINDOW_S = 5.0
_AFTERWARDS = frozenset({"confirm", "clean"})  # where a host stands has been decided before
_LEADS_ON = frozenset({"connect", "upload"})  # after these the host's work goes on at once
_TAIL = 10  # lines of output kept for each host

#: Commands that print their own result; `ok` on a host is nothing to tell.
READING = frozenset({"status", "releases", "verify", "check", "history", "inventory"})


@dataclass(slots=True)
class HostView:
    """One host: `since_s` is when it entered its phase, `begun_s` when work on it began, in seconds of the clock."""

    name: str
    phase: str = ""
    state: str = "waiting"
    since_s: float = 0.0
    begun_s: float = 0.0
    done_bytes: int = 0
    total_bytes: int = 0
    message: str = ""


class RunView:
    """What is known of the run after the events given to `apply`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.begun_s = clock()
        self.started: Mapping[str, Any] = {}
        self.finished: Mapping[str, Any] | None = None
        self.release = ""
        self.hosts: dict[str, HostView] = {}
        self.running: dict[str, HostView] = {}  # in the order work on them began
        self.failures: list[Mapping[str, Any]] = []
        self.plans: dict[str, Mapping[str, Any]] = {}
        self.answers: dict[str, Mapping[str, Any]] = {}  # of hosts to a command that reads
        self.probed: set[str] = set()
        self.staged: set[str] = set()
        self.live: set[str] = set()
        self.unchanged: set[str] = set()
        self.reverting: set[str] = set()  # that are or were being switched back
        self.reverted: set[str] = set()
        self.done: set[str] = set()
        self.tails: dict[str, deque[str]] = {}
        self._here: tuple[str, deque[str]] = (
            "",
            deque(),
        )  # hooks that run here: the moment, and its last output
        self.bytes_done = 0
        self.bytes_total = 0
        self._staging = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def command(self) -> str:
        return text(self.started, "command")

    @property
    def app(self) -> str:
        return text(self.started, "app")

    def apply(self, event: Mapping[str, Any]) -> None:
        if isinstance(release := event.get("release"), str):
            self.release = release
        match event.get("event"):
            case "run_started":
                self.started = event
                self.begun_s = self._clock()
                for name in event.get("hosts") or ():
                    self.hosts.setdefault(str(name), HostView(str(name)))
            case "host":
                self._host(event)
            case "progress":
                self._progress(event)
            case "log":
                self._tail(text(event, "host"), text(event, "phase")).extend(log_lines(text(event, "text")))
            case "run_finished":
                self.finished = event
            case _:
                pass

    def _tail(self, host: str, phase: str) -> deque[str]:
        if host:
            return self.tails.setdefault(host, deque(maxlen=_TAIL))
        if self._here[0] != phase:
            self._here = (phase, deque(maxlen=_TAIL))
        return self._here[1]

    def said_here(self, message: str) -> list[str]:
        """The last output of the hooks here that `message` says have failed; none when it says something else."""
        moment, tail = self._here
        return list(tail) if moment and message.startswith(f"{moment} hook ") else []

    def _host(self, event: Mapping[str, Any]) -> None:
        name, phase, state = text(event, "host"), text(event, "phase"), text(event, "state")
        host = self.hosts.setdefault(name, HostView(name))
        now = self._clock()
        if phase in _AFTERWARDS and state in {"running", "ok"}:
            return
        if state == "running":
            if name not in self.running:
                self.running[name] = host
                host.begun_s = now
            if (host.phase, host.state) != (phase, state):
                host.since_s = now
                host.done_bytes = 0
                host.total_bytes = number(event.get("data"), "bytes")
                self.tails.pop(name, None)  # the output of an earlier phase explains nothing
        elif state != "ok" or phase not in _LEADS_ON:
            self.running.pop(name, None)
        host.phase, host.state, host.message = phase, state, text(event, "message")
        if state == "failed":
            self.failures.append(event)
        self._count(name, phase, state, event.get("data"))

    def _count(self, name: str, phase: str, state: str, data: object) -> None:
        if phase == "probe" and state == "ok":
            self.probed.add(name)
            if isinstance(data, Mapping) and "action" in data:
                self.plans[name] = data
                if data["action"] == "unchanged":
                    self.unchanged.add(name)
                    self.staged.add(name)
                    self.live.add(name)
        elif (phase == "stage" and state == "ok") or phase in {"activate", "check"}:
            self.staged.add(name)
            if phase == "activate" and state == "ok":
                self.live.add(name)
        if phase == "revert":
            self.reverting.add(name)
        if state == "reverted" or (phase == "revert" and state == "ok"):
            self.reverted.add(name)
            self.live.discard(name)
        if phase == self.command and state == "ok" and isinstance(data, Mapping):
            self.answers[name] = data
        if phase == self.command and state in {"ok", "failed", "cancelled", "skipped"}:
            self.done.add(name)

    def _progress(self, event: Mapping[str, Any]) -> None:
        self.bytes_done = number(event, "bytes_done") or self.bytes_done
        self.bytes_total = number(event, "bytes_total") or self.bytes_total
        per_host = event.get("hosts")
        for name, pair in per_host.items() if isinstance(per_host, Mapping) else ():
            host = self.hosts.get(name)
            if host is not None and isinstance(pair, (list, tuple)) and len(pair) == 2:
                host.done_bytes, host.total_bytes = int(pair[0]), int(pair[1])
        now = self._clock()
        self._samples.append((now, self.bytes_done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_WINDOW_S:
            self._samples.popleft()

    def rate(self) -> float:
        """Bytes a second of the last few seconds; 0.0 while unknown or nothing moved."""
        if len(self._samples) < 2 or self._clock() - self._samples[-1][0] > _RATE_WINDOW_S:
            return 0.0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return max(0.0, (last - first) / (last_s - first_s)) if last_s > first_s else 0.0

    def staging(self) -> float:
        """How far staging is, 0.0 to 1.0: mostly its bytes; never less than it was, though the total grows."""
        hosts = len(self.staged) / max(1, len(self.hosts))
        if self.bytes_total and hosts < 1:
            hosts = 0.9 * min(1.0, self.bytes_done / self.bytes_total) + 0.1 * hosts
        self._staging = max(self._staging, hosts)
        return self._staging

    def left_s(self) -> float | None:
        """Seconds until all bytes are sent, at the rate of now; None while unknown."""
        rate = self.rate()
        return (self.bytes_total - self.bytes_done) / rate if rate > 0 and self.bytes_total else None


def text(mapping: object, key: str) -> str:
    """The value under `key` as text; empty when there is none."""
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return "" if value is None else str(value)


def number(mapping: object, key: str) -> int:
    """The value under `key` as a whole number; 0 when there is none."""
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 1e18 else 0  # noqa: PLR0124 - NaN
