r"""What a release holds, as text: the manifest, its digest, and the listing a host's directory must give.

Owns the two line formats below and their escaping; refuses to know where entries come from or how they travel.

    manifest line    f 0644 5 2cf24d…9824 css/a\xffb.css     type, mode, size, SHA-256, path; one entry, ends in a newline
    shape line       f 644 ./css/a<ff>b.css                   as `find . -printf '%y %m %p'` says it, newlines as <01>;
                     l 777 ./a<02>b.css                       behind a link <02> and its text
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, NamedTuple, cast

Kind = Literal["f", "d", "l"]

_PLAIN = re.compile(rb"[\x20-\x5b\x5d-\x7e]*").fullmatch
_HEX = [chr(b) if 0x20 <= b <= 0x7E and b != 0x5C else f"\\x{b:02x}" for b in range(256)]
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_LINE = re.compile(r"([fdl]) (0[0-7]{3}) (0|[1-9][0-9]*) ([0-9a-f]{64}|-) ([\x20-\x7e]+)")
_NOT_PLAIN = re.compile(rb"\0|(?:^|/)\.{0,2}(?:/|\Z)").search  # empty, `.` or `..` between slashes, or a NUL
_OWNER_ALL = 0o700
_NO_LINKS: Mapping[bytes, bytes] = MappingProxyType({})


class Entry(NamedTuple):
    """One path of a release: `mode` is permission bits (0o777 for a link), `size` bytes, `sha256` "-" for a directory."""

    type: Kind
    mode: int
    size: int
    sha256: str
    path: bytes

    def line(self) -> str:
        """The entry as its line of the manifest, without the newline."""
        return f"{self.type} {self.mode:04o} {self.size} {self.sha256} {escape(self.path)}"


def escape(path: bytes) -> str:
    r"""The path in printable ASCII: backslash and every byte outside 0x20..0x7e as `\xHH`."""
    return path.decode("ascii") if _PLAIN(path) else "".join([_HEX[byte] for byte in path])


def unescape(text: str) -> bytes:
    """The bytes that `escape` made `text` from; ValueError where it can't have made it."""
    if "\\" not in text and text.isascii() and text.isprintable():
        return text.encode("ascii")
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1", "replace")
    if escape(raw) != text:
        raise ValueError(f"not an escaped path: {text!r}")
    return raw


