"""What a push would do, for `--dry-run`: said host by host, nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployctl.artifact.manifest import Manifest
from deployctl.errors import Exit, HostError
from deployctl.host.layout import live_release
from deployctl.host.plan import Action, Plan, check_space
from deployctl.model import Outcome, Phase, State
from deployctl.release.bases import Bases
from deployctl.release.member import Member
from deployctl.release.plan import Choice
from deployctl.release.result import Result
from deployctl.release.run import Run


def report_plans(
    run: Run, choice: Choice, plans: Mapping[str, Plan], manifest_file: Path, bases: Bases
) -> Result:
    """Say what every host would get; a host whose space would not do fails, as it would in earnest."""
    differences = _differences(run, choice, manifest_file, bases)
    for member in run.sound():
        plan = plans.get(member.name)
        action = plan.action if plan else choice.actions[member.name]
        data: dict[str, Any] = {
            "action": str(action),
            "bytes_to_send": plan.size_bytes if plan else 0,
            "files_to_send": plan.files if plan else 0,
            **({"base": plan.base} if plan and plan.base else {}),
            "from": live_release(member.live),
            "to": choice.release if action is not Action.UNCHANGED else live_release(member.live),
            **differences.get(member.facts.live_digest if member.facts else None, {}),
        }
        try:
            if plan and plan.path and member.facts:
                check_space(member.facts, plan, member.facts.nearest)
        except HostError as error:
            member.phase = Phase.UPLOAD
            run.fleet.fail(member, error.code, error.message, data={**data, "hint": error.hint})
        else:
            member.message = "planned"
            run.events.host(member.name, Phase.PROBE, State.OK, message="planned", data=data)
    if run.fleet.stopping():
        return run.stopped_before_live()
    failed = any(member.failed for member in run.fleet)  # as many as are tolerated, here as in earnest
    return run.finish(Outcome.PLANNED, code=Exit.MIXED if failed else None)


def _differences(
    run: Run, choice: Choice, manifest_file: Path, bases: Bases
) -> dict[str | None, dict[str, int]]:
    """Return, by the digest of the manifest that is live, how many entries come, change and go.

    A manifest that is not known is fetched from one host that holds it.
    """
    new = _entries(manifest_file.read_bytes())
    differences: dict[str | None, dict[str, int]] = {None: {"added": len(new), "changed": 0, "removed": 0}}
    holders: dict[str, Member] = {}
    for member in run.sound():
        if member.facts and member.facts.live_digest and choice.actions[member.name] is not Action.UNCHANGED:
            holders.setdefault(member.facts.live_digest, member)
    known = {digest: file.read_bytes() for digest in holders if (file := bases.file(digest))}
    run.fleet.each(
        "manifest",
        [member for digest, member in holders.items() if digest not in known],
        lambda m: {"values": {"ID": m.facts.live or "" if m.facts else ""}},
        together=True,
    )
    for digest, member in holders.items():
        lines = member.answer.get("lines")
        if digest in known or lines is not None:
            old = _entries(known.get(digest) or "".join(f"{line}\n" for line in lines or ()).encode())
            differences[digest] = {
                "added": len(new.keys() - old.keys()),
                "changed": sum(old[path] != new[path] for path in new.keys() & old.keys()),
                "removed": len(old.keys() - new.keys()),
            }
    return differences


def _entries(data: bytes) -> dict[bytes, tuple[str, int, str]]:
    return {entry.path: (entry.type, entry.mode, entry.sha256) for entry in Manifest.from_bytes(data).entries}
