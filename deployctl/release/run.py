"""One run from its first event to its last: who takes part, what it says, how it ends.

Owns the common frame of every command that changes hosts; what is done inside is `push`'s or `activate`'s.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployctl.engine.crew import Crew
from deployctl.errors import DeployctlError, Exit
from deployctl.host.agent import agent
from deployctl.host.credentials import prepare_credentials
from deployctl.host.facts import Facts
from deployctl.host.knownhosts import KnownHosts, append_learned
from deployctl.host.layout import live_release
from deployctl.host.session import Site
from deployctl.host.target import resolve_targets
from deployctl.inventory import Inventory, select
from deployctl.model import Outcome, Phase, State
from deployctl.release.events import Events, Observer, Silent
from deployctl.release.fleet import Fleet
from deployctl.release.loop import LeaveAtOnce, Loop
from deployctl.release.member import Member
from deployctl.release.records import Author, record
from deployctl.release.result import HostResult, Result, exit_code
from deployctl.release.signals import stop_signals

FORKS = 32
TIMEOUT_S = 15 * 60.0
CLEAN_S = 5.0  # longest that removing what is unproven may hold up the end of an abort


@dataclass(frozen=True, slots=True)
class Options:
    """What every command that talks to hosts takes; `ask` asks a secret on the terminal, None where there is none."""

    limit: str | None = None
    forks: int | None = None
    timeout_s: float = TIMEOUT_S
    ask_pass: bool = False
    ask: Callable[[str], str] | None = None
    message: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Run:
    """One invocation: its events, its hosts, its loop. Made by `open_run`."""

    def __init__(
        self,
        command: str,
        argument: str,
        inventory: Inventory,
        options: Options,
        loop: Loop,
        fleet: Fleet,
    ) -> None:
        self.command = command
        self.inventory = inventory
        self.options = options
        self.events = loop.events
        self.loop = loop
        self.fleet = fleet
        self.author = Author.here(dict(options.environ))
        self.again = self.command_line(command, argument)  # what mends hosts that differ
        self.skew_s: float | None = None
        self.activating = False  # from the first switch on nothing is tolerated

    # ---- connecting

    def connect(self) -> list[Member]:
        """Connect to and probe every host; return those that take part from here on."""
        self.fleet.hire()
        self.fleet.each("connect", self.fleet)
        learned: dict[str, list[str]] = {}
        for member in self.fleet:
            if "facts" in member.answer:
                member.facts = Facts.from_json(member.answer["facts"])
                member.serves(member.facts.current)
            for file, text in member.answer.get("learned", ()):
                learned.setdefault(file, []).append(text)
        for file, lines in learned.items():
            append_learned(Path(file), list(dict.fromkeys(lines)))
        return self.sound()

    def sound(self) -> list[Member]:
        """Return the members that were reached and have not failed."""
        return [member for member in self.fleet if member.state is not None and not member.failed]

    # ---- switching

    def switch(self, members: Sequence[Member], release: str, trees: Mapping[str, str]) -> bool:
        """Make `release` live on all members, or put every one back on what it served; return whether it is live."""
        self.activating = True
        self.fleet.tolerated = sum(member.failed for member in self.fleet)

        def values(member: Member) -> dict[str, Any]:
            member.may_have_switched = True
            text = record(
                "switch",
                self.events.run,
                release,
                self.author,
                previous=member.live,
                message=self.options.message,
            )
            return {"values": {"ID": release, "TREE": trees[member.name], "RECORD": text}}

        self.fleet.each("activate", members, values, together=True)
        at = [member.answer["at"] for member in members if "live" in member.answer]
        self.skew_s = round(max(at) - min(at), 3) if at else None
        if self.fleet.stopping():
            self.revert([member for member in members if member.may_have_switched], release)
            return False
        for member in members:
            member.serves(member.answer["live"])
        return True

    def revert(self, members: Sequence[Member], release: str) -> None:
        """Put members back on the link that their probe found; what each serves then is read from the host."""

        def values(member: Member) -> dict[str, Any]:
            text = record("revert", self.events.run, release, self.author, previous=member.live)
            return {"values": {"ID": release, "PREVIOUS": member.live or "", "RECORD": text}}

        before = {member.name: member.live for member in members}
        self.fleet.each("revert", members, values, together=True, stoppable=False)
        for member in members:
            if "live" not in member.answer:
                member.live, member.live_known = None, False
                continue
            member.serves(member.answer["live"])
            if member.live == before[member.name] and not member.failed:
                member.state = State.REVERTED
                self.events.host(
                    member.name,
                    Phase.REVERT,
                    State.REVERTED,
                    message="switched back",
                    data={"live": live_release(member.live)},
                )

    def confirm(self, members: Sequence[Member], release: str) -> None:
        """Record on every host that the whole run has succeeded; a host that can't is live all the same."""
        text = record("confirm", self.events.run, release, self.author, message=self.options.message)
        self.fleet.each(
            "confirm",
            members,
            lambda _m: {"values": {"RECORD": text}},
            together=True,
            stoppable=False,
            minor=True,
        )
        for member in members:
            if member.trouble:
                self.events.note(
                    "warning",
                    f"{member.name}: the release is live but could not be confirmed: {member.trouble}; "
                    "the next push confirms it",
                )
            member.finished = True

    # ---- ending

    def take_back(self) -> None:
        """After an abort: remove what is unproven from hosts, then say how each host ended."""
        touched = [member for member in self.fleet if member.staged]
        self.fleet.each("clean", touched, together=True, stoppable=False, timeout_s=CLEAN_S, minor=True)
        for member in touched:
            if member.trouble and not member.failed:
                self.events.note(
                    "warning",
                    f"{member.name}: could not clean up: {member.trouble}; the next push does",
                )
        self._say_ends()

    def _say_ends(self, unsure: Sequence[Member] = ()) -> None:
        """Say what became of hosts that neither ended well nor failed."""
        for member in self.fleet:
            if member.state is None:
                member.state, member.message = State.SKIPPED, "never contacted"
                self.events.host(member.name, member.phase, State.SKIPPED, message=member.message)
            elif member.state in {State.OK, State.RUNNING} and not member.finished:
                member.state, member.message = State.CANCELLED, "stopped by us"
                if member in unsure:
                    member.message = "left at once; it may serve either release"
                self.events.host(member.name, member.phase, State.CANCELLED, message=member.message)

    def finish(
        self, outcome: Outcome, *, release: str | None = None, message: str = "", **keys: Any
    ) -> Result:
        """Say the last word and return it."""
        interrupted = self.loop.signals.exit_code if self.loop.signals.count else None
        if interrupted is not None and outcome in {Outcome.ABORTED, Outcome.REVERTED}:
            outcome = Outcome.INTERRUPTED
        code = keys.pop("code", None) or exit_code(outcome, interrupted)
        hosts = {member.name: member.summary() for member in self.fleet}
        sent_bytes = sum(member.sent_bytes for member in self.fleet)
        if message:
            keys["message"] = message
        if outcome is Outcome.MIXED:
            keys["mend"] = self.again
        if outcome is Outcome.STAGED:
            keys["activate"] = self.command_line("activate", release or self.events.release or "")
        if self.activating:
            keys["skew_s"] = self.skew_s
        self.events.release = release or self.events.release
        self.events.finished(
            outcome=str(outcome), exit_code=int(code), hosts=hosts, bytes_sent=sent_bytes, **keys
        )
        return Result(
            outcome=outcome,
            exit_code=Exit(code),
            run=self.events.run,
            release=self.events.release,
            hosts={name: HostResult(**host) for name, host in hosts.items()},
            bytes_sent=sent_bytes,
            elapsed_s=self.events.elapsed_s,
            skew_s=self.skew_s,
            message=message,
            details=keys,
        )

    def command_line(self, command: str, argument: str) -> str:
        """Return a command for people to copy, with this run's inventory and limit."""
        words = ["deployctl", command, argument, "-i", str(self.inventory.file)]
        words += ["-l", self.options.limit] if self.options.limit else []
        return shlex.join(words)

    def stopped_before_live(self) -> Result:
        """End a run that stopped before its first switch."""
        self.take_back()
        return self.finish(Outcome.ABORTED)

    def staged(self, members: Sequence[Member]) -> Result:
        """End a `--no-activate` run: every host holds the release, none serves it yet."""
        self.fleet.each(
            "confirm",
            members,
            lambda _m: {"values": {"RECORD": ""}},
            together=True,
            stoppable=False,
            minor=True,
        )
        failed = any(member.failed for member in self.fleet)
        return self.finish(Outcome.MIXED if failed else Outcome.STAGED)

    def broken_off(self, error: DeployctlError) -> None:
        """End a run that SOURCE or a wrong call stopped before any host was changed."""
        with contextlib.suppress(LeaveAtOnce):
            self.take_back()
        outcome = Outcome.REFUSED if error.exit_code is Exit.SOURCE else Outcome.FAILED
        hint = {"hint": error.hint} if error.hint else {}
        self.finish(outcome, code=error.exit_code, message=error.message, **hint)

    def left_at_once(self) -> Result:
        """End a run at the second signal: say what is known, wait for nothing."""
        for number in self.loop.crew.workers:
            self.loop.crew.kill(number, "was stopped")
        unsure = [
            m for m in self.fleet if m.may_have_switched and not m.finished and m.state != State.REVERTED
        ]
        for member in unsure:
            member.live = None
        self._say_ends(unsure)
        return self.finish(Outcome.MIXED if unsure else Outcome.INTERRUPTED)

    def reverted(self, members: Sequence[Member]) -> Result:
        """End a run whose activation failed, by what the hosts serve now."""
        differ = any(not member.live_known for member in members) or any(
            member.may_have_switched and member.live != (member.facts.current if member.facts else None)
            for member in members
        )
        self.take_back()
        return self.finish(Outcome.MIXED if differ else Outcome.REVERTED)


