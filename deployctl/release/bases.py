"""What deltas are worked out against: the manifests of releases that hosts hold, from the cache here or from one host."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from deployctl.artifact.shelf import Shelf
from deployctl.inventory import Inventory
from deployctl.release.fleet import Fleet
from deployctl.release.history import read_local
from deployctl.release.member import Member


def expects_delta(inventory: Inventory) -> bool:
    """Whether this inventory's hosts are likely to hold a release that is known here."""
    file = str(inventory.file.absolute())
    digests = [
        str(record["digest"])
        for record in read_local(inventory.app)
        if record.get("inventory") == file and record.get("digest")
    ]
    return bool(digests) and _shelf().holds(digests[-1])


def _shelf() -> Shelf:
    return Shelf(user_cache_path("deployctl") / "manifests")


class Bases:
    """The manifests that the hosts of one run build upon, as files."""

    def __init__(self, fleet: Fleet, workdir: Path) -> None:
        self._fleet = fleet
        self._workdir = workdir
        self._shelf = _shelf()
        self._files: dict[str, Path] = {}

    def keep(self, manifest: bytes) -> None:
        self._shelf.put(manifest)

    def gather(self, members: Sequence[Member]) -> None:
        """Find the manifest of every base; what is not known here is fetched, each from one host that holds it."""
        holders: dict[str, Member] = {}
        for member in members:
            digest = member.facts.base_digest if member.facts else None
            if digest is None or digest in self._files or digest in holders:
                continue
            if found := self._shelf.find(digest):
                self._files[digest] = found
            else:
                holders[digest] = member
        self._fleet.each(
            "manifest",
            holders.values(),
            lambda m: {"values": {"ID": m.facts.base if m.facts else ""}},
            together=True,
            minor=True,
        )
        for digest, member in holders.items():
            data = "".join(f"{line}\n" for line in member.answer.get("lines", ())).encode()
            if hashlib.sha256(data).hexdigest() == digest:
                self._shelf.put(data)
                file = self._workdir / f"manifest-{digest}"
                with contextlib.suppress(OSError):  # without room for it those hosts get the whole
                    file.write_bytes(data)
                    self._files[digest] = file

    def file(self, digest: str | None) -> Path | None:
        return self._files.get(digest or "")
