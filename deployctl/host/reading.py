"""What a host tells of its releases when it is only asked: which were live when, and how a release differs from its manifest.

Owns the reading of a host's history and of a comparison; both are pure, the steps at the end run the remote commands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from deployctl.engine.child import Message
from deployctl.host.facts import parse_history
from deployctl.host.layout import shared_links
from deployctl.host.operation import Operation
from deployctl.host.script import Answer
from deployctl.host.session import Session
from deployctl.model import Phase, Shared

HISTORY_LINES = 1000  # of a host's history, read from its end
MOST_NAMES = 200  # of each kind of difference; beyond it they are counted
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Activation:
    """One time that a release went live on a host; `record` is the line of its switch."""

    release: str
    confirmed: bool
    record: Record

    def to_json(self) -> dict[str, Any]:
        return {"release": self.release, "confirmed": self.confirmed, "record": dict(self.record)}


def activations(records: Iterable[Record]) -> list[Activation]:
    """Return every activation that was not taken back, in their order."""
    found: list[Activation] = []
    for record in records:
        release = record["release"]
        at = next((i for i in reversed(range(len(found))) if found[i].release == release), None)
        match record.get("event"):
            case "switch":
                found.append(Activation(release, confirmed=False, record=record))
            case "confirm" if at is not None:
                message = {key: record[key] for key in ("message",) if key in record}
                found[at] = Activation(release, confirmed=True, record={**found[at].record, **message})
            case "confirm":  # its switch is beyond what was read
                found.append(Activation(release, confirmed=True, record=record))
            case "revert" if at is not None and not found[at].confirmed:
                del found[at]
            case _:
                pass
    return found


def last_of(found: Sequence[Activation], release: str | None) -> Activation | None:
    """Return the last activation of `release`."""
    return next((each for each in reversed(found) if each.release == release), None)


def release_before(found: Sequence[Activation], live: str | None) -> str | None:
    """Return the confirmed release that was live before `live`, by the order of activation; None when there is none."""
    last = last_of(found, live)
    earlier = found if last is None else found[: max(i for i, each in enumerate(found) if each is last)]
    return next((a.release for a in reversed(earlier) if a.confirmed and a.release != live), None)


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands on one host: its activations, who holds its lock, its releases' sizes, the end of its history."""

    current: str | None = None
    activations: tuple[Activation, ...] = ()
    held: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    confirmed_at: str = ""  # when a release was last confirmed there
    records: Sequence[Record] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        found = tuple(Activation(**each) for each in data["activations"])
        return cls(**{**data, "activations": found})


def read_standing(answer: Answer, *, keep: int) -> dict[str, Any]:
    """Turn an answer into the JSON of a Standing with the last `keep` records."""
    records = parse_history(answer.all("history"))
    pairs = (text.rpartition(" ") for text in answer.all("size"))
    return {
        "current": answer.one("current"),
        "activations": [each.to_json() for each in activations(records)],
        "held": answer.one("held"),
        "sizes": {name: int(size) for name, _, size in pairs if size.isdigit()},
        "confirmed_at": max(
            (str(r.get("ts", "")) for r in records if r.get("event") == "confirm"), default=""
        ),
        "records": records[-keep:] if keep else [],
    }


@dataclass(slots=True)
class Difference:
    """How a release differs from its manifest, by escaped path; beyond MOST_NAMES of a kind `counts` alone tell."""

    release: str
    digest: str = ""
    changed: dict[str, str] = field(default_factory=dict)  # path to what is wrong
    missing: dict[str, str] = field(default_factory=dict)  # path to what it should be
    extra: dict[str, str] = field(default_factory=dict)  # path to what it is
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def manifest_altered(self) -> bool:
        return not self.digest.startswith(self.release.rpartition("-")[2])

    @property
    def altered(self) -> bool:
        """Whether the release is not what was released; files that came in addition don't count."""
        return bool(self.changed or self.missing or self.manifest_altered)

    def told(self) -> str:
        """Return what is wrong, in a few words and names."""
        if self.manifest_altered:
            return "its manifest was altered"
        wrong = [f"{path} ({what})" for path, what in self.changed.items()]
        wrong += [f"{path} (missing)" for path in self.missing]
        count = self.counts["changed"] + self.counts["missing"]
        more = f" and {count - 3} more" if count > 3 else ""
        return ", ".join(wrong[:3]) + more

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "altered": self.altered, "told": self.told() if self.altered else None}