@contextlib.contextmanager
def open_run(
    command: str, inventory: Inventory, options: Options, observer: Observer | None, **started: Any
) -> Iterator[Run]:
    """Select the hosts, ask for passphrases, say that the run has begun; end every worker on the way out.

    Nothing is contacted and nothing is forked yet: that is `connect`'s. UsageError, InventoryError.
    """
    hosts = select(inventory, options.limit)
    warnings = list(inventory.warnings)
    targets = resolve_targets(hosts, environ=options.environ, warn=warnings)
    credentials = prepare_credentials(
        targets, environ=options.environ, ask=options.ask, ask_pass=options.ask_pass
    )
    known_hosts = KnownHosts.load(targets)
    events = Events(observer or Silent(), secrets.token_hex(8))
    for warning in (*warnings, *credentials.warnings, *known_hosts.warnings):
        events.note("warning", warning)
    site = Site(
        run=events.run,
        targets={target.name: target for target in targets},
        roots={host.name: host.path for host in hosts},
        credentials=credentials,
        known_hosts=known_hosts,
        shared=inventory.release.shared,
        timeout_s=options.timeout_s,
    )
    forks = min(options.forks or FORKS, len(hosts))
    with stop_signals() as signals:
        crew = Crew(agent(site), name="deployctl")
        loop = Loop(crew, events, signals)
        members = [Member(target.name, target.first_hop) for target in targets]
        fleet = Fleet(loop, members, forks=forks, timeout_s=options.timeout_s)
        argument = str(started.get("source") or started.get("wanted") or "")
        run = Run(command, argument, inventory, options, loop, fleet)
        events.started(
            command, app=inventory.app, hosts=[host.name for host in hosts], forks=forks, **started
        )
        try:
            yield run
        except DeployctlError as error:
            run.broken_off(error)
            raise
        finally:
            crew.stop()
