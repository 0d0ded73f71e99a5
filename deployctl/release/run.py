"""One run from its first event to its last: who takes part, what it says, how it ends.

Owns the common frame of every command that changes hosts; what is done inside is `push`'s or `activate`'s.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployctl.engine.crew import Crew
from deployctl.errors import Code, Exit, UsageError
from deployctl.host.facts import Facts
from deployctl.host.layout import live_release
from deployctl.host.tap import hide
from deployctl.inventory import Inventory, select
from deployctl.model import Outcome, State
from deployctl.release.change import Change
from deployctl.release.ending import break_off, let_go
from deployctl.release.events import Events, Observer, Silent, utc_now
from deployctl.release.fleet import Fleet
from deployctl.release.history import remember
from deployctl.release.hooks import batches
from deployctl.release.local import tell
from deployctl.release.locking import Locks, tidy
from deployctl.release.loop import LeaveAtOnce, Loop
from deployctl.release.member import Member
from deployctl.release.options import FORKS, Options
from deployctl.release.records import Author, record
from deployctl.release.result import HostResult, Result, came_to, exit_code
from deployctl.release.rollout import Rollout
from deployctl.release.signals import stop_signals
from deployctl.release.uplink import Uplink, check_rate

CLEAN_S = 5.0  # longest that removing what is unproven may hold up the end of an abort


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
        self.started_at = utc_now()
        self.told: dict[str, Any] = {}  # what run_started says beyond what every command does
        self.known: dict[str, Any] = {}  # what the history should know in addition
        self.again = self.command_line(command, argument)  # what mends hosts that differ
        self.locks = Locks(loop, fleet, self.author, options.wait_lock_s)
        self.probing: dict[str, Any] = {}
        self.declined = False
        self.ended = False
        self.hooked = (
            False  # whether hooks tell of this run's end: not of a dry one, and not of one that reads
        )
        self.secrets: tuple[str, ...] = ()
        self.skew_s: float | None = None
        self.activating = False  # from the first switch on nothing is tolerated
        self.changed = False  # what was to be changed is, everywhere
        self.change: Change | None = None  # what has been begun on hosts
        self.way_back: Callable[[], None] | None = None  # while that is under way

    # ---- connecting

    def connect(self, *, locks: bool = False, scan: bool = False) -> list[Member]:
        """Connect to and probe every host; return those that take part from here on.

        `locks`: the lock comes next. `scan`: look for bases of deltas.
        """
        self.fleet.hire()
        self.probing = {"locks": locks, "values": {"SCAN": "1" if scan else ""}}
        self.fleet.each("connect", self.fleet, lambda _m: self.probing)
        self._take_facts(self.fleet)
        self._learn()
        return self.sound()

    def reach(self, *, minor: bool = False) -> list[Member]:
        """Connect to every host without a look at its deploy root; return those that were reached."""
        self.fleet.hire()
        self.fleet.each("connect", self.fleet, lambda _m: {"probe": False}, minor=minor)
        self._learn()
        return [member for member in self.sound() if not member.trouble]

    def _learn(self) -> None:
        """Keep the host keys that were accepted on first use."""
        learned: dict[str, list[str]] = {}
        for member in self.fleet:
            for file, text in member.answer.get("learned", ()):
                learned.setdefault(file, []).append(text)
        if not learned:
            return
        from deployctl.host.knownhosts import append_learned  # noqa: PLC0415 - see `open_run`

        for file, lines in learned.items():
            try:
                append_learned(Path(file), list(dict.fromkeys(lines)))
            except OSError as error:  # as OpenSSH does, that is no reason not to connect
                said = f"{file}: the new host keys could not be added: {error.strerror}"
                self.events.note("warning", said)

    def lock(self, members: Sequence[Member]) -> bool:
        """Take the lock on all of `members` or none; return whether it is ours, and nothing has changed meanwhile."""
        if not self.locks.take(members):
            return False
        held = [member for member in members if not member.failed]
        changed = [m for m in held if m.facts and m.answer.get("current") != m.facts.current]
        if changed:  # another run was at work between our probe and our lock
            self.fleet.each("connect", changed, lambda _m: {**self.probing, "locks": False})
            self._take_facts(changed)
        return not self.fleet.stopping()

    def _take_facts(self, members: Iterable[Member]) -> None:
        for member in members:
            if "facts" in member.answer:
                member.facts = Facts.from_json(member.answer["facts"])
                member.serves(member.facts.current)

    def sound(self) -> list[Member]:
        """Return the members that were reached and have not failed."""
        return [member for member in self.fleet if member.state is not None and not member.failed]

    # ---- waiting and asking

    def pause(self, seconds: float) -> None:
        """Wait, unless the run is stopped or a host fails meanwhile."""
        self.fleet.pause(seconds)

    def go_on(self, question: str) -> bool:
        """Ask before a batch where `--confirm` wants it; a no stops the run, as a signal does."""
        asked = self.options.confirm
        if asked is None:
            return True
        asked.put(question)
        answer = None
        while answer is None and not self.fleet.stopping():
            self.fleet.turn(also=[asked.fd])
            answer = asked.take()
            if self.loop.signals.count:
                self.fleet.stop()
        if answer is False:
            self.declined = True  # says so at the end
            self.fleet.stop()
        return bool(answer) and not self.fleet.stopping()

    # ---- activation

    def switch(self, members: Sequence[Member], release: str, trees: Mapping[str, str]) -> bool:
        """Make `release` live on all members, or put every one back on what it served; return whether it is live."""
        self.activating = True
        return self.perform(Rollout(self, members, release, trees))

    def perform(self, change: Change) -> bool:
        """Carry out a change of hosts; return whether it was. Whatever tears us out of it, its way back is known."""
        self.change, self.way_back = change, change.put_back
        self.changed = change.perform()
        self.way_back = None
        return self.changed

    def confirm(self, members: Sequence[Member], release: str) -> None:
        """Record on every host that the whole run has succeeded; a host that can't is live all the same."""
        text = record(
            "confirm",
            self.events.run,
            release,
            self.author,
            message=self.options.message,
            command=self.command,
        )
        self.fleet.each(
            "confirm",
            members,
            lambda _m: {"values": {"RECORD": text, "ID": release}},
            together=True,
            stoppable=False,
            minor=True,
        )
        for member in members:
            member.state, member.finished = State.OK, True
            if "live" in member.answer and member.answer["live"] != f"releases/{release}":
                member.serves(member.answer["live"])
                serves = live_release(member.live) or "nothing"
                self.fleet.fail(
                    member, Code.LOCKED, f"another run has switched it meanwhile; it serves {serves}"
                )
            elif member.trouble:
                self.events.note(
                    "warning",
                    f"{member.name}: the release is live but could not be confirmed: {member.trouble}; "
                    "the next push confirms it",
                )

    # ---- ending

    def take_back(self) -> None:
        """After an abort: remove what is unproven from hosts, read what they serve, then say how each host ended."""
        touched = [member for member in self.fleet if member.staged]
        tidy(self.fleet, "clean", touched, CLEAN_S, CLEAN_S)
        unguarded = any(member.code is Code.LOCKED for member in self.fleet)
        for member in touched:
            if "live" in member.answer:
                member.serves(member.answer["live"])
            elif unguarded:  # another run may have switched it
                member.live_known = False
            if member.trouble and not member.failed:
                self.events.note(
                    "warning",
                    f"{member.name}: could not clean up: {member.trouble}; the next push does",
                )
        self.locks.give_back()
        self.say_ends()

    def say_ends(self, unsure: Sequence[Member] = ()) -> None:
        """Say what became of hosts that neither ended well nor failed."""
        for member in self.fleet:
            if member.state is None:
                member.state, member.message = State.SKIPPED, "never contacted"
                self.events.host(
                    member.name, self.fleet.speaks_as or member.phase, State.SKIPPED, message=member.message
                )
            elif member.state in {State.OK, State.RUNNING} and not member.finished:
                member.state, member.message = State.CANCELLED, "stopped by us"
                if member in unsure:
                    member.message = "left at once; it may serve either release"
                self.events.host(
                    member.name, self.fleet.speaks_as or member.phase, State.CANCELLED, message=member.message
                )

    def finish(
        self, outcome: Outcome, *, release: str | None = None, message: str = "", **keys: Any
    ) -> Result:
        """Say the last word and return it."""
        interrupted = self.loop.signals.exit_code if self.loop.signals.count else None
        if interrupted is not None and outcome in {Outcome.ABORTED, Outcome.REVERTED}:
            outcome = Outcome.INTERRUPTED
        if outcome is Outcome.RELEASED and any(member.code is Code.LOCKED for member in self.fleet):
            outcome = Outcome.MIXED
        with contextlib.suppress(LeaveAtOnce):  # what it came to is known by now
            self.locks.give_back()
            tell(self, outcome)
        code = keys.pop("code", None) or exit_code(outcome, interrupted)
        hosts = {member.name: member.summary() for member in self.fleet}
        sent_bytes = sum(member.sent_bytes for member in self.fleet)
        if self.declined and not message:
            message = "the answer was no"
        if message:
            keys["message"] = message
        if outcome is Outcome.MIXED:
            keys["mend"] = self.again
        if outcome is Outcome.STAGED:
            keys["activate"] = self.command_line("activate", release or self.events.release or "")
        if self.activating:
            keys["skew_s"] = self.skew_s
        self.events.release = release or self.events.release
        remember(self, str(outcome), int(code), sent_bytes)
        self.ended = True
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

    def command_line(self, command: str, *arguments: str) -> str:
        """Return a command for people to copy, with this run's inventory and limit."""
        words = ["deployctl", command, *arguments, "-i", str(self.inventory.file)]
        words += ["-l", self.options.limit] if self.options.limit else []
        return shlex.join(words)

    def stopped_before_live(self) -> Result:
        """End a run that stopped before its first switch."""
        self.take_back()
        if self.locks.refused and not self.loop.signals.count:
            return self.finish(Outcome.REFUSED, code=Exit.LOCKED)
        return self.finish(Outcome.ABORTED)

    def staged(self, members: Sequence[Member]) -> Result:
        """End a `--no-activate` run: every host holds the release, none serves it yet."""
        text = record(
            "stage", self.events.run, self.events.release or "", self.author, message=self.options.message
        )
        self.fleet.each(
            "confirm",
            members,
            lambda _m: {"values": {"RECORD": text}},
            together=True,
            stoppable=False,
            minor=True,
        )
        failed = any(member.failed for member in self.fleet)
        return self.finish(Outcome.MIXED if failed else Outcome.STAGED)

    def left_at_once(self) -> Result:
        """End a run at the second signal: say what is known, wait for nothing."""
        done = Outcome.RELEASED if self.activating else Outcome.OK
        outcome = done if self.changed else Outcome.INTERRUPTED
        return self.finish(Outcome.MIXED if let_go(self) else outcome)

    def reverted(self) -> Result:
        """End a run whose change of hosts failed, by what they have now."""
        self.take_back()
        outcome, said = self.came_to()
        return self.finish(outcome, message=said)

    def came_to(self) -> tuple[Outcome, str]:
        """Return what a run that failed came to, and what is to be said of it."""
        return self.change.came_to() if self.change else came_to(self.fleet, (), self.events.release)


