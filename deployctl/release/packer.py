"""The parent's end of the conversation with the packer: what was asked for, and what has come.

What the two say to each other stands in packing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployctl.engine.child import Message
from deployctl.engine.crew import Crew
from deployctl.errors import DEFECT_HINT, DeployctlError, SourceError
from deployctl.host.layout import artifact_name, parts_name
from deployctl.release import packing
from deployctl.release.events import Events
from deployctl.release.packing import Source
from deployctl.release.plan import WHOLE, Archive, Group, Tree

STARVED_HINT = "packing needs memory and space: close other programs, or raise the limit of this run (ulimit -v, its container)"


class Growing:
    """The whole while it is packed: its path and its parts so far. Whoever `follows` is told what is new."""

    def __init__(self) -> None:
        self.path = ""
        self.parts: list[Sequence[Any]] = []  # as in artifact/local.py
        self.whole = False
        self.name = ""  # of the directory of its parts on hosts
        self.follows: Callable[[Mapping[str, Any]], None] | None = None

    def grow(self, path: str, part: Sequence[Any]) -> None:
        self.path = path
        self.parts.append(part)
        self._tell([part])

    def end(self, tree: str) -> None:
        self.whole = bool(self.parts)
        self.name = parts_name(artifact_name(tree, "zstd"))
        self._tell([])

    def _tell(self, parts: Sequence[Sequence[Any]]) -> None:
        if self.follows and self.parts:
            self.follows({"parts": parts, "whole": self.whole, "name": self.name})


class Packer:
    """The parent's side; `archives` fills as they are ready, by key of the group and codec."""

    def __init__(self, crew: Crew, events: Events, source: Source, workdir: Path) -> None:
        self._crew = crew
        self._events = events
        self._source = source
        self._worker = crew.hire(packing.packer(source, workdir), role="packer")
        self._wanted: set[tuple[str, str]] = set()
        self.manifest_file = workdir / "manifest"
        self._ended = False  # it has failed, or died when nothing was wanted of it
        self.walked = False
        self.size = (0, 0)  # bytes of content and entries, once it was walked
        self.growing = Growing()
        self.tree: Tree | None = None
        self.archives: dict[tuple[str, str], Archive] = {}
        self.useless: set[str] = set()

    def owns(self, worker: int) -> bool:
        return worker == self._worker

    def hear(self, message: Message, died: str | None) -> None:
        """Take what the packer said; SourceError when it refused SOURCE, or died and something is wanted of it."""
        if self._ended:
            return  # how, was told
        if died is not None:
            self._ended = True
            if self._owes():
                raise SourceError(f"the packer {died}", hint=STARVED_HINT)
        else:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message["event"]:
            case "walked":
                self.walked = True
                self.size = (message["size_bytes"], message["entries"])
                for warning in message["warnings"]:
                    self._events.note("warning", warning)
            case "part":
                self.growing.grow(message["path"], message["part"])
            case "hashed":
                self.growing.end(message["tree"])
                keys = (
                    "shape",
                    "shape_shared",
                    "sizes",
                    "modes",
                    "entries",
                    "unpacked_bytes",
                    "commit",
                    "odd",
                )
                self.tree = Tree(digest=message["tree"], **{key: message[key] for key in keys})
            case "packed":
                archive = Archive(**message["archive"])
                self.archives[message["key"], archive.codec] = archive
            case "useless":
                self.useless.add(message["key"])
            case "refused":
                self._ended = True
                raise SourceError(message["problems"], hint=message["hint"])
            case "crashed" if message["starved"]:
                self._ended = True
                said = f"no memory to pack SOURCE with on this machine: {message['message']}"
                raise SourceError(said, hint=STARVED_HINT)
            case _:
                self._ended = True
                raise DeployctlError(f"packing failed: {message.get('message', message)}", hint=DEFECT_HINT)

    def _owes(self) -> bool:
        """Whether something that was wanted of it has not come yet."""
        here = {*self.archives, *((key, codec) for key, codec in self._wanted if key in self.useless)}
        return self.tree is None or not here >= self._wanted

    @property
    def announces(self) -> bool:
        """Whether parts of the whole are told of before it is packed."""
        return self.size[0] >= packing.EARLY_BYTES and not self._source.expects_delta

    def drop_whole(self) -> None:
        """No host is likely to need the whole: unless it is nearly packed, leave it until it is asked for."""
        if self.tree is None and not self._source.expects_delta:
            self._crew.send(self._worker, {"do": "hash"})

    def want(self, codec: str, group: Group | None = None) -> None:
        """Ask for the whole or a group's delta; it arrives in `archives`, or its key in `useless`."""
        key = group.key if group else WHOLE
        if (key, codec) in self.archives or (key, codec) in self._wanted:
            return
        if self._ended:
            raise SourceError("the packer is gone, and another archive is wanted", hint=STARVED_HINT)
        self._wanted.add((key, codec))
        base = None
        if group:
            unusable = list(group.unusable)
            base = {
                "digest": group.base,
                "file": group.file,
                "unusable": unusable,
                "patches": group.patches,
            }
        self._crew.send(self._worker, {"do": "pack", "key": key, "codec": codec, "base": base})

    def ready(self, codec: str, group: Group | None = None) -> bool:
        key = group.key if group else WHOLE
        return key in self.useless or (key, codec) in self.archives
