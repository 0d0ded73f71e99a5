"""A walked tree as one artifact, read once: large files that no compressor makes smaller, then a compressed archive of the rest.

Owns the layout of the artifact; refuses to decide what is carried. In the archive:

    tree/css/            every other entry in the order of the manifest: directories, files, links
    tree/css/a.css
    tree/locked/         directories without all rights for their owner, once more, now with their mode
    manifest             last: what the entries above must hash to

Reading and hashing small files, hashing and writing the archive, and compressing overlap, each in threads of its own.
The same tree gives the same bytes, whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import zstandard

from deployctl.artifact.bare import Bare, find_bare
from deployctl.artifact.digests import Digests
from deployctl.artifact.local import OnPart, Output, Part, new_file
from deployctl.artifact.manifest import Entry, Manifest
from deployctl.artifact.reading import CHUNK_BYTES, check_directories, read_chunks, read_link, read_whole
from deployctl.artifact.tarstream import END, header, padding
from deployctl.artifact.walk import Found, Walked

LEVEL = 3  # of zstd: higher ones cost more time than they save on any link above 100 Mbit/s

SIP_BYTES = 128 << 10  # as much as one call gives out at most; with more, all would wait in there for the end
_BATCH_BYTES = CHUNK_BYTES
_BATCH_ENTRIES = 256
_READERS = 1  # more of them fight over the interpreter lock: slower with files in the cache
_OWNER_ALL = 0o700
_TREE = b"tree/"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Artifact:
    """One packed file: `codec` is "zstd" or "gzip", `size_bytes` and `sha256` those of the file itself, `parts` its cut.

    `bare` are the files whose content it begins with, in order; the archive follows them.
    """

    path: Path
    codec: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...]
    bare: tuple[Bare, ...] = ()


@dataclass(frozen=True)
class Packed:
    """What packing gave: `links` is path to text of every link, `unpacked_bytes` the length of the archive before it is compressed."""

    manifest: Manifest
    tree_digest: str
    artifact: Artifact
    unpacked_bytes: int
    links: Mapping[bytes, bytes]


def pack(
    walked: Walked,
    out_dir: Path,
    *,
    level: int = LEVEL,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_part: OnPart | None = None,
) -> Packed:
    """Write `<tree digest>.tar.zst` into `out_dir`, reading every file once.

    `threads` is how many compress, as many as there are processors by default. `on_progress` gets content bytes done
    and to do, every MiB or so, `on_part` what `new_file` says. SourceError if a file can't be read or changed since the walk, or if `out_dir` is full;
    then nothing is left behind.
    """
    done = 0
    entries: dict[bytes, Entry] = {}

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if on_progress:
            on_progress(done, walked.size_bytes)

    with new_file(out_dir, on_part) as output:
        bare = find_bare(walked, walked.entries)
        for found in bare:
            entries[found.path] = write_bare(output, walked, found, count)
        rest = [found for found in walked.entries if found.path not in entries]
        with Stream(output.write, level, threads or processors()) as stream:
            for piece in _pieces(walked, rest):
                stream.write(piece.data)
                entries.update((entry.path, entry) for entry in piece.entries)
                count(piece.content_bytes)
            check_directories(walked)
            manifest = Manifest(tuple([entries[found.path] for found in walked.entries]))
            text = manifest.to_bytes()
            stream.write(_closing_directories(walked, manifest))
            stream.write(
                header("f", b"manifest", mode=0o644, size=len(text)) + text + padding(len(text)) + END
            )
            stream.finish()
        tree_digest = hashlib.sha256(text).hexdigest()
        path = output.keep_as(f"{tree_digest}.tar.zst")
        artifact = Artifact(
            path, "zstd", output.size_bytes, output.sha256, output.parts, Bare.number(bare, output.parts)
        )
    return Packed(manifest, tree_digest, artifact, stream.bytes_in, link_texts(walked))


def write_bare(
    output: Output, walked: Walked, found: Found, count: Callable[[int], None] = lambda _bytes: None
) -> Entry:
    """Add a file as it is and return its entry; `count` gets bytes as they are written. SourceError if it changed since the walk."""
    digest = hashlib.sha256()
    output.begin_bare(found.size)
    for chunk in read_chunks(walked, found):
        digest.update(chunk)
        output.write(chunk)
        count(len(chunk))
    return Entry("f", found.mode, found.size, digest.hexdigest(), found.path)


def read_manifest(walked: Walked, digests: Digests | None = None) -> Manifest:
    """Hash everything that `digests` does not know, without packing it. SourceError as `pack`."""
    known: dict[bytes, str] = {}
    if digests is not None:
        known = {e.path: found for e in walked.entries if e.type == "f" and (found := digests.find(e))}
    unknown = [entry for entry in walked.entries if entry.path not in known]
    with ThreadPoolExecutor(processors()) as pool:
        try:
            # Hashing lets other threads go on only from 2 KiB up: with small files, they take turns at a loss (0.37 s for 10,000,
            # where one alone takes 0.23).
            large = [entry for entry in unknown if entry.size > _BATCH_BYTES]
            hashed = pool.map(lambda entry: _hash(walked, entry), large)
            known.update(
                (entry.path, _hash(walked, entry)) for entry in unknown if entry.size <= _BATCH_BYTES
            )
            known.update(zip((entry.path for entry in large), hashed, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
    check_directories(walked)
    return Manifest(tuple([Entry(e.type, e.mode, e.size, known[e.path], e.path) for e in walked.entries]))


def _hash(walked: Walked, found: Found) -> str:
    if found.type == "d":
        return "-"
    if found.type == "l":
        return read_link(walked, found)
    if found.size <= _BATCH_BYTES:
        return read_whole(walked, found)[1]
    digest = hashlib.sha256()
    for chunk in read_chunks(walked, found):
        digest.update(chunk)
    return digest.hexdigest()


def link_texts(walked: Walked) -> dict[bytes, bytes]:
    """Path to text of every link."""
    return {entry.path: entry.text for entry in walked.entries if entry.type == "l"}


def processors() -> int:
    """How many processors this process may use, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