@dataclass(frozen=True)
class Manifest:
    """Every entry of a release, sorted by the bytes of its path, parents before what is in them."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """A manifest of entries in any order."""
        return cls(tuple(sorted(entries, key=lambda entry: entry.path)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what `to_bytes` wrote; ValueError, with the line number, on anything that it could not have written."""
        if data and not data.endswith(b"\n"):
            raise ValueError("the manifest does not end in a newline")
        entries: list[Entry] = []
        kinds: dict[bytes, str] = {}
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                entry = _parse(line.decode("ascii"))
                _check_place(entry, kinds, entries[-1].path if entries else b"")
            except ValueError as error:
                raise ValueError(f"manifest line {number}: {error}") from None
            kinds[entry.path] = entry.type
            entries.append(entry)
        return cls(tuple(entries))

    def to_bytes(self) -> bytes:
        """The manifest as it is hashed, sent and kept."""
        return "".join([f"{entry.line()}\n" for entry in self.entries]).encode("ascii")

    @cached_property
    def digest(self) -> str:
        """The tree digest: SHA-256 of `to_bytes`, 64 hex digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @cached_property
    def size_bytes(self) -> int:
        """The bytes of all files together; links and directories count nothing."""
        return sum(entry.size for entry in self.entries if entry.type == "f")

    @cached_property
    def odd(self) -> bool:
        """Whether a name holds a newline, or what stands for one in the lists of a host."""
        return any(b"\n" in entry.path or b"\x01" in entry.path for entry in self.entries)

    @property
    def locked(self) -> tuple[Entry, ...]:
        """Directories that their owner may not read, write or enter, innermost first.

        They are packed with those rights, since busybox could not fill them otherwise, and get their mode last.
        """
        return tuple(e for e in reversed(self.entries) if e.type == "d" and e.mode & _OWNER_ALL != _OWNER_ALL)

    @cached_property
    def files(self) -> int:
        """How many of the entries are files."""
        return sum(entry.type == "f" for entry in self.entries)


def _parse(line: str) -> Entry:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"not `TYPE MODE SIZE SHA256 PATH`: {line[:200]!r}")
    kind, mode, size, sha256, path = found.groups()
    entry = Entry(cast("Kind", kind), int(mode, 8), int(size), sha256, unescape(path))
    if (kind == "d") != (sha256 == "-") or (kind == "d" and entry.size):
        raise ValueError("a directory has size 0 and no digest, everything else a digest")
    if kind == "l" and entry.mode != 0o777:
        raise ValueError("a link has mode 0777")
    if _NOT_PLAIN(entry.path):
        raise ValueError("the path is not a plain relative one")
    return entry


def _check_place(entry: Entry, kinds: Mapping[bytes, str], last: bytes) -> None:
    if entry.path <= last:
        raise ValueError("out of order, or there twice")
    parent = entry.path.rpartition(b"/")[0]
    if parent and kinds.get(parent) != "d":
        raise ValueError("what it is in is not a directory of this manifest")


def shape_lines(
    manifest: Manifest,
    extra_links: Mapping[bytes, bytes] = _NO_LINKS,
    *,
    link_texts: Mapping[bytes, bytes] = _NO_LINKS,
) -> list[bytes]:
    """Sorted lines, each ended by a newline, that a host's listing of the release must give.

    `extra_links` are the links a host adds for `shared`, path to text; directories they need that the release lacks
    are there with mode 755. `link_texts` has the text of every link of the manifest, which only holds its digest;
    ValueError if one is missing.
    """
    lines = [
        _shape_line(entry.type, entry.mode, entry.path, _text(entry, link_texts))
        for entry in manifest.entries
    ]
    paths = {entry.path for entry in manifest.entries}
    for path, text in extra_links.items():
        lines.append(_shape_line("l", 0o777, path, text))
        paths.add(path)
    for path in extra_links:
        parent = path.rpartition(b"/")[0]
        while parent and parent not in paths:
            lines.append(_shape_line("d", 0o755, parent, b""))
            paths.add(parent)
            parent = parent.rpartition(b"/")[0]
    # Sorted before the newline is there: `sort` compares lines without it, and 0x01 and 0x02 come before it.
    return [line + b"\n" for line in sorted(lines)]


def shape_digest(
    manifest: Manifest,
    extra_links: Mapping[bytes, bytes] = _NO_LINKS,
    *,
    link_texts: Mapping[bytes, bytes] = _NO_LINKS,
) -> str:
    r"""What `find … | tr '\0\n' '\n\001' | LC_ALL=C sort | sha256sum` must print on a host: 64 hex digits."""
    return hashlib.sha256(b"".join(shape_lines(manifest, extra_links, link_texts=link_texts))).hexdigest()


def sizes_digest(manifest: Manifest, *, link_texts: Mapping[bytes, bytes] = _NO_LINKS) -> str:
    """The same with `<mode> <size> ./<path>` for each file: 64 hex digits."""
    lines = [
        (b"%o %d ./%s" % (e.mode, e.size, e.path)).replace(b"\n", b"\x01")
        if e.type == "f"
        else _shape_line(e.type, e.mode, e.path, _text(e, link_texts))
        for e in manifest.entries
    ]
    return hashlib.sha256(b"".join([line + b"\n" for line in sorted(lines)])).hexdigest()


def _text(entry: Entry, link_texts: Mapping[bytes, bytes]) -> bytes:
    if entry.type != "l":
        return b""
    text = link_texts.get(entry.path)
    if text is None:
        raise ValueError(f"the text of the link {escape(entry.path)} is not known")
    return text


def _shape_line(kind: str, mode: int, path: bytes, text: bytes) -> bytes:
    line = b"%s %o ./%s" % (kind.encode(), mode, path)
    return (line + b"\x02" + text if kind == "l" else line).replace(b"\n", b"\x01")
