"""How one host is to come to hold a release, and what room that takes; pure, so that it is known before anything connects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from deployctl.errors import Code, HostError
from deployctl.host.facts import Facts

BULK_BYTES = 4 << 20  # from here on it pays to look for tools that go through it faster
SPARE = 1.1  # room asked for beyond what the release needs
KIB = 1024


class Action(StrEnum):
    """How a host comes to hold the release."""

    UNCHANGED = "unchanged"  # live and confirmed already
    CONFIRM = "confirm"  # live, but the run that switched it died before it was confirmed
    REUSE = "reuse"  # staged already, under this id
    COPY = "copy"  # another release there has the same tree
    ARTIFACT = "artifact"  # its artifact is there, proven by an earlier run
    DELTA = "delta"  # built from a release there and what that lacks
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one host is to be staged with; digests are SHA-256 in hex, `modes` the types and modes in the tree.

    Without a `path` nothing is sent: what is needed is there.
    """

    action: Action
    release: str
    tree: str
    shape: str
    shape_shared: str
    sizes: str
    modes: str
    unpacked_bytes: int
    entries: int
    artifact: str  # its name on the host
    path: str
    size_bytes: int
    sha256: str
    files: int = 0  # whose content is sent
    patched: int = 0  # of these, as what differs from the file in the base
    base: str = ""  # the release to copy, for COPY, or to build upon, for DELTA
    base_tree: str = ""
    links: str = "copy"
    parts: int = 1  # in which the artifact travels
    bare: str = ""  # files in it that travel as they are, a line each
    bare_bytes: int = 0
    slice_bytes: int = 0  # of them, the largest
    odd: bool = False  # a name or the text of a link holds a newline
    away: str | None = (
        None  # of a delta that is unpacked at once: what goes from the copy before, a line each
    )
    content_bytes: int = 0  # that the host reads
    many: bool = False  # so many entries that it looks how it copies best

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "action": Action(data["action"])})

    def values(self) -> dict[str, str]:
        """Return what remote.sh needs to know to stage it."""
        return {
            "FROM": self.action,
            "SENT": "1" if self.path and self.parts == 1 else "",
            "UNPACKED": "",
            "SIZES": self.sizes,
            "BULK": "1" if self.content_bytes > BULK_BYTES else "",
            "MANY": "1" if self.many else "",
            "ODD": "1" if self.odd else "",
            "AT_ONCE": "" if self.away is None else "1",
            "AWAY": self.away or "",
            "WHOLE": "",
            "BARE": self.bare,
            "BASE_TREE": self.base_tree,
            "HARD": "1" if self.links == "hard" else "",
            "ID": self.release,
            "TREE": self.tree,
            "SHAPE": self.shape,
            "SHAPE_SHARED": self.shape_shared,
            "MODES": self.modes,
            "ARTIFACT": self.artifact,
            "SIZE": str(self.size_bytes),
            "SHA": self.sha256,
            "BASE": self.base,
        }


def check_space(facts: Facts, plan: Plan, root: str, *, joins: bool = False) -> None:
    """Raise HostError NO_SPACE when artifact and unpacked tree do not fit, before a byte is sent.

    Files that travel as they are need no room twice, but for one slice where the host `joins` them.
    """
    twice_bytes = plan.bare_bytes - (plan.slice_bytes if joins else 0)
    need_kib = room_kib(plan.size_bytes + plan.unpacked_bytes - twice_bytes, plan.entries)
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


def room_kib(size_bytes: int, entries: int) -> int:
    """Return what is asked for, so that so much content in so many files fits."""
    return int(size_bytes * SPARE / KIB) + 4 * entries


def _megabytes(kib: int) -> str:
    return f"{kib * KIB / 1e6:.1f} MB"
