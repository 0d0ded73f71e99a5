"""What a new tree lacks of an old one, and that as an archive: how a host makes one release of another.

Owns the choice of what travels and the layout of the archive; host/delta.sh does what it says. Deletions need no list:
only what is named is taken.

    first/edit, unusable, groups    the new manifest as lines of the old one; what not to take; modes and times of copies
    first/away                      files of the base that are to go, for a host whose base is as it was recorded
    first/took, sent, copy          content under numbers, before it gets its names
    first/patches, new, frames      large files that changed a little: how each comes of the one in the base (artifact/patch.py)
    tree/…                          every directory and link, new files, and hard links to what stands in first/

Before all that, as in a whole, new files that travel as they are.
Directories that the base should have travel too: nobody lists those that a hook or somebody removed there.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from deployctl.artifact.bare import Bare, find_bare
from deployctl.artifact.kept import LARGE_BYTES
from deployctl.artifact.local import new_file
from deployctl.artifact.manifest import Entry, Manifest, escape
from deployctl.artifact.pack import LEVEL, Artifact, Packed, Stream, processors, write_bare
from deployctl.artifact.patch import Copy, Patch, Range
from deployctl.artifact.reading import CHUNK_BYTES, changed, read_chunks, read_link
from deployctl.artifact.tarstream import END, header, padding
from deployctl.artifact.walk import Found, Walked

WORTH = 0.9  # of the whole: a delta that saves less is not worth the work on the host
_OWNER_ALL = 0o700
_ODD = b"\x01"  # stands for a newline in lists on hosts
_OWNER_READS = 0o400
MANY_BYTES = 8 << 10  # of names in a command
# A newline would part a name in two, and something else would be removed.
_SIMPLE = re.compile(rb"[\x20-\x7e]+").fullmatch
_UNIT = 4096  # what ranges of patches are multiples of
_MAX_UNIT = 1 << 20


@dataclass(frozen=True)
class Delta:
    """How `new` comes of a base: paths are of the new tree unless they are `base` paths.

    `moved` and `copied` name content of the base by a path there, `twins` content that travels by the path it is sent for. `before`
    has what a large file that is sent was in the base, `patches` those that are sent as what differs from that.
    """

    new: Manifest
    edit: bytes
    unusable: tuple[str, ...]
    away: tuple[bytes, ...]  # files of the base that are not, or not the same, in the new tree
    sent: tuple[Entry, ...]  # directories, links, and files whose content is nowhere in the base
    moved: Mapping[bytes, bytes] = field(default_factory=dict)
    copied: Mapping[bytes, bytes] = field(default_factory=dict)
    twins: Mapping[bytes, bytes] = field(default_factory=dict)
    before: Mapping[bytes, Entry] = field(default_factory=dict)
    plain: bool = False  # neither tree has a link, and no directory became anything else
    patches: Mapping[bytes, Patch] = field(default_factory=dict)

    def with_patches(self, patches: Mapping[bytes, Patch]) -> Delta:
        return replace(self, patches=patches)

    @property
    def files(self) -> int:
        """How many files' content travels."""
        return sum(entry.type == "f" for entry in self.sent)

    @property
    def entries(self) -> int:
        """How many entries the host makes; the others may be hard links."""
        return len(self.sent) + len(self.copied) + len(self.twins)

    @property
    def size_bytes(self) -> int:
        """What is to be sent, before it is compressed."""
        whole = sum(e.size for e in self.sent if e.type == "f" and e.path not in self.patches)
        return whole + sum(patch.size_bytes for patch in self.patches.values()) + len(self.edit)

    @property
    def patched_bytes(self) -> int:
        """What the host makes of patches."""
        return sum(patch.new_bytes for patch in self.patches.values())

    @property
    def away_names(self) -> str | None:
        """What goes from the copy, a line each, for a host that is told so with the command and unpacks all at once.

        None where it has to do more between two halves, or where names are many or odd.
        """
        between = self.unusable or self.moved or self.copied or self.twins or self.patches
        if between or not self.plain or not all(_SIMPLE(path) for path in self.away):
            return None
        names = b"\n".join([b"./" + path for path in self.away])
        return names.decode("ascii") if len(names) <= MANY_BYTES else None

    @property
    def worth(self) -> bool:
        """Whether it is so much smaller than the whole that it pays."""
        return self.size_bytes < WORTH * (self.new.size_bytes + 100 * len(self.new.entries))


