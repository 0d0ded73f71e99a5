"""The packer: a forked process that walks, hashes and compresses SOURCE while the parent waits for hosts.

    packer → parent: walked, packed, transcoded, refused        parent → packer: {"do": "transcode", "codec": …}

Owns that conversation, both ends; how a tree is packed is the artifact room's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployctl.artifact.manifest import shape_digest
from deployctl.artifact.pack import Artifact, Packed, pack
from deployctl.artifact.source import open_source
from deployctl.artifact.transcode import transcode
from deployctl.artifact.walk import walk
from deployctl.engine.child import Line, Message
from deployctl.errors import DEFECT_HINT, DeployctlError, SourceError
from deployctl.host.layout import shared_links
from deployctl.model import Shared
from deployctl.release.loop import Loop
from deployctl.release.plan import Archive, Tree


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be packed, and how."""

    path: Path
    ref: str | None = None
    exclude: Sequence[str] = ()
    shared: Shared = field(default_factory=Shared)
    allow_empty: bool = False


def packer(source: Source, workdir: Path) -> Callable[[Line], None]:
    """Return the servant that packs `source` into `workdir`."""

    def serve(line: Line) -> None:
        try:
            _serve(source, workdir, line)
        except SourceError as error:
            line.send({"event": "refused", "problems": list(error.problems), "hint": error.hint})

    return serve


def _serve(source: Source, workdir: Path, line: Line) -> None:
    threads = os.cpu_count() or 1
    with open_source(source.path, source.ref, workdir) as opened:
        walked = walk(
            opened.path,
            name=opened.name,
            exclude=source.exclude,
            shared=source.shared,
            allow_empty=source.allow_empty,
        )
        line.send({"event": "walked", "warnings": [*opened.warnings, *walked.warnings]})
        packed = pack(walked, workdir, threads=threads)
        (workdir / "manifest").write_bytes(packed.manifest.to_bytes())
        line.send({"event": "packed", "commit": opened.describe, **_summary(packed, source.shared)})
        while (command := line.receive()) is not None:
            artifact = transcode(packed, command["codec"], workdir, threads=threads)
            line.send({"event": "transcoded", "archive": _archive(artifact)})


def _archive(artifact: Artifact) -> dict[str, Any]:
    return {
        "codec": artifact.codec,
        "path": str(artifact.path),
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
    }


def _summary(packed: Packed, shared: Shared) -> dict[str, Any]:
    manifest = packed.manifest
    modes = sorted({f"{entry.type}:{entry.mode:o}" for entry in manifest.entries if entry.type != "l"})
    if shared and "d:755" not in modes:  # directories made for links into shared
        modes.append("d:755")
    return {
        "tree": manifest.digest,
        "shape": shape_digest(manifest, link_texts=packed.links),
        "shape_shared": shape_digest(manifest, shared_links(shared), link_texts=packed.links),
        "modes": " ".join(modes),
        "entries": len(manifest.entries),
        "unpacked_bytes": manifest.size_bytes,
        "archive": _archive(packed.artifact),
    }


class Packer:
    """The parent's side; `archives` fills as they are ready."""

    def __init__(self, loop: Loop, source: Source, workdir: Path) -> None:
        self._loop = loop
        self._worker = loop.crew.hire(packer(source, workdir), role="packer")
        self._wanted: set[str] = set()
        self.manifest_file = workdir / "manifest"
        self.walked = False
        self.tree: Tree | None = None
        self.archives: dict[str, Archive] = {}

    def owns(self, worker: int) -> bool:
        return worker == self._worker

    def hear(self, message: Message, died: str | None) -> None:
        """Take what the packer said; SourceError when it refused SOURCE or died."""
        if died is not None:
            raise SourceError(f"the packer {died}", hint="see that this machine has enough memory and space")
        match message["event"]:
            case "walked":
                self.walked = True
                for warning in message["warnings"]:
                    self._loop.events.note("warning", warning)
            case "packed":
                keys = ("shape", "shape_shared", "modes", "entries", "unpacked_bytes", "commit")
                self.tree = Tree(digest=message["tree"], **{key: message[key] for key in keys})
                self._add(message["archive"])
            case "transcoded":
                self._add(message["archive"])
            case "refused":
                raise SourceError(message["problems"], hint=message["hint"])
            case _:
                raise DeployctlError(f"packing failed: {message.get('message', message)}", hint=DEFECT_HINT)

    def _add(self, archive: Message) -> None:
        self.archives[archive["codec"]] = Archive(**archive)

    def want(self, codec: str) -> None:
        """Ask for an archive in another codec; it arrives in `archives`."""
        if codec not in self.archives and codec not in self._wanted:
            self._wanted.add(codec)
            self._loop.crew.send(self._worker, {"do": "transcode", "codec": codec})