def new_run_id() -> str:
    return secrets.token_hex(8)


def load_agent() -> tuple[Any, Any]:
    """Load what connects: with paramiko that takes 0.15 s, which the command line uses to read the inventory elsewhere."""
    from deployctl.host.agent import agent  # noqa: PLC0415
    from deployctl.release.site import make_site  # noqa: PLC0415

    return agent, make_site


@contextlib.contextmanager
def open_run(
    command: str,
    inventory: Inventory,
    options: Options,
    observer: Observer | None,
    *,
    hooked: bool = False,
    ahead: Callable[[Crew, Events], None] | None = None,
    **started: Any,
) -> Iterator[Run]:
    """Select the hosts, ask for passphrases, say that the run has begun; end every worker on the way out.

    With `hooked` the run runs hooks and checks, so the variables of every host must be there. `ahead` is called once the
    hosts are known, to fork what need not wait for the rest.

    Nothing is contacted yet: that is `connect`'s. UsageError, InventoryError.
    """
    try:
        batches(options.batch, 1)
    except ValueError as error:
        raise UsageError(f"--batch: {error}") from None
    hosts = select(inventory, options.limit)
    forks = min(options.forks or FORKS, len(hosts))
    check_rate(options.limit_rate_bytes_s, forks)
    events = Events(observer or Silent(), new_run_id())
    crew = Crew(name="deployctl")
    try:
        if ahead is not None:
            ahead(crew, events)
        agent, make_site = load_agent()
        site = make_site(inventory, hosts, options, events, hooked=hooked)
        crew.servant = agent(site)
        if options.message:
            options = replace(options, message=hide(options.message, site.secrets))
        with stop_signals() as signals:
            loop = Loop(crew, events, signals)
            members = [Member(name, target.first_hop) for name, target in site.targets.items()]
            fleet = Fleet(loop, members, forks=forks, timeout_s=options.timeout_s)
            fleet.uplink = Uplink(crew, options.limit_rate_bytes_s)
            argument = str(started.get("source") or started.get("wanted") or "")
            run = Run(command, argument, inventory, options, loop, fleet)
            run.hooked, run.secrets, run.told = hooked, site.secrets, started
            names = [host.name for host in hosts]
            events.started(command, app=inventory.app, hosts=names, forks=forks, **started)
            try:
                yield run
            except Exception as error:
                break_off(run, error)
                raise
            finally:
                crew.stop()
    finally:
        crew.stop(0.0)  # what has not come as far as a run has nothing to finish