def compare(base: Manifest, new: Manifest, unusable: Collection[str] = ()) -> Delta:
    """Work out how `new` comes of `base`, of which the escaped paths `unusable` are not what they should be."""
    lost = {escape(entry.path) for entry in base.entries if _ODD in entry.path} | set(unusable)
    usable = {e.path: e for e in base.entries if not lost or escape(e.path) not in lost}
    sources: dict[str, list[Entry]] = defaultdict(list)
    for entry in usable.values():
        if entry.type == "f" and entry.size:
            sources[entry.sha256].append(entry)
    kept = {entry.path for entry in new.entries if usable.get(entry.path) == entry}
    free = {path: entry for path, entry in usable.items() if path not in kept}
    sent: list[Entry] = []
    moved: dict[bytes, bytes] = {}
    copied: dict[bytes, bytes] = {}
    twins: dict[bytes, bytes] = {}
    first: dict[str, bytes] = {}
    for entry in new.entries:
        if entry.type != "f" or (entry.path not in kept and not entry.size):
            sent.append(entry)
        elif entry.path in kept:
            continue
        elif found := sources.get(entry.sha256):
            source = next((e for e in found if e.path in free and e.mode == entry.mode), None)
            if source is not None:
                del free[source.path]
                moved[entry.path] = source.path
            else:
                copied[entry.path] = found[0].path
        elif (twin := first.setdefault(entry.sha256, entry.path)) != entry.path:
            twins[entry.path] = twin
        else:
            sent.append(entry)
    in_base = sorted(lost & {escape(entry.path) for entry in base.entries}) if lost else []
    away = tuple([e.path for e in base.entries if e.type == "f" and e.path not in kept])
    alone = {e.path for e in sent if e.type == "f" and e.size >= LARGE_BYTES} - set(twins.values())
    before = {path: e for path in alone if (e := usable.get(path)) and _can_be_patched(e)}
    became = {e.path for e in base.entries if e.type == "d"} & {e.path for e in new.entries if e.type != "d"}
    plain = not became and not any(e.type == "l" for tree in (base, new) for e in tree.entries)
    return Delta(
        new, _edit(base, new), tuple(in_base), away, tuple(sent), moved, copied, twins, before, plain
    )


def _can_be_patched(base: Entry) -> bool:
    return base.type == "f" and base.size >= LARGE_BYTES and bool(base.mode & _OWNER_READS)


def _edit(base: Manifest, new: Manifest) -> bytes:
    """The new manifest as lines `= FROM TO` of the base's, counted from 1, and `+LINE` of its own."""
    numbers = {entry: number for number, entry in enumerate(base.entries, 1)}
    lines: list[str] = []
    begin = end = 0
    for entry in new.entries:
        number = numbers.get(entry)
        if number is not None and begin and number == end + 1:
            end = number
            continue
        if begin:
            lines.append(f"= {begin} {end}\n")
        begin = end = number or 0
        if number is None:
            lines.append(f"+{entry.line()}\n")
    if begin:
        lines.append(f"= {begin} {end}\n")
    return "".join(lines).encode("ascii")


