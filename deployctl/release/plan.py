"""Which release id, and how each host comes to hold it; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployctl.host.facts import Facts
from deployctl.host.layout import artifact_name, delta_stem, parts_name
from deployctl.host.plan import Action, Plan


@dataclass(frozen=True, slots=True)
class Tree:
    """What the packer said of the packed tree."""

    digest: str
    shape: str
    shape_shared: str
    sizes: str
    modes: str
    entries: int
    unpacked_bytes: int
    commit: str | None
    odd: bool = False  # a name or the text of a link holds a newline


MANY_ENTRIES = 2000  # from here on a host does better to look how it copies best
WHOLE = ""  # the key of the artifact that holds everything


@dataclass(frozen=True, slots=True)
class Archive:
    """One packed artifact on this machine: the whole, or a delta.

    `stem` names it on hosts; `files` is how many travel, `patched` of them as patches; `entries` and `unpacked_bytes` what comes of
    it on a disk.
    """

    stem: str
    codec: str
    path: str
    size_bytes: int
    sha256: str
    files: int
    entries: int
    unpacked_bytes: int
    parts: Sequence[int]  # bytes of each that it travels in; their digests are in a file beside it
    patched: int = 0
    bare: str = ""  # files in it that travel as they are, a line each
    bare_bytes: int = 0
    slice_bytes: int = 0  # of them, the largest
    away: str | None = None  # of a delta that is unpacked at once: what goes from the copy before


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts that get the same delta: they hold a release with the same manifest, of which the same is unusable, and have the same tools."""

    base: str  # digest of that manifest
    unusable: tuple[str, ...]
    file: str = ""  # where the manifest is on this machine
    patches: bool = (
        False  # large files may come as patches: there is zstd, of which any version can apply them
    )

    @property
    def key(self) -> str:
        return self.stem("")

    def stem(self, tree: str) -> str:
        return delta_stem(tree, self.base, self.unusable, patches=self.patches)


@dataclass(frozen=True, slots=True)
class Choice:
    """One id for all hosts, and for each the action that costs least; `bases` are the releases to copy."""

    release: str
    actions: Mapping[str, Action]
    bases: Mapping[str, str]


def choose(
    facts: Mapping[str, Facts],
    tree: str,
    *,
    now: datetime,
    edited: Collection[str] = (),
    force: bool = False,
    known: str | None = None,
) -> Choice:
    """Choose for hosts that were all probed; `edited` are those whose live release is no longer what was deployed.

    A tree that is live somewhere keeps its id, so that a lagging host joins it; so does one that was staged and never
    live, and one that is `known` to be this tree's elsewhere, so that a new host can join alone. Otherwise, or with `force`, or
    where a host must get a fresh copy of what it serves, the id is new.
    """
    live = [each.live for each in facts.values() if each.live_digest == tree]
    if force or edited:
        release = new_id(facts, tree, now)
    elif live:
        release = max(Counter(live).items(), key=lambda item: (item[1], item[0] or ""))[0] or ""
    else:
        staged = {release for each in facts.values() for release in _never_live(each, tree)}
        staged |= {known} if known else set()
        staged -= {release for each in facts.values() for release in each.activated}
        release = max(staged, default="") or new_id(facts, tree, now)
    fresh = force or bool(edited)
    if any(release in each.releases and each.manifests.get(release) != tree for each in facts.values()):
        release, fresh = new_id(facts, tree, now), True  # a host has it without a manifest that proves it
    actions, bases = {}, {}
    for host, each in facts.items():
        actions[host], base = action_for(each, release, tree, fresh=fresh)
        if base:
            bases[host] = base
    return Choice(release, actions, bases)


def _never_live(facts: Facts, tree: str) -> list[str]:
    return [
        release for release, digest in facts.manifests.items() if digest == tree and release != facts.live
    ]


