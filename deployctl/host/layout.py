"""Names and paths, most of them below the deploy root of a host; pure text, no I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from deployctl.model import Shared

LAYOUT_VERSION = 1
RELEASE_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
ARTIFACT = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{64}(-[0-9a-f]{8})?(-p)?)?\.tar\.(zst|gz)")
SUFFIXES: Mapping[str, str] = {"zstd": "zst", "gzip": "gz"}


def artifact_name(stem: str, codec: str) -> str:
    """Return the name of a proven artifact in `incoming/`: its stem says what it unpacks to, a tree's digest for a whole one."""
    return f"{stem}.tar.{SUFFIXES[codec]}"


def parts_name(artifact: str) -> str:
    """Return the name of the directory in `incoming/` that holds the proven parts of an artifact, under their numbers."""
    return f"{artifact}.parts"


def early_name(run: str) -> str:
    """Return the place in `incoming/` of parts that come before anybody knows the artifact's name; stage gives it to them."""
    return parts_name(f"{run}/early.tar.zst")


def delta_stem(
    tree_digest: str, base_digest: str, unusable: Collection[str], *, patches: bool = False
) -> str:
    """Return what a delta is named by: what comes of it, what it builds upon, what of that it does not take, whether it has patches."""
    stem = f"{tree_digest}-{base_digest}"
    if unusable:
        stem += f"-{hashlib.sha256(chr(10).join(sorted(unusable)).encode()).hexdigest()[:8]}"
    return f"{stem}-p" if patches else stem


def part_path(root: str, run: str) -> str:
    """Return where one run's upload is written on one host; a run's directory is its own, so no old writer meets it."""
    return f"{root}/.deployctl/incoming/{run}/part"


def numbers_of(name: str) -> range:
    """Return the numbers of the parts that a file in such a directory holds: `N`, or `N-M` for slices of a file; none for another name."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?", name)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)


def attempt_path(root: str, run: str, name: str) -> str:
    """Return where one attempt at a part of an artifact is written on one host."""
    return f"{root}/.deployctl/incoming/{run}/{name}"


def live_release(link: str | None) -> str | None:
    """Return what `current` with this text serves, for people: the last part of the path."""
    return link.rstrip("/").rsplit("/", 1)[-1] if link else None


def live_id(link: str | None) -> str | None:
    """Return the release id when `current` with this text is a link of ours, else None."""
    name = link.removeprefix("releases/") if link and link.startswith("releases/") else ""
    return name if RELEASE_ID.fullmatch(name) else None


def shared_links(shared: Shared) -> dict[bytes, bytes]:
    """Return each link that staging adds to a release: its path to its text, relative from where it lies."""
    return {path.encode(): (way_up(path) + "shared/" + path).encode() for path in shared}


def way_up(path: str) -> str:
    """Return `../` as often as it takes from a path's directory in a release to the deploy root."""
    return "../" * (path.count("/") + 2)


def growing_name(first: int, slice_bytes: int, run: str, attempt: int) -> str:
    """Return the name of a file that comes in one go, from its slice `first` on; how many of them were proven is appended."""
    return f"new-{first}-{slice_bytes >> 20}-{run}.{attempt}"


def growing_path(root: str, artifact: str, name: str) -> str:
    """Return where it is written on one host, beside the proven parts of its artifact."""
    return f"{root}/.deployctl/incoming/{artifact}/{name}.0"


def list_of_parts(artifact: Path) -> Path:
    """Return the file on this machine that lists size and digest of an artifact's parts."""
    return artifact.with_name(f"{artifact.name}.parts")
