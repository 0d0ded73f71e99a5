"""Headers of a GNU tar archive, byte for byte.

Owns the 512-byte records; refuses to read files. GNU format and not PAX, since busybox skips PAX headers and so loses
names over 100 bytes; written by hand and not with `tarfile`, which takes ten times as long and wants names as text.
Layout after the GNU tar manual, "Basic Tar Format" (`struct posix_header`, `OLDGNU_MAGIC`).
"""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)

_NAME_BYTES = 100
_LONG_NAME = b"././@LongLink"
_OCTAL_LIMIT = 8**11
_TYPES = {"f": b"0", "d": b"5", "l": b"2", "hard link": b"1", "long name": b"L", "long link": b"K"}
# uid and gid are 0, user and group names empty: the login user of a host owns what it unpacks.
_OWNER = b"0000000\0" * 2
_MAGIC = b"ustar  \0"
_TAIL = bytes(BLOCK - 265)  # user and group names, device numbers, prefix
_CHECK_BASE = sum(_OWNER) + sum(b" " * 8) + sum(_MAGIC)


def header(kind: str, name: bytes, *, mode: int, size: int = 0, mtime_s: int = 0, link: bytes = b"") -> bytes:
    """What goes before the content of a member: one record, and more where name or link exceed 100 bytes.

    `kind` is "f", "d", "l" or "hard link"; `size` is bytes that follow, 0 for a link; a directory's name gets its slash here.
    """
    if kind == "d":
        name += b"/"
    if len(name) <= _NAME_BYTES and len(link) <= _NAME_BYTES:
        return _record(kind, name, mode, size, mtime_s, link)
    long = b""
    if len(link) > _NAME_BYTES:
        long += _long("long link", link)
    if len(name) > _NAME_BYTES:
        long += _long("long name", name)
    return long + _record(kind, name[:_NAME_BYTES], mode, size, mtime_s, link[:_NAME_BYTES])


def padding(size: int) -> bytes:
    """The zero bytes after `size` bytes of content."""
    return bytes(-size % BLOCK)


def _long(kind: str, text: bytes) -> bytes:
    text += b"\0"
    return _record(kind, _LONG_NAME, 0o644, len(text), 0, b"") + text + padding(len(text))


def _record(kind: str, name: bytes, mode: int, size: int, mtime_s: int, link: bytes) -> bytes:
    fields = _number(size) + _number(mtime_s)
    mode_field = b"%07o\0" % mode
    flag = _TYPES[kind]
    check = _CHECK_BASE + sum(name) + sum(mode_field) + sum(fields) + flag[0] + sum(link)
    return b"%b%b%b%b%06o\0 %b%b%b%b" % (
        name.ljust(_NAME_BYTES, b"\0"),
        mode_field,
        _OWNER,
        fields,
        check,
        flag,
        link.ljust(_NAME_BYTES, b"\0"),
        _MAGIC,
        _TAIL,
    )


def _number(value: int) -> bytes:
    """Twelve bytes: eleven octal digits, or base 256 for what they can't hold (8 GiB and more, before 1970)."""
    if 0 <= value < _OCTAL_LIMIT:
        return b"%011o\0" % value
    return (b"\x80" if value >= 0 else b"\xff") + value.to_bytes(11, "big", signed=True)
