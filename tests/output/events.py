"""Events as a run emits them, for the tests of how they are shown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

RELEASE = "20261123T204315Z-1a2b3c4d"
BEFORE = "20261120T101500Z-99887766"
Event = dict[str, Any]


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fold(names: Iterable[str]) -> str:
    """A stand-in for the inventory's: `web01,web02` to `web[01-02]`, one digit run at the end."""
    parts = []
    matches = [re.fullmatch(r"(.*?)(\d*)", name) for name in names]
    pairs = [(match[1], match[2]) for match in matches if match]
    for prefix, members in itertools.groupby(sorted(pairs), key=lambda pair: pair[0]):
        digits = [digit for _, digit in members]
        whole = len(digits) > 1 and int(digits[-1]) - int(digits[0]) == len(digits) - 1
        inner = f"{digits[0]}-{digits[-1]}" if whole else ",".join(digits)
        parts.append(f"{prefix}[{inner}]" if len(digits) > 1 else f"{prefix}{digits[0]}")
    return ",".join(parts)


def started(hosts: Iterable[str] = ("web01", "web02", "web03"), command: str = "push", **more: Any) -> Event:
    return {
        "schema": 1, "event": "run_started", "run": "r1", "command": command, "app": "shop", "hosts": list(hosts),
        "forks": 5, "source": "./build", "ts": "2026-11-23T20:43:15.123Z", **more,
    }  # fmt: skip


def host(
    name: str, phase: str, state: str = "ok", code: int = 0, message: str = "success", **more: Any
) -> Event:
    return {
        "schema": 1, "event": "host", "run": "r1", "release": RELEASE, "host": name, "phase": phase, "state": state,
        "code": code, "message": message, "data": {}, "elapsed_s": 1.204, "ts": "2026-11-23T20:43:16.000Z", **more,
    }  # fmt: skip


def failed(name: str, phase: str, code: int, message: str, hint: str = "", **data: Any) -> Event:
    return host(name, phase, "failed", code, message, data={"hint": hint, **data} if hint else data)


def end(
    name: str, state: str = "ok", live: str | None = RELEASE, code: int = 0, message: str = "success"
) -> Event:
    return {name: {"state": state, "code": code, "message": message, "live": live}}


def finished(outcome: str, hosts: Mapping[str, Any], exit_code: int = 0, **more: Any) -> Event:
    return {
        "schema": 1, "event": "run_finished", "run": "r1", "outcome": outcome, "exit_code": exit_code,
        "release": RELEASE, "hosts": dict(hosts), "bytes_sent": 37_200_000, "elapsed_s": 8.21, "skew_s": 0.04,
        "ts": "2026-11-23T20:43:23.400Z", **more,
    }  # fmt: skip


def progress(done: int, total: int, **more: Any) -> Event:
    return {
        "schema": 1, "event": "progress", "bytes_done": done, "bytes_total": total, "hosts_done": 0, "hosts_total": 3,
        **more,
    }  # fmt: skip


def log(name: str, text: str, stream: str = "stdout", phase: str = "activate") -> Event:
    return {"schema": 1, "event": "log", "host": name, "phase": phase, "stream": stream, "text": text}


NO_SPACE = "no space left on /srv (needs 120 MB, has 4 MB)"
NO_SPACE_HINT = "free space on the host, or run `deployctl prune`"


def good_push(hosts: Iterable[str] = ("web01", "web02", "web03")) -> list[Event]:
    names = list(hosts)
    events = [started(names)]
    for name in names:
        events += [host(name, "connect", "running"), host(name, "connect")]
        events += [host(name, "probe", "running"), host(name, "probe", data={"previous": BEFORE})]
        events += [host(name, "upload", "running"), host(name, "upload", data={"bytes": 12_400_000})]
        events += [host(name, "stage", "running"), host(name, "stage")]
    events.append(progress(12_400_000 * len(names), 12_400_000 * len(names)))
    for name in names:
        events += [host(name, "activate", "running"), host(name, "activate")]
        events += [host(name, "check", "running"), host(name, "check"), host(name, "clean")]
    merged: Event = {}
    for name in names:
        merged |= end(name)
    return [*events, finished("released", merged)]


def aborted_push() -> list[Event]:
    return [
        started(("web01", "web02", "web03", "web04")),
        *(host(name, "probe") for name in ("web01", "web02", "web03")),
        host("web01", "upload", data={"bytes": 12_400_000}),
        host("web02", "upload", "running"),
        host("web03", "upload", "running"),
        failed("web03", "upload", 31, NO_SPACE, NO_SPACE_HINT),
        host("web02", "upload", "cancelled", message="stopped: web03 failed"),
        host("web04", "connect", "skipped", message="never contacted"),
        finished(
            "aborted",
            end("web01", "cancelled", BEFORE)
            | end("web02", "cancelled", BEFORE)
            | end("web03", "failed", BEFORE, 31, NO_SPACE)
            | end("web04", "skipped", None),
            exit_code=20,
        ),
    ]