def action_for(facts: Facts, release: str, tree: str, *, fresh: bool) -> tuple[Action, str | None]:
    """Return the cheapest way for one host, and the release to copy when it is COPY."""
    if facts.live_digest == tree and not fresh:
        if facts.confirmed:
            return Action.UNCHANGED, None
        if facts.live == release:
            return Action.CONFIRM, None
    if facts.manifests.get(release) == tree:
        return Action.REUSE, None
    twins = sorted(name for name, digest in facts.manifests.items() if digest == tree)
    if twins:
        return Action.COPY, twins[-1]
    names = {artifact_name(tree, codec) for codec in codecs(facts)}
    if names & set(facts.artifacts):
        return Action.ARTIFACT, None
    return Action.UPLOAD, None


def codecs(facts: Facts) -> list[str]:
    """Return the codecs a host can unpack, the better one first."""
    return ["zstd"] * facts.zstd + ["gzip"] * facts.gzip


def codec_for(facts: Facts, stem: str) -> str:
    """Return the codec to send: one whose artifact is there already, else the better one."""
    able = codecs(facts)
    return next((codec for codec in able if artifact_name(stem, codec) in facts.artifacts), able[0])


def group_of(facts: Facts | None) -> Group | None:
    """Return the group of a host that holds something a delta can build upon."""
    if facts is None or facts.base_digest is None:
        return None
    return Group(facts.base_digest, facts.unusable, patches=facts.zstd)


def new_id(facts: Mapping[str, Facts], tree: str, now: datetime) -> str:
    """Return `YYYYMMDDTHHMMSSZ-<digest8>` of now, or of the first later second of which no host has a release.

    So the order of ids is that of the releases, also where one follows the other at once.
    """
    known = (name for each in facts.values() for name in (*each.releases, *each.manifests, *each.activated))
    taken = {release.partition("-")[0] for release in known}
    while (second := f"{now:%Y%m%dT%H%M%SZ}") in taken:
        now += timedelta(seconds=1)
    return f"{second}-{tree[:8]}"


def allowed_failures(text: str | None, hosts: int) -> int:
    """Turn `--max-failures` into a number of hosts; percent are of the selected hosts, rounded down. ValueError."""
    if not text:
        return 0
    number = text.removesuffix("%")
    if not number.isdigit() or (text.endswith("%") and int(number) > 100):
        raise ValueError(f"{text!r} is neither a number of hosts nor a percentage")
    return int(number) * hosts // 100 if text.endswith("%") else int(number)


def stage_plan(
    action: Action,
    release: str,
    tree: Tree,
    *,
    artifact: str = "",
    archive: Archive | None = None,
    base: tuple[str, str] = ("", ""),
    links: str = "copy",
    there: Collection[int] = (),
) -> Plan:
    """Return what one host's worker needs to stage the release; `archive` is to be sent, `artifact` is there already.

    `base` is the id and the digest of the release to copy or to build upon, `there` are the parts that need not be sent.
    """
    several = archive is not None and len(archive.parts) > 1
    if archive:
        artifact = artifact_name(archive.stem, archive.codec)
    linked = archive if links == "hard" else None  # then what is not sent takes no space
    return Plan(
        action=action,
        release=release,
        tree=tree.digest,
        shape=tree.shape,
        shape_shared=tree.shape_shared,
        sizes=tree.sizes,
        modes=tree.modes,
        unpacked_bytes=linked.unpacked_bytes if linked else tree.unpacked_bytes,
        entries=linked.entries if linked else tree.entries,
        artifact=parts_name(artifact) if several else artifact,
        path=archive.path if archive else "",
        size_bytes=archive.size_bytes - (_size(archive, there) if several else 0) if archive else 0,
        bare=archive.bare if archive else "",
        bare_bytes=archive.bare_bytes if archive else 0,
        slice_bytes=archive.slice_bytes if archive else 0,
        sha256=archive.sha256 if archive else "",
        files=archive.files if archive else 0,
        patched=archive.patched if archive else 0,
        parts=len(archive.parts) if archive else 1,
        base=base[0],
        base_tree=base[1],
        links=links,
        odd=tree.odd,
        away=archive.away if archive else None,
        content_bytes=archive.unpacked_bytes if archive else tree.unpacked_bytes,
        many=tree.entries > MANY_ENTRIES,
    )


def _size(archive: Archive, numbers: Collection[int]) -> int:
    """Return the bytes of these parts, which count from 1."""
    return sum(size_bytes for number, size_bytes in enumerate(archive.parts, 1) if number in numbers)
