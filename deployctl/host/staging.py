"""From a plan to a verified release on one host: the cheapest way that is there, the upload when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from deployctl.errors import Code, HostError
from deployctl.host.facts import Facts
from deployctl.host.layout import artifact_name, part_path
from deployctl.host.operation import Operation
from deployctl.host.session import Session
from deployctl.host.upload import upload
from deployctl.model import Phase

SPARE = 1.1  # room asked for beyond what the release needs
KIB = 1024


class Action(StrEnum):
    """How a host comes to hold the release."""

    UNCHANGED = "unchanged"  # live and confirmed already
    CONFIRM = "confirm"  # live, but the run that switched it died before it was confirmed
    REUSE = "reuse"  # staged already, under this id
    COPY = "copy"  # another release there has the same tree
    ARTIFACT = "artifact"  # its artifact is there, proven by an earlier run
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one host is to be staged with; digests are SHA-256 in hex, `modes` the types and modes in the tree."""

    action: Action
    release: str
    tree: str
    shape: str
    shape_shared: str
    modes: str
    unpacked_bytes: int
    entries: int
    codec: str
    path: str
    size_bytes: int
    sha256: str
    base: str = ""  # the release to copy, for COPY

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "action": Action(data["action"])})

    def values(self, source: str) -> dict[str, str]:
        """Return what remote.sh needs to know, to stage from `source`."""
        return {
            "FROM": source,
            "ID": self.release,
            "TREE": self.tree,
            "SHAPE": self.shape,
            "SHAPE_SHARED": self.shape_shared,
            "MODES": self.modes,
            "ARTIFACT": artifact_name(self.tree, self.codec),
            "SIZE": str(self.size_bytes),
            "SHA": self.sha256,
            "BASE": self.base,
        }


def stage(session: Session, plan: Plan, operation: Operation) -> dict[str, Any]:
    """Put the release on the host, verified; return `{"bytes": sent}`. HostError, Cancelled."""
    operation.begin(Phase.UPLOAD)
    if session.lock is None:  # taking it prepares as well
        session.run(operation, "prepare")
    if plan.action is not Action.UPLOAD:
        operation.ok(bytes=0, action=plan.action)
        operation.begin(Phase.STAGE)
        try:
            _stage_local(session, plan, operation)
        except HostError as error:
            if error.code is not Code.DIGEST:
                raise
            # What was there is not what it claims to be; the upload is, so the run goes on with it.
            operation.begin(Phase.UPLOAD)
        else:
            operation.ok(action=plan.action)
            return {"bytes": 0}
    sent_bytes = _send(session, plan, operation)
    operation.ok(bytes=sent_bytes, action=Action.UPLOAD)
    operation.begin(Phase.STAGE)
    session.run(operation, "stage", plan.values("upload"))
    operation.ok(action=Action.UPLOAD)
    return {"bytes": sent_bytes}


def _stage_local(session: Session, plan: Plan, operation: Operation) -> None:
    if plan.action is Action.REUSE:
        try:
            session.run(operation, "reverify", plan.values("reuse"))
        except HostError as error:
            if error.code is Code.DIGEST:
                session.run(operation, "discard", {"ID": plan.release})
            raise
    else:
        session.run(operation, "stage", plan.values(plan.action))


def _send(session: Session, plan: Plan, operation: Operation) -> int:
    if session.facts is not None:
        check_space(session.facts, plan, session.root)
    target = part_path(session.root, session.site.run)
    try:
        return upload(
            session.connection(operation.timeout_s),
            Path(plan.path),
            target,
            stall_s=operation.timeout_s,
            cancel=operation.cancel,
            progress=lambda done: operation.bytes(done, plan.size_bytes),
            throttle=session.throttle,
        )
    except HostError as error:
        if "scp" not in error.data:
            raise
        # scp failed with words only; the host is asked for the reason in terms of space and rights.
        session.run(operation, "blame", {"WHY": error.message})
        raise


def check_space(facts: Facts, plan: Plan, root: str) -> None:
    """Raise HostError NO_SPACE when artifact and unpacked tree do not fit, before a byte is sent."""
    need_kib = int((plan.size_bytes + plan.unpacked_bytes) * SPARE / KIB) + 4 * plan.entries
    if facts.free_kib is not None and facts.free_kib < need_kib:
        raise HostError(
            Code.NO_SPACE,
            f"no space left on {facts.nearest} (needs {_megabytes(need_kib)}, has {_megabytes(facts.free_kib)})",
            hint=f"free some space there, old releases for instance: ls -t {root}/releases",
        )
    if facts.free_inodes is not None and 0 < facts.free_inodes < plan.entries + 16:
        raise HostError(
            Code.NO_SPACE,
            f"no inodes left on {facts.nearest} (needs {plan.entries + 16}, has {facts.free_inodes})",
            hint="many small files use them up: find the directory that holds them",
        )


def _megabytes(kib: int) -> str:
    return f"{kib * KIB / 1e6:.1f} MB"
