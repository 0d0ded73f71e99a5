"""Zip archives, entry by entry.

Owns where Unix facts hide in a zip: names, modes and links in fields that other systems left to chance. Refuses to
write anything itself.
"""

from __future__ import annotations

import stat
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from deployctl.artifact.unpack import CHUNK_BYTES, Unpacker

_UNIX = 3
_ENCRYPTED = 0x1
_UTF8 = 0x800
_EXTENDED_TIMESTAMP = 0x5455
_MAX_LINK_BYTES = 4096


def unpack_zip(archive: Path, into: Unpacker) -> None:
    """Create every member; damage raises whatever `zipfile` raises."""
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            _create(members, member, into)


def _create(members: zipfile.ZipFile, member: zipfile.ZipInfo, into: Unpacker) -> None:
    name = _name(member)
    mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
    kind = stat.S_IFMT(mode)
    if member.flag_bits & _ENCRYPTED:
        into.problem(name, "is encrypted")
    elif member.create_system != _UNIX and b"\\" in name:
        into.problem(name, "has backslashes between directories, as some programs on Windows write them")
    elif name.endswith(b"/") or kind == stat.S_IFDIR:
        into.directory(name, mode=stat.S_IMODE(mode) or 0o755, time_s=_time_s(member))
    elif kind == stat.S_IFLNK:
        if member.file_size > _MAX_LINK_BYTES:
            into.problem(name, "is a link with a text that is too long")
        else:
            into.link(name, members.read(member), time_s=_time_s(member))
    elif kind in {0, stat.S_IFREG}:
        mode = stat.S_IMODE(mode) or 0o644
        into.file(name, _chunks(members, member), size=member.file_size, mode=mode, time_s=_time_s(member))
    else:
        into.problem(name, "is a special file")


def _chunks(members: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with members.open(member) as content:
        while chunk := content.read(CHUNK_BYTES):
            yield chunk


def _name(member: zipfile.ZipInfo) -> bytes:
    """The bytes of the name: on Unix those in the archive, elsewhere their meaning as text."""
    name = member.orig_filename
    if member.flag_bits & _UTF8 or member.create_system != _UNIX:
        return name.encode("utf-8", "surrogateescape")
    try:
        return name.encode("cp437")  # what zipfile decoded it from, for want of anything better
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape")


def _time_s(member: zipfile.ZipInfo) -> int:
    """Seconds since 1970: from the extra field where there is one, else the local time of DOS."""
    extra = member.extra
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        if tag == _EXTENDED_TIMESTAMP and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return int(struct.unpack_from("<i", extra, 5)[0])
        extra = extra[4 + size :]
    try:
        return int(time.mktime((*member.date_time, 0, 0, -1)))
    except (ValueError, OverflowError):
        return 0
