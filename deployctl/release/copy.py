"""Copy: one file in place on every host, or on none; no release.

connect ─▶ lock ─▶ beside DEST everywhere, checked ─▶ renamed everywhere ─▶ the old files go
any failure: no host changed       │ any failure: the old files come back
"""

from __future__ import annotations

import hashlib
import os
import select
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployctl.artifact.local import new_file
from deployctl.errors import Code, SourceError, UsageError
from deployctl.host.script import printable
from deployctl.inventory import Inventory, fold
from deployctl.model import Outcome, Phase, State
from deployctl.release.events import Observer
from deployctl.release.loop import TURN_S, LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.result import Result
from deployctl.release.rollout import warn_unsynced
from deployctl.release.run import Run, open_run
from deployctl.release.workdir import run_directory

STANDARD_INPUT = "-"
BLOCK_BYTES = 1 << 20
NEW_MODE = 0o644  # of a file that comes from standard input


@dataclass(frozen=True, slots=True)
class Content:
    """The file as it is to be on every host; `name` is what a destination that is a directory gets, empty for none."""

    path: Path
    name: str
    mode: int
    size_bytes: int
    sha256: str


def copy(
    inventory: Inventory,
    file: str | Path,
    destination: str,
    options: Options | None = None,
    observer: Observer | None = None,
) -> Result:
    """Put `file`, or standard input for `-`, at `destination` on the inventory's hosts; all of them or none.

    A destination that ends in `/` or is a directory there gets the file's name; a relative one begins in the login
    user's home. UsageError, SourceError.
    """
    options = options or Options()
    destination = checked_destination(destination, nameless=str(file) == STANDARD_INPUT)
    with open_run("copy", inventory, options, observer, source=str(file), destination=destination) as run:
        run.again = run.command_line("copy", str(file), destination)
        spooled = str(file) == STANDARD_INPUT
        try:
            with run_directory(options.environ) if spooled else nullcontext() as workdir:
                content = _spool(run, workdir) if workdir else _look_at(run, Path(file))
                if content is None:
                    return run.stopped_before_live()
                return _Copy(run, content, destination).perform()
        except LeaveAtOnce:
            return run.left_at_once()


def checked_destination(destination: str, *, nameless: bool = False) -> str:
    """Return it with one slash at its end at most; UsageError when it can't be one."""
    destination = destination.removeprefix("~/")
    if not destination or destination.startswith("~"):
        raise UsageError(
            f"DEST {destination!r} is no path",
            hint="write an absolute one, or one from the login user's home",
        )
    if not destination.isprintable():
        raise UsageError(f"DEST {destination!r} holds control characters")
    if not destination.endswith("/"):
        return destination
    if nameless:
        raise UsageError(f"DEST {destination} is a directory, and standard input has no name to go by")
    return destination.rstrip("/") + "/"


# ---- what is to be copied -----------------------------------------------------------------------------------------


def _look_at(run: Run, file: Path) -> Content | None:
    """Read the file once for its digest; None when the run is stopped meanwhile. SourceError."""
    try:
        status = file.stat()
        _refuse(file, status)
        digest, size_bytes = hashlib.sha256(), 0
        with file.open("rb") as source:
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
                size_bytes += len(block)
                run.loop.turn(0)
                if run.loop.signals.count:
                    return None
    except OSError as error:
        raise SourceError(f"{printable(str(file))}: {error.strerror}") from error
    return Content(file.absolute(), file.name, stat.S_IMODE(status.st_mode), size_bytes, digest.hexdigest())


def _refuse(file: Path, status: os.stat_result) -> None:
    name = printable(str(file))
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{name} is a directory: copy takes one file", hint="push releases a directory")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is no regular file")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise SourceError(f"{name} is setuid or setgid: such a file is not copied", hint=f"chmod ug-s {name}")
    if not file.name.isprintable():
        raise SourceError(f"{name} has control characters in its name")


def _spool(run: Run, workdir: Path) -> Content | None:
    """Keep what comes on standard input until every host has it; None when the run is stopped meanwhile."""
    with new_file(workdir) as kept:
        while True:
            while not select.select([0], [], [], 0)[0]:
                run.loop.turn(TURN_S, also=[0])
                if run.loop.signals.count:
                    return None
            block = os.read(0, BLOCK_BYTES)
            if not block:
                break
            kept.write(block)
            run.loop.turn(0)
            if run.loop.signals.count:
                return None
        return Content(kept.keep_as("input"), "", NEW_MODE, kept.size_bytes, kept.sha256)