def read_difference(answer: Answer, release: str, shared: Shared) -> Difference:
    """Turn a comparison's answer into a difference: link texts are judged here.

    Links into `shared` are those that staging made, whatever the inventory says by now; only an older deployctl did not
    record them.
    """
    found = Difference(release, answer.one("digest") or "")
    for kind, names in (("changed", found.changed), ("missing", found.missing), ("extra", found.extra)):
        for text in answer.all(kind):
            path, _, what = text.partition("\t")
            names[path] = what
    counts = dict(text.split() for text in answer.all("count"))
    found.counts = {kind: int(counts.get(kind, 0)) for kind in ("changed", "missing", "extra")}
    _judge_links(found, answer, shared, recorded=answer.one("settled") == "whole")
    return found


def _judge_links(found: Difference, answer: Answer, shared: Shared, *, recorded: bool) -> None:
    """`recorded`: the host knows itself which links staging made, and said which of them are gone or others."""
    into_shared = {escape(path): escape(text) for path, text in shared_links(shared).items()}
    for line in answer.all("link"):
        head, _, text = line.partition("\t")
        digest, _, path = head.partition(" ")
        expected = into_shared.pop(path, None)
        if digest == "-":
            if expected is None or (recorded and expected != text):
                _add(found, "extra", path, "link")
            elif expected != text:
                _add(found, "changed", path, "link text")
        elif (not recorded and expected not in {None, text}) or digest not in digests_of(text):
            _add(found, "changed", path, "link text")
    if recorded:
        return
    for path in into_shared:
        if path in found.extra:  # something else stands where the link should be
            del found.extra[path]
            found.counts["extra"] -= 1
            _add(found, "changed", path, "is not the link into shared")
        elif path not in found.changed:
            _add(found, "missing", path, "link into shared")


def _add(found: Difference, kind: str, path: str, what: str) -> None:
    found.counts[kind] += 1
    names: dict[str, str] = getattr(found, kind)
    if len(names) < MOST_NAMES:
        names[path] = what


def escape(path: bytes) -> str:
    r"""The path as manifests write it: backslash and what is not printable ASCII as `\xHH`."""
    return "".join(chr(b) if 0x20 <= b <= 0x7E and b != 0x5C else f"\\x{b:02x}" for b in path)


def digests_of(text: str) -> set[str]:
    """Return the digests of what `escape` made `text` of; a listing tells a newline from the byte 1 no more, so of both."""
    raw = re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text).encode("latin-1", "replace")
    return {hashlib.sha256(each).hexdigest() for each in (raw, raw.replace(b"\n", b"\1"))}


def directories_above(shared: Shared) -> list[str]:
    """Return the directories that links into `shared` need, which a release need not bring itself."""
    found = set()
    for path in shared:
        while path := path.rpartition("/")[0]:
            found.add(path)
    return sorted(found)


# ---- steps --------------------------------------------------------------------------------------------------------


def standing(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """`{"keep": N}`: what stands on the host, with the last N records of its history."""
    operation.begin(Phase.PROBE, quiet=True)
    answer = session.run(operation, "standing", {"LINES": str(HISTORY_LINES)})
    return {"standing": read_standing(answer, keep=command.get("keep", 0))}


def verify(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """`{"release": ID}`: how the release differs from its manifest."""
    operation.begin(Phase.PROBE, quiet=True)
    return {"difference": _compare(session, command, operation, "verify").to_json()}


def whole(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """`{"release": ID, "force": bool}`: the same for one that shall be live again; a good or forced one is ready then."""
    operation.begin(Phase.STAGE)
    found = _compare(session, command, operation, "whole")
    if not found.altered or command["force"]:
        session.run(operation, "vouch", {"ID": command["release"], "ALTERED": "1" if found.altered else ""})
        operation.ok()
    return {"difference": found.to_json()}


def _compare(session: Session, command: Message, operation: Operation, name: str) -> Difference:
    shared = session.site.shared
    expected = "\n".join(escape(path.encode()) for path in directories_above(shared))
    values = {"ID": command["release"], "MOST": str(MOST_NAMES), "EXPECTED": expected}
    return read_difference(session.run(operation, name, values), command["release"], shared)
