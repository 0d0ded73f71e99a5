"""Every host of a push to a staged, verified release, each by the way that costs least.

Hosts that hold a release with the same manifest get the same delta, packed once; the whole is packed only when a host needs
it. Where what was there turns out not to be what it claims, the host is told again: a delta instead of a copy, the whole
instead of a delta.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from deployctl.host.layout import artifact_name
from deployctl.host.plan import Action, Plan
from deployctl.release.bases import Bases
from deployctl.release.member import Member
from deployctl.release.packer import Packer
from deployctl.release.plan import Archive, Choice, Group, Tree, codec_for, codecs, group_of, stage_plan
from deployctl.release.run import Run

SENT = (Action.UPLOAD, Action.DELTA)


class Staging:
    """One staging of `tree`; `wait` lets the run go on until its argument is true or it stops."""

    def __init__(
        self,
        run: Run,
        packer: Packer,
        bases: Bases,
        choice: Choice,
        tree: Tree,
        wait: Callable[[Callable[[], bool]], None],
    ) -> None:
        self._run = run
        self._packer = packer
        self._bases = bases
        self._choice = choice
        self._tree = tree
        self._wait = wait

    def perform(self, members: Sequence[Member]) -> None:
        """Stage on all members; those that failed are FAILED."""
        fleet = self._run.fleet
        actions = dict(self._choice.actions)
        todo = list(members)
        while todo and not fleet.stopping():
            plans = self.plans(todo, actions)
            if fleet.stopping():
                return
            for member in todo:
                member.upload_bytes = (0, plans[member.name].size_bytes)
            self._carry_out(todo, plans)
            for member in todo:
                member.sent_bytes += member.upload_bytes[0]
            todo = [member for member in todo if "again" in member.answer and not member.failed]
            for member in todo:
                self._step_back(member, plans[member.name].action, actions)

    def _carry_out(self, members: Sequence[Member], plans: Mapping[str, Plan]) -> None:
        def plan(member: Member) -> dict[str, object]:
            member.staged = True
            return {"plan": plans[member.name].to_json()}

        self._run.fleet.each("stage", members, plan)
        self._run.fleet.progress(last=True)

    def _step_back(self, member: Member, tried: Action, actions: dict[str, Action]) -> None:
        """Take the next way; a base that was none is not built upon again."""
        member.holds = False
        if tried is Action.DELTA and member.facts:
            self._run.events.note(
                "warning",
                f"{member.name}: cannot build upon release {member.facts.base} ({member.answer['again']}); "
                "the whole artifact is sent",
            )
            member.facts = replace(member.facts, base="")
        elif member.facts:  # what was there is gone, or was found to be damaged
            member.facts = replace(member.facts, artifacts=(), parts={})
        actions[member.name] = Action.UPLOAD

    # ---- what each gets

    def plans(self, members: Sequence[Member], actions: Mapping[str, Action]) -> dict[str, Plan]:
        """Return each member's plan, once all that is needed is packed; incomplete when the run stops."""
        uploads = [member for member in members if actions[member.name] is Action.UPLOAD]
        groups = {member.name: group for member in uploads if (group := self._group(member))}
        there = {name: found for name, group in groups.items() if (found := self._there(name, group))}
        self._pack({name: group for name, group in groups.items() if name not in there})
        groups = {n: g for n, g in groups.items() if n in there or g.key not in self._packer.useless}
        self._pack({member.name: None for member in uploads if member.name not in groups})
        if self._run.fleet.stopping():
            return {}
        plans = {}
        for member in members:
            action = actions[member.name]
            if action is not Action.UPLOAD:
                plans[member.name] = self._local(member, action)
            elif group := groups.get(member.name):
                plans[member.name] = self._delta(member, group, there.get(member.name))
            else:
                archive = self._packer.archives["", self._codec(member)]
                plans[member.name] = stage_plan(
                    action,
                    self._choice.release,
                    self._tree,
                    archive=archive,
                    there=self._parts(member, archive),
                )
        return plans

    def _group(self, member: Member) -> Group | None:
        group = group_of(member.facts)
        file = self._bases.file(group.base) if group else None
        return replace(group, file=str(file)) if group and file else None

    def _stem(self, group: Group | None) -> str:
        return group.stem(self._tree.digest) if group else self._tree.digest

    def _codec(self, member: Member, group: Group | None = None) -> str:
        assert member.facts is not None  # it was probed, or it would have failed  # noqa: S101
        return codec_for(member.facts, self._stem(group))

    def _there(self, name: str, group: Group) -> str | None:
        """Return the name of the delta that an aborted run left on the host."""
        facts = self._run.fleet.members[name].facts
        if facts is None:
            return None
        stems = [self._stem(group), self._stem(replace(group, patches=False))]
        names = [artifact_name(stem, codec) for stem in stems for codec in codecs(facts)]
        return next((artifact for artifact in names if artifact in facts.artifacts), None)

    def _parts(self, member: Member, archive: Archive | None) -> Collection[int]:
        """Return which parts an aborted run left on the host."""
        if archive is None or member.facts is None:
            return ()
        return member.facts.parts.get(artifact_name(archive.stem, archive.codec), ())

    def _pack(self, wanted: Mapping[str, Group | None]) -> None:
        members = self._run.fleet.members
        codecs = {name: self._codec(members[name], group) for name, group in wanted.items()}
        for name, group in wanted.items():
            self._packer.want(codecs[name], group)
        self._wait(lambda: all(self._packer.ready(codecs[name], group) for name, group in wanted.items()))

    def _local(self, member: Member, action: Action) -> Plan:
        artifact = artifact_name(self._tree.digest, self._codec(member))
        base = (self._choice.bases.get(member.name, ""), "")
        links = self._run.inventory.release.links
        return stage_plan(action, self._choice.release, self._tree, artifact=artifact, base=base, links=links)

    def _delta(self, member: Member, group: Group, there: str | None) -> Plan:
        archive = None if there else self._packer.archives[group.key, self._codec(member, group)]
        return stage_plan(
            Action.DELTA,
            self._choice.release,
            self._tree,
            artifact=there or "",
            archive=archive,
            base=(member.facts.base if member.facts else "", group.base),
            there=self._parts(member, archive),
            links=self._run.inventory.release.links,
        )
