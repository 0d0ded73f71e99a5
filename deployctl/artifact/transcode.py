"""The artifact in gzip, for hosts without zstd.

Owns the second codec; refuses to read SOURCE again. Files that travel as they are stay so; the archive becomes many gzip members in a row, each of
one MiB of it and compressed in a thread of its own; gzip, busybox and tar read them as one.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import zstandard

from deployctl.artifact.local import Output, disk_errors, new_file
from deployctl.artifact.pack import Artifact, Packed, processors
from deployctl.errors import SourceError

GZIP_LEVEL = 4  # 5 % larger than level 6 and more than twice as fast

_BLOCK_BYTES = 1024 * 1024
_GZIP = 31  # zlib's window of 15 bits, plus 16 for a gzip header; its time is 0


def transcode(
    packed: Packed,
    codec: str,
    out_dir: Path,
    *,
    level: int = GZIP_LEVEL,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Artifact:
    """Write `<name>.tar.gz` into `out_dir` from `<name>.tar.zst`, with the same archive in it.

    `codec` is "gzip". `threads` compress, as many as there are processors by default, and hold a few MiB each.
    `on_progress` gets bytes of the archive done and to do. SourceError if the artifact is gone or `out_dir` is full;
    then nothing is left behind.
    """
    if codec != "gzip":
        raise ValueError(f"no such codec: {codec}")
    done = 0
    bare = packed.artifact.bare
    with (
        new_file(out_dir) as output,
        disk_errors(packed.artifact.path, "read"),
        packed.artifact.path.open("rb") as file,
    ):
        for each in bare:
            _copy(file, each.found.size, output)
        for block_bytes, member in _members(file, packed.artifact.path, level, threads or processors()):
            output.write(member)
            done += block_bytes
            if on_progress:
                on_progress(done, packed.unpacked_bytes)
        if done != packed.unpacked_bytes:  # a cut zstd stream ends without an error
            raise _damaged(packed.artifact.path)
        path = output.keep_as(packed.artifact.path.with_suffix(".gz").name)
        return Artifact(path, "gzip", output.size_bytes, output.sha256, output.parts, bare)


def _copy(file: BinaryIO, size_bytes: int, output: Output) -> None:
    output.begin_bare(size_bytes)
    while size_bytes and (data := file.read(min(_BLOCK_BYTES, size_bytes))):
        output.write(data)
        size_bytes -= len(data)


def _members(file: BinaryIO, artifact: Path, level: int, threads: int) -> Iterator[tuple[int, bytes]]:
    pool = ThreadPoolExecutor(threads)
    ahead: deque[Future[tuple[int, bytes]]] = deque()
    try:
        for block in _blocks(file, artifact):
            ahead.append(pool.submit(_member, block, level))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _member(block: bytes, level: int) -> tuple[int, bytes]:
    return len(block), zlib.compress(block, level, wbits=_GZIP)


def _blocks(file: BinaryIO, artifact: Path) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(file)
    # A whole block at a time, so that the members don't depend on how the decompressor hands out its bytes.
    try:
        while block := _read_full(reader):
            yield block
    except zstandard.ZstdError:
        raise _damaged(artifact) from None


def _read_full(reader: zstandard.ZstdDecompressionReader) -> bytes:
    parts: list[bytes] = []
    missing = _BLOCK_BYTES
    while missing and (part := reader.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _damaged(artifact: Path) -> SourceError:
    return SourceError(
        f"{artifact}: the packed artifact is damaged", hint="delete it, and it is packed again"
    )
