"""Push: put SOURCE on every host and make it live, or change nothing.

walk ─▶ connect + probe everywhere ─┐
└──▶ pack (a process of its own) ─┴▶ choose id ─▶ stage everywhere ─▶ switch everywhere ─▶ confirm
any failure: nothing was live │ any failure: all back
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployctl.engine.crew import Arrival, Crew
from deployctl.errors import DeployctlError, UsageError
from deployctl.host.plan import Action
from deployctl.inventory import Inventory
from deployctl.model import Outcome, Phase, State
from deployctl.release.bases import Bases, expects_delta
from deployctl.release.dry import report_plans
from deployctl.release.early import send_early
from deployctl.release.events import Events, Observer, utc_now
from deployctl.release.history import known_release
from deployctl.release.local import build
from deployctl.release.loop import LeaveAtOnce
from deployctl.release.member import Member
from deployctl.release.options import Options
from deployctl.release.packer import Packer
from deployctl.release.packing import Source
from deployctl.release.plan import Choice, Tree, allowed_failures, choose, group_of
from deployctl.release.prune import prune_after
from deployctl.release.result import Result
from deployctl.release.rollout import run_hooks
from deployctl.release.run import Run, open_run
from deployctl.release.stage import Staging
from deployctl.release.workdir import run_directory

RESTS = (Action.UNCHANGED, Action.CONFIRM)  # nothing has to be staged


@dataclass(frozen=True, slots=True)
class PushOptions(Options):
    """What push takes beyond what every command does."""

    ref: str | None = None
    dry_run: bool = False
    activate: bool = True
    max_failures: str | None = None
    force: bool = False
    allow_empty: bool = False


def push(
    inventory: Inventory,
    source: str | Path,
    options: PushOptions | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> Result:
    """Release `source` to the inventory's hosts and return every host's end; nothing is printed.

    `settings` are fields of PushOptions by name, as in `push(inventory, "./build", limit="web", dry_run=True)`. Failures of hosts are in the result. InventoryError, SourceError and UsageError are raised, and mean that no host was
    changed.
    """
    options = replace(options or PushOptions(), **settings)
    if not str(source):
        raise UsageError(
            "SOURCE is empty", hint="name a directory, an archive or a file; `.` is this directory"
        )
    refuse_build_hook(inventory, Path(source), options)
    check_max_failures(options.max_failures)
    told = {"source": str(source), "dry_run": options.dry_run, "activate": options.activate}
    told |= {"ref": options.ref} if options.ref is not None else {}
    with contextlib.ExitStack() as stack:
        preparing = _Preparing(inventory, Path(source), options, stack)
        hooked = not options.dry_run
        with open_run(
            "push", inventory, options, observer, hooked=hooked, ahead=preparing.begin, **told
        ) as run:
            try:
                if hooked:
                    build(run, Path(source))
                if run.fleet.stopping():
                    return run.stopped_before_live()
                return _Push(run, options, *preparing.take(run)).perform()
            except LeaveAtOnce:
                return run.left_at_once()


def refuse_build_hook(inventory: Inventory, source: Path, options: PushOptions) -> None:
    """A build hook runs in SOURCE, so SOURCE must be a directory that is packed as it is then."""
    if inventory.release.hooks["build"] and (options.ref is not None or not source.is_dir()):
        raise UsageError(
            f"{inventory.file}: release.hooks.build runs in SOURCE, which "
            + (
                f"--ref {options.ref} leaves out" if options.ref is not None else f"{source} has no place for"
            ),
            hint="push the directory, or take the build hook out of the inventory",
        )


def check_max_failures(text: str | None) -> None:
    try:
        allowed_failures(text, 0)
    except ValueError as error:
        raise UsageError(f"--max-failures: {error}") from None


class _Preparing:
    """The run's directory and the packer, which begins while the parent still loads what it needs to connect.

    Not before a build hook has run, though; and what fails is said once the run has begun.
    """

    def __init__(
        self, inventory: Inventory, source: Path, options: PushOptions, stack: contextlib.ExitStack
    ) -> None:
        self._inventory = inventory
        self._source = source
        self._options = options
        self._stack = stack  # ends after the run
        self._begun: tuple[Packer, Path] | None = None
        self._error: DeployctlError | None = None

    def begin(self, crew: Crew, events: Events) -> None:
        if self._options.dry_run or not self._inventory.release.hooks["build"]:
            try:
                self._begin(crew, events)
            except DeployctlError as error:
                self._error = error

    def take(self, run: Run) -> tuple[Packer, Path]:
        if self._error:
            raise self._error
        return self._begun or self._begin(run.loop.crew, run.events)

    def _begin(self, crew: Crew, events: Events) -> tuple[Packer, Path]:
        release, options = self._inventory.release, self._options
        workdir = self._stack.enter_context(run_directory(options.environ))
        source = Source(
            self._source,
            options.ref,
            tuple(release.exclude),
            release.shared,
            options.allow_empty,
            trusts_cache=not options.force,
            keeps=not options.dry_run,
            expects_delta=expects_delta(self._inventory),
        )
        self._begun = Packer(crew, events, source, workdir), workdir
        return self._begun


class _Push:
    """The steps of one push, in the order of `perform`."""

    def __init__(self, run: Run, options: PushOptions, packer: Packer, workdir: Path) -> None:
        self._run = run
        self._options = options
        self._bases = Bases(run.fleet, workdir)
        self._packer = packer
        run.fleet.listen(self._hear)

    def _hear(self, arrival: Arrival) -> bool:
        if not self._packer.owns(arrival.worker):
            return False
        if self._run.fleet.stopping():
            return True  # why the run stops is known; what the packer says has no bearing on it
        if arrival.message or arrival.died is not None:
            self._packer.hear(arrival.message, arrival.died)
        return True

    def perform(self) -> Result:
        run, fleet = self._run, self._run.fleet
        prepared = self._prepare()
        if prepared is None or fleet.stopping():
            return run.stopped_before_live()
        choice, tree = prepared
        run.events.release = choice.release
        run.known = {"digest": tree.digest, **({"commit": tree.commit} if tree.commit else {})}
        if not self._options.dry_run:
            return self._carry_out(choice, tree)
        members = [m for m in run.sound() if choice.actions[m.name] not in RESTS]
        plans = self._staging(choice, tree).plans(members, choice.actions)
        if fleet.stopping():
            return run.stopped_before_live()
        return report_plans(run, choice, plans, self._packer.manifest_file, self._bases)

    def _staging(self, choice: Choice, tree: Tree) -> Staging:
        return Staging(self._run, self._packer, self._bases, choice, tree, self._wait)

    def _prepare(self) -> tuple[Choice, Tree] | None:
        """Walk and pack, connect, lock and choose; None when the run stops meanwhile."""
        run, fleet = self._run, self._run.fleet
        fleet.tolerated = allowed_failures(self._options.max_failures, len(fleet.members))
        self._wait(lambda: self._packer.walked)
        if fleet.stopping():
            return None
        run.connect(locks=not self._options.dry_run, scan=True)
        if all(group_of(member.facts) for member in run.sound()):
            self._packer.drop_whole()
        if fleet.stopping() or not run.sound() or (not self._options.dry_run and not run.lock(run.sound())):
            return None
        if not self._options.dry_run:
            send_early(run, self._packer, self._wait)
        self._bases.gather(run.sound())
        self._wait(lambda: self._packer.tree is not None)
        tree = self._packer.tree
        if tree is not None and not self._options.dry_run:
            self._bases.keep(self._packer.manifest_file.read_bytes())
        choice = self._choose(tree) if tree is not None and not fleet.stopping() else None
        return (choice, tree) if choice is not None and tree is not None else None

    def _wait(self, ready: Any) -> None:
        while not ready() and not self._run.fleet.stopping():
            self._run.fleet.turn()
            if self._run.loop.signals.count:
                self._run.fleet.stop()

    # ---- the plan

    def _choose(self, tree: Tree) -> Choice | None:
        """Choose id and actions; hosts that seem to serve the tree already are looked at first."""
        run = self._run
        members = run.sound()
        candidates = [
            m
            for m in members
            if m.facts
            and m.facts.live_digest == tree.digest
            and not m.facts.untouched
            and not self._options.force
        ]
        dry = "1" if self._options.dry_run else ""
        run.fleet.each(
            "inspect",
            candidates,
            lambda m: {
                "values": {
                    "ID": m.facts.live or "" if m.facts else "",
                    "DRY": dry,
                    "DIFFERS": "1" if m.facts and m.facts.differs else "",
                }
            },
            together=True,
        )
        if run.fleet.stopping():
            return None
        edited = {m.name: m.answer["edited"] for m in candidates if m.answer.get("edited")}
        for name, text in edited.items():
            run.events.note(
                "warning",
                f"{name}: the live release is not as it was released ({text}); it gets a fresh copy",
            )
        facts = {m.name: m.facts for m in run.sound() if m.facts}
        known = known_release(run.inventory, tree.digest) if self._options.limit else None
        return choose(
            facts, tree.digest, now=utc_now(), edited=edited, force=self._options.force, known=known
        )

    # ---- the execution

    def _carry_out(self, choice: Choice, tree: Tree) -> Result:
        run, fleet = self._run, self._run.fleet
        members = run.sound()
        resting = [m for m in members if choice.actions[m.name] is Action.UNCHANGED]
        for member in resting:
            member.message, member.finished = "unchanged", True
            run.events.host(
                member.name,
                "probe",
                State.OK,
                message="unchanged",
                data={"live": member.facts.live if member.facts else None},
            )
        working = [m for m in members if m not in resting]
        if not working:
            outcome = Outcome.MIXED if self._tolerated_failures() else Outcome.UNCHANGED
            return run.finish(outcome)
        self._staging(choice, tree).perform([m for m in working if choice.actions[m.name] not in RESTS])
        working = [m for m in working if not m.failed]
        if not fleet.stopping():
            sent = [m for m in working if choice.actions[m.name] not in RESTS]
            self._run_staged_hooks(sent, choice.release)
        working = [m for m in working if not m.failed]
        if fleet.stopping() or not (working or resting):  # however many may fail, all were too many
            return run.stopped_before_live()
        if not self._options.activate:
            return run.staged(working)
        if not run.switch(working, choice.release, {m.name: tree.digest for m in working}):
            return run.reverted()
        run.confirm(working, choice.release)
        prune_after(run, working, choice.release)
        return run.finish(Outcome.MIXED if self._tolerated_failures() else Outcome.RELEASED)

    def _run_staged_hooks(self, members: Sequence[Member], release: str) -> None:
        """Run them on hosts that were staged now; what they change there becomes part of the release."""
        hooked = run_hooks(self._run, "staged", members, Phase.STAGE, release)
        if not self._run.fleet.stopping():
            sound = [member for member in hooked if not member.failed]
            self._run.fleet.each("settle", sound, lambda _m: {"values": {"ID": release}}, together=True)

    def _tolerated_failures(self) -> bool:
        return any(member.failed for member in self._run.fleet)
