"""What a probe found on a host, as plain data; reading it is pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from deployctl.errors import Code, HostError
from deployctl.host.layout import ARTIFACT, LAYOUT_VERSION, RELEASE_ID, live_id, numbers_of
from deployctl.host.script import Answer, number

NEEDED = ("scp", "tar", "find", "awk", "readlink")
PACKAGES = {"scp": "openssh-client", "find": "findutils", "readlink": "coreutils", "sha256sum": "coreutils"}


@dataclass(frozen=True, slots=True)
class Facts:
    """One host before anything was changed on it; sizes in KiB, None where the host could not tell."""

    current: str | None  # exact text of the link
    confirmed: bool  # the live release was confirmed there
    manifests: Mapping[str, str]  # release id to the digest of its manifest, for releases that are there
    activated: tuple[str, ...]  # ids that were live once, as far as the recent history tells
    releases: tuple[str, ...]
    artifacts: tuple[str, ...]  # proven artifacts by file name
    zstd: bool
    gzip: bool
    able: str  # what its tools can do beyond POSIX, as remote.sh names it
    free_kib: int | None
    free_inodes: int | None
    nearest: str  # the deploy root, or the nearest directory above that exists
    base: str = ""  # the release there that a delta can build upon, when a push asked for it
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # numbers of proven ones, by artifact
    whole: bool = False  # nothing came, went or changed in it since its files were proven
    unusable: tuple[str, ...] = ()  # escaped names of files in it that are not as its manifest says
    untouched: bool = (
        False  # nothing in the live release is newer than its manifest, no file other than recorded
    )
    differs: bool = False  # files of the live release are not as its manifest says, whatever their times say

    @property
    def live(self) -> str | None:
        """The id of the live release when it is one of ours and whole, else None."""
        release = live_id(self.current)
        return release if release in self.releases else None

    @property
    def base_digest(self) -> str | None:
        return self.manifests.get(self.base)

    @property
    def live_digest(self) -> str | None:
        return self.manifests.get(self.live or "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        lists = {key: tuple(data[key]) for key in ("activated", "releases", "artifacts", "unusable")}
        parts = {name: tuple(numbers) for name, numbers in data["parts"].items()}
        return cls(**{**data, **lists, "parts": parts})


def read_facts(answer: Answer, root: str) -> Facts:
    """Turn a probe's answer into facts; HostError when the host cannot take a release at all."""
    for refusal in unfit(answer, root):
        raise refusal
    history = parse_history(answer.all("history"))
    current = answer.one("current")
    last: dict[str, Any] = next(
        (record for record in reversed(history) if record.get("event") in {"switch", "confirm", "revert"}), {}
    )
    manifests = (line.split() for line in answer.all("manifest"))
    tools = set(answer.all("tool"))
    many = "many" in answer.all("scan")
    return Facts(
        current=current,
        confirmed=last.get("event") == "confirm" and last.get("release") == live_id(current),
        manifests={release: digest for release, digest in manifests if belongs(digest, release)},
        activated=tuple(
            dict.fromkeys(str(r["release"]) for r in history if r.get("event") in {"switch", "confirm"})
        ),
        releases=tuple(name for name in answer.all("release") if RELEASE_ID.fullmatch(name)),
        artifacts=tuple(name for name in answer.all("artifact") if ARTIFACT.fullmatch(name)),
        parts=_parts(answer.all("part")),
        zstd="zstd" in tools,
        gzip="gzip" in tools,
        able=answer.one("able") or "",
        free_kib=number(answer.one("kib")),
        free_inodes=number(answer.one("inodes")),
        nearest=answer.one("nearest") or root,
        base="" if many else answer.one("base") or "",
        whole="whole" in answer.all("scan"),
        unusable=() if many else tuple(sorted(set(answer.all("unusable")))),
        differs=bool(answer.all("unusable")) and answer.one("base") == live_id(current),
        untouched=answer.one("untouched") is not None and answer.one("untouched") == live_id(current),
    )


def _parts(lines: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Turn `ARTIFACT.parts/N` and `ARTIFACT.parts/N-M` into the numbers of each artifact."""
    found: dict[str, tuple[int, ...]] = {}
    for line in lines:
        directory, _, name = line.partition("/")
        artifact = directory.removesuffix(".parts")
        if ARTIFACT.fullmatch(artifact):
            found[artifact] = (*found.get(artifact, ()), *numbers_of(name))
    return found


def belongs(digest: str, release: str) -> bool:
    """Whether a manifest with this digest can be that release's: a damaged one is none."""
    return bool(RELEASE_ID.fullmatch(release)) and digest.startswith(release[-8:])


def parse_history(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of a host's history; a torn one, as a crash leaves it, is passed over, what follows on its line is not."""
    records = []
    for line in lines:
        try:
            record = json.loads(line[max(0, line.rfind('{"schema"')) :])
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("release"), str):
            records.append(record)
    return records


def _not_writable(path: str, user: str) -> HostError:
    if user == "root":
        message = f"{path} is not writable, not even for root: its file system is read-only, or it was made immutable"
        hint = f"see there: findmnt -T {path}; lsattr -d {path}"
    else:
        message = f"{path} is not writable for {user}"
        hint = f"give it to the login user there: chown {user} {path}"
    return HostError(Code.NOT_PERMITTED, message, hint=hint, data={"check": "rights"})


def unfit(answer: Answer, root: str) -> Iterator[HostError]:
    """Yield each reason for which the host cannot take a release; `data["check"]` says what was looked at."""
    tools = set(answer.all("tool"))
    missing = [tool for tool in NEEDED if tool not in tools]
    if not tools & {"sha256sum", "shasum"}:
        missing.append("sha256sum")
    if not tools & {"gzip", "zstd"}:
        missing.append("gzip")
    if missing:
        names = ", ".join(missing)
        packages = " ".join(dict.fromkeys(PACKAGES.get(tool, tool) for tool in missing))
        yield HostError(
            Code.TOOL_MISSING,
            f"{names} {'is' if len(missing) == 1 else 'are'} missing on the host",
            hint=f"install there, on Debian for instance: apt-get install {packages}",
            data={"check": "tools"},
        )
    if (version := answer.one("version")) and number(version) != LAYOUT_VERSION:
        yield HostError(
            Code.NOT_PERMITTED,
            f"{root}/.deployctl/version is {version}, this deployctl knows {LAYOUT_VERSION}",
            hint="a newer deployctl released here: use that version or a newer one",
            data={"check": "layout"},
        )
    if path := answer.one("leads_away"):
        yield HostError(
            Code.NOT_PERMITTED,
            f"{path} is a link: releases are moved into place by a rename, which can't follow it",
            hint="give `path` in the inventory as the place it leads to",
            data={"check": "layout"},
        )
    if kind := answer.one("current_is"):
        yield HostError(
            Code.NOT_PERMITTED,
            f"{root}/current is a {kind}, not a link",
            hint=f"move it away (mv {root}/current {root}/current.before): deployctl makes it a link to the release",
            data={"check": "current"},
        )
    if path := answer.one("not_a_directory"):
        yield HostError(Code.NOT_PERMITTED, f"{path} is not a directory", data={"check": "rights"})
    if path := answer.one("not_a_file"):
        yield HostError(
            Code.NOT_PERMITTED,
            f"{path} is not a file: no switch can be written down there",
            hint=f"move it away (mv {path} {path}.before): deployctl begins a new one",
            data={"check": "layout"},
        )
    for path in answer.all("read_only")[:1]:
        yield _not_writable(path, answer.one("user") or "the login user")