# ---- the hosts ----------------------------------------------------------------------------------------------------


class _Copy:
    """The steps of one copy, in the order of `perform`."""

    def __init__(self, run: Run, content: Content, destination: str) -> None:
        self._run = run
        self._content = content
        self._values = {
            "DEST": destination,
            "NAME": content.name,
            "MODE": f"{content.mode:04o}",
            "SIZE": str(content.size_bytes),
            "SHA": content.sha256,
        }
        self._numbers = {name: str(number) for number, name in enumerate(run.fleet.members)}
        self._places: dict[str, str] = {}  # where the file goes, by host

    def perform(self) -> Result:
        run = self._run
        members = run.connect(locks=True)
        if run.fleet.stopping() or not run.lock(members):
            return run.stopped_before_live()
        working = self._send(members)
        if run.fleet.stopping():
            return run.stopped_before_live()
        if not run.perform(_Switch(run, working, self._to)):
            return run.reverted()
        run.take_back()
        return run.finish(Outcome.OK if working else Outcome.UNCHANGED)

    def _send(self, members: Sequence[Member]) -> list[Member]:
        """Put it beside its destination everywhere; return the hosts that do not have it there already."""
        run, size_bytes = self._run, self._content.size_bytes

        def command(member: Member) -> dict[str, Any]:
            member.upload_bytes = (0, size_bytes)
            values = {**self._values, "NUMBER": self._numbers[member.name]}
            return {"values": values, "path": str(self._content.path)}

        run.fleet.each("copy_send", members, command)
        run.fleet.progress(last=True)
        self._refuse_two_places(members)
        working = []
        for member in members:
            self._places[member.name] = member.answer.get("to", "")
            member.sent_bytes = member.answer.get("bytes", member.upload_bytes[0])
            if not member.answer.get("unchanged"):
                working.append(member)
                continue
            member.state, member.message, member.finished = State.OK, "unchanged", True
            data = {"to": self._places[member.name]}
            run.events.host(member.name, Phase.COPY, State.OK, message="unchanged", data=data)
        return working

    def _refuse_two_places(self, members: Sequence[Member]) -> None:
        """A DEST that is a directory on some hosts only would give the file two places: none of them is meant."""
        into = [m for m in members if m.answer.get("into")]
        if self._run.fleet.stopping() or len(into) in {0, len(members)}:
            return
        others = fold(m.name for m in members if m not in into)
        name = self._values["DEST"]
        said = f"{name} is a directory on {fold(m.name for m in into)}, not on {others}"
        for member in into:
            hint = f"{name}/ means the directory everywhere; else write the whole path of the file"
            self._run.fleet.fail(member, Code.NOT_PERMITTED, said, data={"hint": hint})

    def _to(self, member: Member) -> dict[str, Any]:
        own = {"TO": self._places[member.name], "NUMBER": self._numbers[member.name]}
        return {"values": {**self._values, **own}}


class _Switch:
    """The renames, and the way back from them; `to` is what a host is told."""

    def __init__(self, run: Run, members: Sequence[Member], to: Callable[[Member], dict[str, Any]]) -> None:
        self._run = run
        self._members = members
        self._to = to
        self._kept: list[Member] = []  # have the new file still, as far as one knows

    def perform(self) -> bool:
        run = self._run
        run.fleet.each("copy_switch", self._members, self._touch, together=True)
        for member in self._members:
            member.may_have_switched &= member.reached
        if run.fleet.stopping():
            self.put_back()
            return False
        for member in self._members:
            member.message, member.finished = "copied", True
        return True

    def _touch(self, member: Member) -> dict[str, Any]:
        member.may_have_switched = True
        return self._to(member)

    def _touched(self) -> list[Member]:
        return [member for member in self._members if member.may_have_switched]

    def put_back(self) -> None:
        """Put the old files back wherever a rename may have happened; what could not be is left for people."""
        run = self._run
        touched = self._touched()
        run.fleet.each("copy_back", touched, self._to, together=True, stoppable=False)
        self._kept = [member for member in touched if not member.answer.get("back")]
        for member in touched:
            warn_unsynced(run, member)
            if member in self._kept:
                member.staged = False  # its old file stays beside the new one
            elif not member.failed:
                member.state, member.message = State.REVERTED, "put back"
                run.events.host(member.name, Phase.REVERT, State.REVERTED, message=member.message)

    def came_to(self) -> tuple[Outcome, str]:
        if self._kept:
            return Outcome.MIXED, ""
        return (Outcome.REVERTED if self._touched() else Outcome.ABORTED), ""
