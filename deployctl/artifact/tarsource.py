"""Tar archives, plain or compressed, entry by entry.

Owns reading them strictly: `tarfile` takes a broken header, or the end of a cut file, for the end of the archive, and
half a release would go out. Refuses to write anything itself.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, Self, cast

import zstandard

from deployctl.artifact.unpack import CHUNK_BYTES, Unpacker

_SPECIAL = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe (FIFO)",
}
_VOLUME_LABEL = b"V"
# Headers with a content of their own (long names, pax records), which tarfile reads in one go.
_NOTES = {
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
}  # fmt: skip
_NOTE_BYTES = 16 << 20
# What zstd is given at once. Four bytes of it can become 128 KiB, so this becomes 32 MiB at most; it costs no time.
_SLICE_BYTES = 1024


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Member(tarfile.TarInfo):
    """A member whose header is whole and of a sane size, or else an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _NOTES and found.size > _NOTE_BYTES:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the record of zeros that ends an archive
                raise
            what = "it is cut off" if type(error).__name__ == "EmptyHeaderError" else str(error)
            raise tarfile.ReadError(what) from None


def unpack_tar(archive: Path, into: Unpacker) -> None:
    """Create every member; damage raises whatever the readers below raise."""
    with (
        _opened(archive) as stream,
        tarfile.open(
            fileobj=cast("IO[bytes]", stream),
            mode="r|",
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        ) as members,
    ):
        while (member := members.next()) is not None:
            _create(members, member, into)
            cast("Any", members).members.clear()  # it would keep every one, at more than 1 KiB each
        # What follows the end may be padding only, but holds the checksum of a compressed file.
        while stream.read(CHUNK_BYTES):
            pass


def _create(members: tarfile.TarFile, member: tarfile.TarInfo, into: Unpacker) -> None:
    name = _raw(member.name)
    if member.isdir():
        into.directory(name, mode=member.mode, time_s=int(member.mtime))
    elif member.isreg():
        content = members.extractfile(member)
        into.file(name, _chunks(content), size=member.size, mode=member.mode, time_s=int(member.mtime))
    elif member.issym():
        into.link(name, _raw(member.linkname), time_s=int(member.mtime))
    elif member.islnk():
        into.copy(name, _raw(member.linkname))
    elif member.type != _VOLUME_LABEL:
        into.problem(name, f"is {_SPECIAL.get(member.type, 'of a kind that cannot be carried')}")


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _chunks(content: IO[bytes] | None) -> Iterator[bytes]:
    while content is not None and (chunk := content.read(CHUNK_BYTES)):
        yield chunk


@contextmanager
def _opened(archive: Path) -> Iterator[_Readable]:
    name = archive.name.lower()
    with archive.open("rb") as file:
        if name.endswith((".gz", ".tgz")):
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream
        elif name.endswith(".zst"):
            yield _Zstd(file)
        else:
            yield file


class _Zstd:
    """Frames of zstd one after the other; a cut one is an error, which `zstandard` leaves to its callers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._input = b""
        self._output = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._output:
            if not self._input:
                self._input = self._file.read(_SLICE_BYTES)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it is cut off")
                return b""
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        taken, self._output = self._output[:size], self._output[size:]
        return bytes(taken)
