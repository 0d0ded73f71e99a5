"""Whether one host is ready for a release: everything a push refuses a host for, and what it would only be slowed by.

Owns the judgement, which is pure, and the step that asks for it; what makes a host unfit is said in `facts`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from deployctl.engine.child import Message
from deployctl.errors import Code, HostError
from deployctl.host.facts import unfit
from deployctl.host.layout import live_id
from deployctl.host.operation import Operation
from deployctl.host.script import Answer, printable
from deployctl.host.session import Session
from deployctl.host.upload import upload
from deployctl.model import Phase

SKEW_S = 30  # beyond it times in histories and logs mislead
SLOW_SHELL_S = 0.5  # a push runs about ten commands on a host
LITTLE_KIB = 256 << 10
FEW_INODES = 10_000
NEEDED = 2  # sessions of one connection: one holds the lock, one works
AT_ONCE = 8  # connections that a run begins at one address at once
FILESYSTEM = re.compile(r"(\S+) (.*?)\s+\d+\s+\d+\s+-?\d+\s+\S+\s+(/.*)")


class Standing(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table; `fix` says what to do where the state is not ok."""

    name: str
    state: Standing
    detail: str
    fix: str | None = None
    code: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured from here: this clock before and after, and the time a command takes."""

    before_s: float
    after_s: float
    shell_s: float


def examine(session: Session, _command: Message, operation: Operation) -> dict[str, Any]:
    """Look at everything; `{"checks": [...]}`. HostError when the host runs no commands at all."""
    operation.begin(Phase.CHECK)
    round_s, sessions = _try_sessions(session, operation.timeout_s)
    if (
        sessions < NEEDED
    ):  # the next command may be refused as well, until the server has seen the end of this one
        return {"checks": [_sessions(None, None, sessions).to_json()]}
    began_at = time.monotonic()
    session.run(operation, "nothing")
    shell_s = max(0.0, time.monotonic() - began_at - 2 * round_s)
    before_s = time.time()
    answer = session.run(operation, "examine")
    measured = Measured(before_s, time.time(), shell_s)
    checks = judge(answer, session.root, measured)
    if not any(check.name in {"tools", "rights"} and check.state is Standing.FAILED for check in checks):
        checks.append(_try_scp(session, operation, answer.one("nearest") or session.root))
    return {"checks": [check.to_json() for check in checks]}


def _try_sessions(session: Session, timeout_s: float) -> tuple[float, int]:
    """Return how long it takes to open a session, and how many of those that a run needs could be open at once."""
    began_at = time.monotonic()
    connection = session.connection(timeout_s)
    with closing(connection.open_session(timeout_s)):
        round_s = time.monotonic() - began_at
        try:
            connection.open_session(timeout_s).close()
        except HostError as error:
            if "channel" not in error.data:
                raise
            return round_s, 1
    return round_s, NEEDED


def _try_scp(session: Session, operation: Operation, place: str) -> Check:
    """Send an empty file there and remove it: scp, unlike our commands, bears nothing else on standard output."""
    target = f"{place}/.deployctl-check-{session.site.run}"
    connection = session.connection(operation.timeout_s)
    try:
        upload(connection, Path(os.devnull), target, stall_s=operation.timeout_s, cancel=operation.cancel)
    except HostError as error:
        if not error.data.keys() & {"scp", "noise"}:
            raise
        fix = "let the login shell print nothing where there is no terminal (.bashrc, .zshenv, a forced command)"
        return Check("scp", Standing.FAILED, error.message, fix, int(error.code))
    finally:
        session.run(operation, "unexamine", {"PLACE": target})
    return Check("scp", Standing.OK, f"sent an empty file to {printable(place)}")


# ---- the judgement: pure ---------------------------------------------------------------------------------------------


def judge(answer: Answer, root: str, measured: Measured) -> list[Check]:
    """Turn what the host answered into the lines of the table, in their order."""
    refused = list(unfit(answer, root))
    return [
        _shell(measured.shell_s),
        _sessions(answer.one("maxstartups"), answer.one("maxsessions"), NEEDED),
        _tools(answer, refused),
        _flock(answer),
        *_rights(answer, root, refused),
        _space(answer),
        _inodes(answer),
        _layout(answer, root, refused),
        _current(answer, root, refused),
        _filesystem(answer, root),
        *_shared(answer, root),
        _clock(answer, measured),
        _lock(answer),
    ]


def _failed(name: str, error: HostError) -> Check:
    return Check(name, Standing.FAILED, error.message, error.hint, int(error.code))


def _of(refused: list[HostError], check: str) -> HostError | None:
    return next((error for error in refused if error.data.get("check") == check), None)


def _shell(shell_s: float) -> Check:
    detail = f"{shell_s:.2f} s for a command"
    if shell_s <= SLOW_SHELL_S:
        return Check("login shell", Standing.OK, detail)
    fix = "look for what its start-up files do without a terminal (.bashrc, .zshenv): a version manager, say"
    return Check("login shell", Standing.WARNING, f"slow: {detail}", fix)


def _sessions(startups: str | None, most: str | None, sessions: int) -> Check:
    if sessions < NEEDED:
        fix = "set MaxSessions 10 in sshd_config there"
        detail = "the server allows one session at a time, a run needs two"
        return Check("sshd limits", Standing.FAILED, detail, fix, int(Code.LOST))
    if not startups:
        return Check("sshd limits", Standing.OK, "two sessions at once are allowed; the rest is not readable")
    detail = f"MaxStartups {printable(startups)}, MaxSessions {printable(most or '?')}"
    first = startups.split(":")[0]
    if first.isdigit() and int(first) < AT_ONCE:
        fix = f"set MaxStartups 10:30:100 in sshd_config there: up to {AT_ONCE} connections begin at once"
        return Check("sshd limits", Standing.WARNING, detail, fix)
    return Check("sshd limits", Standing.OK, detail)


def _tools(answer: Answer, refused: list[HostError]) -> Check:
    if error := _of(refused, "tools"):
        return _failed("tools", error)
    names = {name: text for name, _, text in (line.partition(" ") for line in answer.all("tool_version"))}
    if "zstd" not in answer.all("tool"):
        said = "without zstd: packed with gzip, which is larger and slower"
        return Check("tools", Standing.WARNING, said, "install zstd there")
    return Check("tools", Standing.OK, "; ".join(printable(text) for text in names.values()) or "all there")


def _flock(answer: Answer) -> Check:
    if "flock" in answer.all("tool"):
        return Check("flock", Standing.OK, "a lock dies with its run")
    said = "missing: after a run that was killed the next one waits about 20 s for its lock"
    return Check("flock", Standing.WARNING, said, "install util-linux there")


def _rights(answer: Answer, root: str, refused: list[HostError]) -> Iterator[Check]:
    if error := _of(refused, "rights"):
        yield _failed("rights", error)
    elif line := answer.one("right_missing"):
        step, place, said = (line + "  ").split(" ", 2)
        user = answer.one("user") or "the login user"
        detail = f"{user} cannot {step} in {place}: {said.strip()}"
        yield Check(
            "rights", Standing.FAILED, printable(detail), f"give it to {user} there: chown {user} {place}", 32
        )
    else:
        tried = answer.one("tried") or root
        yield Check("rights", Standing.OK, f"wrote, renamed and removed in {printable(tried)}")
    if foreign := answer.all("not_ours"):
        detail = (
            f"{len(foreign)} releases belong to another user and can't be pruned: {', '.join(foreign[:3])}"
        )
        yield Check(
            "rights to prune", Standing.WARNING, printable(detail), f"chown -R there, in {root}/releases"
        )


def _space(answer: Answer) -> Check:
    place, kib = answer.one("nearest") or "the deploy root", answer.one("kib") or ""
    if not kib.isdigit():
        return Check("space", Standing.OK, f"{place} does not tell")
    detail = f"{int(kib) * 1024 / 1e6:.1f} MB free on {place}"
    if int(kib) == 0:
        return Check("space", Standing.FAILED, detail, "free some: deployctl prune", int(Code.NO_SPACE))
    state = Standing.OK if int(kib) >= LITTLE_KIB else Standing.WARNING
    return Check("space", state, detail, None if state is Standing.OK else "free some: deployctl prune")


def _inodes(answer: Answer) -> Check:
    free = answer.one("inodes") or ""
    if not free.isdigit() or int(free) == 0:  # file systems that make them as they go say 0
        return Check("inodes", Standing.OK, "not counted on this file system")
    state = Standing.OK if int(free) >= FEW_INODES else Standing.WARNING
    fix = None if state is Standing.OK else "find the directory with very many small files"
    return Check("inodes", state, f"{free} free", fix)


def _layout(answer: Answer, root: str, refused: list[HostError]) -> Check:
    if error := _of(refused, "layout"):
        return _failed("layout", error)
    if answer.one("version"):
        return Check("layout", Standing.OK, f"version {answer.one('version')}")
    return Check("layout", Standing.OK, f"the first release makes {root}")


def _current(answer: Answer, root: str, refused: list[HostError]) -> Check:
    if error := _of(refused, "current"):
        return _failed("current", error)
    link = answer.one("current")
    if link is None:
        return Check("current", Standing.OK, "nothing is live yet")
    if answer.one("dangling"):
        said = f"leads to {printable(link)}, which is not there"
        return Check("current", Standing.WARNING, said, f"push, or roll back, or remove {root}/current")
    if live_id(link) is None:
        return Check("current", Standing.OK, f"leads to {printable(link)}, no release of ours; it is kept")
    return Check("current", Standing.OK, f"leads to {link}")


def _filesystem(answer: Answer, root: str) -> Check:
    found = [match.groups() for line in answer.all("filesystem") if (match := FILESYSTEM.fullmatch(line))]
    places = {name: (device, mounted) for name, device, mounted in found}
    here = places.get(".")
    other = [name for name in ("releases", ".deployctl") if here and places.get(name, here) != here]
    if other:
        detail = f"{' and '.join(other)} in {root} lie on another file system: no rename leads there"
        fix = f"mount at {root} instead, so that releases, .deployctl and current are on one"
        return Check("file system", Standing.FAILED, detail, fix, int(Code.NOT_PERMITTED))
    if here and places.get("shared", here) != here:
        return Check("file system", Standing.OK, "one for all but shared, which is only linked to")
    return Check("file system", Standing.OK, "one for all")


def _shared(answer: Answer, root: str) -> Iterator[Check]:
    for name in answer.all("shared_missing"):
        fix = f"put it at {root}/shared/{name}"
        yield Check(
            "shared", Standing.FAILED, f"the shared file {name} is missing", fix, int(Code.NOT_PERMITTED)
        )
    for name in answer.all("shared_odd"):
        detail = f"{root}/shared/{name} is no directory"
        yield Check("shared", Standing.FAILED, detail, "move it away", int(Code.NOT_PERMITTED))
    if not answer.all("shared_missing") and not answer.all("shared_odd"):
        yield Check("shared", Standing.OK, "all there")


def _clock(answer: Answer, measured: Measured) -> Check:
    text = answer.one("clock") or ""
    if not text.isdigit():
        return Check("clock", Standing.OK, "not readable")
    there_s = int(text)  # cut off, so up to a second early
    off_s = max(0.0, measured.before_s - there_s - 1, there_s - measured.after_s)
    if off_s <= SKEW_S:
        return Check("clock", Standing.OK, f"right within {off_s + 1:.0f} s")
    way = "behind" if there_s < measured.before_s else "ahead"
    return Check(
        "clock", Standing.WARNING, f"{off_s:.0f} s {way} of this machine", "set it, with chrony or ntpd"
    )


def _lock(answer: Answer) -> Check:
    if not (line := answer.one("held")):
        return Check("lock", Standing.OK, "free")
    return Check("lock", Standing.WARNING, line, "wait for that run with --wait-lock, or: deployctl unlock")
