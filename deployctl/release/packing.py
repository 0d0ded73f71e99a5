"""The packer: a forked process that walks, hashes and compresses SOURCE while the parent waits for hosts.

packer → parent: walked, part, hashed, packed, useless, refused        parent → packer: hash, pack

Owns its end of that conversation, the parent's is in packer.py; how a tree is packed is the artifact room's. The whole is packed in the same pass that
hashes, unless a delta is expected; then it is packed only when asked for. Of a large tree, each part is announced once it is written.
What was packed is kept for patches of later releases while nothing is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from deployctl.artifact.bare import places
from deployctl.artifact.delta import Delta, compare, pack_delta
from deployctl.artifact.digests import Digests
from deployctl.artifact.kept import Kept
from deployctl.artifact.local import Part, disk_errors
from deployctl.artifact.manifest import Entry, Manifest, shape_digest, sizes_digest
from deployctl.artifact.pack import Artifact, Packed, link_texts, pack, read_manifest
from deployctl.artifact.patch import Patch, make_patch
from deployctl.artifact.source import open_source
from deployctl.artifact.transcode import transcode
from deployctl.artifact.walk import Walked, walk
from deployctl.engine.child import Line, Message
from deployctl.errors import SourceError
from deployctl.host.layout import delta_stem, list_of_parts, shared_links
from deployctl.model import Shared
from deployctl.release.plan import WHOLE

# Of content, from which on parts are announced: what is less is packed while hosts are probed.
EARLY_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be packed, and how."""

    path: Path
    ref: str | None = None
    exclude: Sequence[str] = ()
    shared: Shared = field(default_factory=Shared)
    allow_empty: bool = False
    trusts_cache: bool = True  # of digests of files that did not change
    keeps: bool = True  # contents of large files, for patches
    expects_delta: bool = (
        False  # hosts probably hold something to build upon: hash, and wait for what is wanted
    )


class _DroppedError(Exception):
    """The whole is not wanted after all."""


def packer(source: Source, workdir: Path) -> Callable[[Line], None]:
    """Return the servant that packs `source` into `workdir`."""
    cache = user_cache_path("deployctl") / "digests"

    def serve(line: Line) -> None:
        try:
            with open_source(source.path, source.ref, workdir) as opened:
                walked = walk(
                    opened.path,
                    name=opened.name,
                    exclude=source.exclude,
                    shared=source.shared,
                    allow_empty=source.allow_empty,
                )
                warnings = [*opened.warnings, *walked.warnings]
                size = {"size_bytes": walked.size_bytes, "entries": len(walked.entries)}
                line.send({"event": "walked", "warnings": warnings, **size})
                known = source.trusts_cache and opened.path == source.path
                digests = Digests(cache, source.path) if known else None
                try:
                    _Packing(source, workdir, line, walked, digests).serve(opened.describe)
                except SourceError:
                    if digests is not None:
                        digests.forget()  # what it says may be why
                    raise
        except SourceError as error:
            line.send({"event": "refused", "problems": list(error.problems), "hint": error.hint})

    return serve