def pack_delta(
    walked: Walked, delta: Delta, stem: str, out_dir: Path, *, threads: int | None = None
) -> Packed:
    """Write `<stem>.tar.zst` into `out_dir`. SourceError if a file can't be read or changed since it was hashed."""
    found = {entry.path: entry for entry in walked.entries}
    in_archive = {*delta.patches, *delta.twins.values()}
    alone = {entry.path: entry for entry in delta.sent if entry.path not in in_archive}
    with new_file(out_dir) as output:
        bare = find_bare(walked, [found[path] for path in alone])
        for each in bare:
            if write_bare(output, walked, each) != alone[each.path]:
                raise changed(each.path)
        with Stream(output.write, LEVEL, threads or processors()) as stream:
            for data in _pieces(walked, delta, found, {each.path for each in bare}):
                stream.write(data)
            stream.finish()
        path = output.keep_as(f"{stem}.tar.zst")
        artifact = Artifact(
            path, "zstd", output.size_bytes, output.sha256, output.parts, Bare.number(bare, output.parts)
        )
    return Packed(delta.new, delta.new.digest, artifact, stream.bytes_in, {})


def _pieces(
    walked: Walked, delta: Delta, found: Mapping[bytes, Found], bare: Collection[bytes]
) -> Iterator[bytes]:
    modes = {entry.path: entry.mode for entry in delta.new.entries}
    places: dict[bytes, bytes] = {}  # of what gets its name by a hard link: where it stands before
    yield header("d", b"first", mode=0o755)
    yield _text(b"first/edit", delta.edit)
    yield _text(b"first/unusable", "".join(f"{name}\n" for name in delta.unusable).encode("ascii"))
    yield _text(b"first/away", b"".join([b"./%s\0" % path for path in delta.away]))
    yield header("d", b"first/took", mode=0o755)
    for number, (path, source) in enumerate(delta.moved.items()):
        places[path] = b"first/took/%d" % number
        yield header("hard link", places[path], mode=modes[path], link=b"tree/" + source)
    yield from _sent_twins(walked, delta, found, places)
    yield from _copies(delta, found, modes, places)
    yield from _patches(delta, found, modes, places)
    sent = {entry.path for entry in delta.sent if entry.path not in bare}
    yield header("d", b"tree", mode=0o755)
    for entry in delta.new.entries:
        if entry.path in places:
            yield header("hard link", b"tree/" + entry.path, mode=entry.mode, link=places[entry.path])
        elif entry.path in sent:
            yield from _entry(walked, found[entry.path], entry, b"tree/" + entry.path)
    yield END


def _sent_twins(
    walked: Walked, delta: Delta, found: Mapping[bytes, Found], places: dict[bytes, bytes]
) -> Iterator[bytes]:
    """Content that several new files have: once, under a number."""
    wanted = set(delta.twins.values())
    yield header("d", b"first/sent", mode=0o755)
    for entry in delta.sent:
        if entry.path in wanted:
            places[entry.path] = b"first/sent/%d" % len(places)
            yield from _entry(walked, found[entry.path], entry, places[entry.path])


def _copies(
    delta: Delta, found: Mapping[bytes, Found], modes: Mapping[bytes, int], places: dict[bytes, bytes]
) -> Iterator[bytes]:
    """What becomes a file of its own: links below `first/copy`, of which the host makes copies in `first/own`.

    One directory for each mode and time, so that these are set with one command each; a time of 0 leaves it as it is.
    """
    groups: dict[tuple[int, int], int] = {}
    links: list[tuple[int, bytes, bytes]] = []
    whence = {path: b"tree/" + source for path, source in delta.copied.items()}
    whence |= {path: places[twin] for path, twin in delta.twins.items()}
    for path, source in whence.items():
        time_s = found[path].mtime_ns // 1_000_000_000 if path in delta.twins else 0
        links.append((groups.setdefault((modes[path], time_s), len(groups)), path, source))
    if groups:
        yield header("d", b"first/copy", mode=0o755)
        yield header("d", b"first/when", mode=0o755)
    lines = []
    for (mode, time_s), number in groups.items():
        lines.append(f"{number} {mode:o} {time_s or '-'}\n")
        yield header("d", b"first/copy/%d" % number, mode=0o755)
        yield header("f", b"first/when/%d" % number, mode=0o644, mtime_s=time_s)
    for count, (number, path, source) in enumerate(links):
        places[path] = b"first/own/%d/%d" % (number, count)
        yield header("hard link", b"first/copy/%d/%d" % (number, count), mode=modes[path], link=source)
    yield _text(b"first/groups", "".join(lines).encode("ascii"))