class Stream:
    """The compressor: what goes in is counted, what comes out is handed on.

    Its threads end with the context, and not when an exception that still refers to it is forgotten: a process forked
    in between would wait for threads that it does not have.
    """

    def __init__(self, write: Callable[[bytes], None], level: int, threads: int) -> None:
        # With threads from one up, zstd cuts its input the same way however many there are; with none, differently.
        compressor = zstandard.ZstdCompressor(level=level, threads=max(1, threads), write_checksum=True)
        self.bytes_in = 0
        self._stream: zstandard.ZstdCompressionObj | None = compressor.compressobj()
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._stream = None
        if isinstance(error, zstandard.ZstdError):  # of what is in memory already: nothing else can fail
            raise MemoryError(str(error)) from error  # noqa: TRY004 - it is not of a wrong type

    def write(self, data: bytes) -> None:
        self.bytes_in += len(data)
        for start in range(0, len(data), SIP_BYTES):
            if self._stream is not None and (out := self._stream.compress(data[start : start + SIP_BYTES])):
                self._write(out)

    def finish(self) -> None:
        if self._stream is not None:
            self._write(self._stream.flush())


class _Piece(NamedTuple):
    """Some bytes of the archive, the entries that end in them and how much file content they hold."""

    data: bytes
    entries: Sequence[Entry]
    content_bytes: int


def _pieces(walked: Walked, entries: Sequence[Found]) -> Iterator[_Piece]:
    """These entries in the archive, in order: small files many at a time and read ahead, large ones by chunks."""
    pool = ThreadPoolExecutor(_READERS)
    ahead: deque[Future[_Piece] | Found] = deque()
    try:
        for batch in _batches(entries):
            small = len(batch) > 1 or batch[0].size <= _BATCH_BYTES
            ahead.append(pool.submit(_read_batch, walked, batch) if small else batch[0])
            if len(ahead) > _READERS + 1:
                yield from _in_turn(walked, ahead.popleft())
        while ahead:
            yield from _in_turn(walked, ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _in_turn(walked: Walked, work: Future[_Piece] | Found) -> Iterator[_Piece]:
    if isinstance(work, Future):
        yield work.result()
    else:
        yield from _read_large(walked, work)


def _batches(entries: Sequence[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size = 0
    for entry in entries:
        if batch and (size + entry.size > _BATCH_BYTES or len(batch) == _BATCH_ENTRIES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch


def _read_batch(walked: Walked, batch: Sequence[Found]) -> _Piece:
    parts: list[bytes] = []
    entries: list[Entry] = []
    content_bytes = 0
    for found in batch:
        parts.append(_header(found))
        if found.type == "f":
            content, sha256 = read_whole(walked, found)
            parts += (content, padding(found.size))
            content_bytes += found.size
        else:
            sha256 = read_link(walked, found) if found.type == "l" else "-"
        entries.append(Entry(found.type, found.mode, found.size, sha256, found.path))
    return _Piece(b"".join(parts), entries, content_bytes)


def _read_large(walked: Walked, found: Found) -> Iterator[_Piece]:
    yield _Piece(_header(found), (), 0)
    digest = hashlib.sha256()
    for chunk in read_chunks(walked, found):
        digest.update(chunk)
        yield _Piece(chunk, (), len(chunk))
    yield _Piece(
        padding(found.size), (Entry("f", found.mode, found.size, digest.hexdigest(), found.path),), 0
    )


def _header(found: Found, *, mode: int | None = None) -> bytes:
    size = found.size if found.type == "f" else 0
    mtime_s = found.mtime_ns // 1_000_000_000
    if mode is None:
        mode = found.mode | _OWNER_ALL if found.type == "d" else found.mode
    return header(found.type, _TREE + found.path, mode=mode, size=size, mtime_s=mtime_s, link=found.text)


def _closing_directories(walked: Walked, manifest: Manifest) -> bytes:
    """The locked directories once more, with their true mode and their time.

    GNU tar sets it then, and busybox does as root; as another user it never changes a mode, so a host has to.
    """
    locked = {entry.path for entry in manifest.locked}
    again = [found for found in reversed(walked.entries) if found.path in locked]
    return b"".join([_header(found, mode=found.mode) for found in again])