class _Packing:
    """The packer's side, once SOURCE was walked."""

    def __init__(
        self, source: Source, workdir: Path, line: Line, walked: Walked, digests: Digests | None
    ) -> None:
        self._source = source
        self._digests = digests
        self._workdir = workdir
        self._line = line
        self._walked = walked
        self._threads = os.cpu_count() or 1
        self._packed: dict[str, Packed] = {}  # by key of the group, WHOLE for the whole
        self._counts: dict[str, dict[str, Any]] = {}
        self._kept = Kept(user_cache_path("deployctl") / "contents")
        self._patches: dict[tuple[bytes, str], Patch | None] = {}  # by path and what it was
        self._sent: list[Entry] = []  # in deltas: what changed now is likely to change again
        self._announced = 0
        self._growing = workdir / "growing"

    def serve(self, commit: str | None) -> None:
        manifest = self._hash()
        with disk_errors(self._workdir):
            (self._workdir / "manifest").write_bytes(manifest.to_bytes())
        self._line.send({"event": "hashed", "commit": commit, **self._summary(manifest)})
        if self._digests is not None:
            self._digests.keep(self._walked, manifest.entries)
        if WHOLE in self._packed:
            self._say_packed(WHOLE, self._packed[WHOLE].artifact)
        keeping = self._keep(manifest)
        while (command := self._next(keeping)) is not None:
            if command["do"] == "pack":
                self._pack(manifest, command)

    def _next(self, keeping: Iterator[None]) -> Message | None:
        """The next command, None at the end; until it comes, and once something is packed, go on with `keeping`."""
        while self._packed:
            with contextlib.suppress(queue.Empty):
                return self._line.receive(timeout_s=0)
            if next(keeping, self) is self:
                break
        return self._line.receive()

    def _keep(self, manifest: Manifest) -> Iterator[None]:
        if self._source.keeps:
            yield from self._kept.keep(self._walked, [*self._sent, *manifest.entries])

    def _hash(self) -> Manifest:
        """Hash everything; pack it in the same pass, unless the whole is not expected, or turns out not to be wanted."""
        if not self._source.expects_delta:
            try:
                large = self._walked.size_bytes >= EARLY_BYTES
                packed = pack(
                    self._walked,
                    self._workdir,
                    threads=self._threads,
                    on_progress=self._look,
                    on_part=self._announce if large else None,
                )
            except _DroppedError:
                pass
            else:
                for part in packed.artifact.parts[self._announced :] if self._announced else ():
                    self._announce(packed.artifact.path, part)
                self._keep_whole(packed)
                return packed.manifest
        return read_manifest(self._walked, self._digests)

    def _announce(self, file: Path, part: Part) -> None:
        """Say that so much more of the whole can be read; that the rest has come is said by `hashed`."""
        if not self._announced:
            with contextlib.suppress(OSError):  # no links here: then nobody can follow
                os.link(file, self._growing)  # the file itself is about to get another name
        if self._growing.exists():
            self._announced += 1
            self._line.send({"event": "part", "path": str(self._growing), "part": list(part)})

    def _look(self, done_bytes: int, total_bytes: int) -> None:
        """Whether the parent has dropped the whole meanwhile; one that is nearly packed is packed."""
        try:
            command = self._line.receive(timeout_s=0)
        except queue.Empty:
            return
        if command is not None and done_bytes < total_bytes / 2:
            raise _DroppedError

    def _pack(self, manifest: Manifest, command: Message) -> None:
        key = command["key"]
        if key not in self._packed and not self._pack_first(manifest, key, command.get("base")):
            self._line.send({"event": "useless", "key": key})
            return
        packed = self._packed[key]
        artifact = packed.artifact
        if command["codec"] != artifact.codec:
            artifact = transcode(packed, command["codec"], self._workdir, threads=self._threads)
        self._say_packed(key, artifact)

    def _pack_first(self, manifest: Manifest, key: str, base: Mapping[str, Any] | None) -> bool:
        """Pack the whole, or the delta upon `base`; False if that is not worth it."""
        if base is None:
            packed = pack(self._walked, self._workdir, threads=self._threads)
            if packed.manifest != manifest:
                raise SourceError("SOURCE changed while it was packed")
            self._keep_whole(packed)
            return True
        try:
            text = Path(base["file"]).read_bytes()
            old = Manifest.from_bytes(text)
        except (OSError, ValueError):
            return False
        digest = hashlib.sha256(text).hexdigest()
        if digest != base["digest"]:
            return False
        delta = compare(old, manifest, base["unusable"])
        if base["patches"]:
            delta = delta.with_patches(self._make_patches(delta))
        if not delta.worth:
            return False
        self._sent += delta.sent
        # Without a patch it is the one that hosts get for which none could be made.
        same = delta_stem("", digest, base["unusable"], patches=bool(delta.patches))
        if same not in self._packed:
            self._packed[same] = pack_delta(
                self._walked, delta, f"{manifest.digest}{same}", self._workdir, threads=self._threads
            )
            patched = {
                "patched": len(delta.patches),
                "patched_bytes": delta.patched_bytes,
                "away": delta.away_names,
            }
            self._counts[same] = {"files": delta.files, "entries": delta.entries, **patched}
        self._packed[key], self._counts[key] = self._packed[same], self._counts[same]
        return True

    def _make_patches(self, delta: Delta) -> dict[bytes, Patch]:
        """Patches of the large files whose old content is kept here, where they pay."""
        found = {entry.path: entry for entry in self._walked.entries}
        patches: dict[bytes, Patch] = {}
        for path, before in delta.before.items():
            key = path, before.sha256
            if key not in self._patches:
                old = self._kept.find(before.sha256, before.size)
                spool = self._workdir / f"patch-{len(self._patches)}"
                self._patches[key] = (
                    make_patch(self._walked, found[path], old, before, spool) if old else None
                )
            if patch := self._patches[key]:
                patches[path] = patch
        return patches

    def _keep_whole(self, packed: Packed) -> None:
        self._packed[WHOLE] = packed
        self._counts[WHOLE] = {"files": packed.manifest.files, "entries": len(packed.manifest.entries)}

    def _say_packed(self, key: str, artifact: Artifact) -> None:
        if len(artifact.parts) > 1:
            _write_list(artifact)
        counts = dict(self._counts[key])
        bare_bytes = sum(bare.found.size for bare in artifact.bare)
        archive = {
            "stem": artifact.path.name.partition(".")[0],
            "codec": artifact.codec,
            "path": str(artifact.path),
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
            "unpacked_bytes": self._packed[key].unpacked_bytes + bare_bytes + counts.pop("patched_bytes", 0),
            "parts": [part.size_bytes for part in artifact.parts],
            "bare": places(artifact.bare),
            "bare_bytes": bare_bytes,
            "slice_bytes": max([0, *(part.size_bytes for part in artifact.parts if part.bare_bytes)]),
            **counts,
        }
        self._line.send({"event": "packed", "key": key, "archive": archive})

    def _summary(self, manifest: Manifest) -> dict[str, Any]:
        shared, links = self._source.shared, link_texts(self._walked)
        modes = sorted({f"{entry.type}:{entry.mode:o}" for entry in manifest.entries if entry.type != "l"})
        if shared and "d:755" not in modes:  # directories made for links into shared
            modes.append("d:755")
        shape = shape_digest(manifest, link_texts=links)
        linked = shape_digest(manifest, shared_links(shared), link_texts=links) if shared else shape
        return {
            "tree": manifest.digest,
            "shape": shape,
            "shape_shared": linked,
            "sizes": sizes_digest(manifest, link_texts=links),
            "modes": " ".join(modes),
            "entries": len(manifest.entries),
            "unpacked_bytes": manifest.size_bytes,
            "odd": manifest.odd or any(b"\n" in text or b"\x01" in text for text in links.values()),
        }


def _write_list(artifact: Artifact) -> None:
    """Once, and whole from the first moment: a worker may be reading it when the artifact is told of again."""
    path = list_of_parts(artifact.path)
    if not path.exists():
        new = path.with_name(f".new-{path.name}")
        with disk_errors(path.parent):
            new.write_text("".join(" ".join(map(str, part)) + "\n" for part in artifact.parts), "ascii")
            new.replace(path)