def _patches(
    delta: Delta, found: Mapping[bytes, Found], modes: Mapping[bytes, int], places: dict[bytes, bytes]
) -> Iterator[bytes]:
    """What is written of large files, in lines that the host carries out.

    `f NUMBER MODE FROM SIZE NAME` begins one, over a copy of the base's (FROM is its size) or anew (`-`). `c FIRST SIZE UNIT SEEK`
    copies from byte FIRST, counted from 1, of the base's. `o UNIT SKIP COUNT` adds some of the base's to the reference, `z FRAME` decodes,
    `n UNIT SEEK COUNT` writes what comes next of that, where it is not all written in order. `e` ends the file.
    """
    if not delta.patches:
        return
    lines: list[str] = []
    frames = 0
    for name in (b"first/new", b"first/was", b"first/frames"):
        yield header("d", name, mode=0o755)
    for number, (path, patch) in enumerate(delta.patches.items()):
        places[path] = b"first/new/%d" % number
        if patch.over:
            yield header("hard link", places[path], mode=modes[path], link=b"tree/" + path)
        yield header("f", b"first/was/%d" % number, mode=0o644, mtime_s=found[path].mtime_ns // 1_000_000_000)
        begin = patch.old_bytes if patch.over else "-"
        lines.append(f"f {number} {modes[path]:o} {begin} {patch.new_bytes} {_octal(path)}\n")
        with patch.spool.open("rb") as spool:
            for step in patch.steps:
                if isinstance(step, Copy):
                    unit, seek, _ = _in_units(step.new)
                    lines.append(f"c {step.old_start + 1} {step.new.end - step.new.start} {unit} {seek}\n")
                    continue
                yield header("f", b"first/frames/%d" % frames, mode=0o644, size=step.size_bytes)
                for start in range(0, step.size_bytes, CHUNK_BYTES):
                    yield spool.read(min(CHUNK_BYTES, step.size_bytes - start))
                yield padding(step.size_bytes)
                lines += ["o {} {} {}\n".format(*_in_units(each)) for each in step.old]
                lines.append(f"z {frames}\n")
                if patch.over:
                    lines += ["n {} {} {}\n".format(*_in_units(each)) for each in step.new]
                frames += 1
        lines.append("e\n")
    yield _text(b"first/patches", "".join(lines).encode("ascii"))


def _in_units(part: Range) -> tuple[int, int, int]:
    """A unit, and the start and length of the range in it: as large a one as it begins at a multiple of; its end may be that of the file."""
    unit = _UNIT
    while unit < _MAX_UNIT and part.start % (2 * unit) == 0 and (part.end - part.start) % (2 * unit) == 0:
        unit *= 2
    return unit, part.start // unit, -(-(part.end - part.start) // unit)


def _octal(path: bytes) -> str:
    r"""The path for printf's %b: `\0ooo` for what is neither a letter nor a digit."""
    return "".join([chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\0{byte:03o}" for byte in path])


def _entry(walked: Walked, found: Found, entry: Entry, name: bytes) -> Iterator[bytes]:
    """One member with its content, which must still be what was hashed."""
    size = entry.size if entry.type == "f" else 0
    mode = entry.mode | _OWNER_ALL if entry.type == "d" else entry.mode
    mtime_s = found.mtime_ns // 1_000_000_000
    yield header(entry.type, name, mode=mode, size=size, mtime_s=mtime_s, link=found.text)
    if entry.type == "l" and read_link(walked, found) != entry.sha256:
        raise changed(entry.path)
    if entry.type == "f":
        digest = hashlib.sha256()
        for chunk in read_chunks(walked, found):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != entry.sha256:
            raise changed(entry.path)
        yield padding(size)


def _text(name: bytes, text: bytes) -> bytes:
    return header("f", name, mode=0o644, size=len(text)) + text + padding(len(text))
