"""Large files that no compressor makes smaller: they travel as they are, and a host puts what came in its place.

Owns which files these are. In an archive each of their bytes would go through a compressor here, and through four programs after
scp on every host: a push of one file of 256 MiB to 10 hosts took twice as long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import zstandard

from deployctl.artifact.local import LARGE_PART_BYTES, Part
from deployctl.artifact.manifest import escape
from deployctl.artifact.reading import opened
from deployctl.artifact.walk import Found, Walked

BARE_BYTES = LARGE_PART_BYTES  # with less, a channel of its own costs more than it saves
SAMPLES = 8
SAMPLE_BYTES = 64 << 10
SAVED = 0.05  # what a compressor has to save to be worth its while
_OWNER_ALL = 0o700


class Bare(NamedTuple):
    """One of them, with the numbers of its slices among the parts of the artifact, which count from 1."""

    found: Found
    first: int
    last: int

    @classmethod
    def number(cls, files: Sequence[Found], parts: Sequence[Part]) -> tuple[Self, ...]:
        """Return `files` with the numbers of their slices, with which `parts` begins."""
        numbered: list[Self] = []
        last = 0
        for found in files:
            first, left = last + 1, found.size
            while left:
                left -= parts[last].size_bytes
                last += 1
            numbered.append(cls(found, first, last))
        return tuple(numbered)


def find_bare(walked: Walked, among: Iterable[Found]) -> list[Found]:
    """Return the files of these that are to travel as they are; SourceError if one can't be read or changed since the walk.

    Not those in directories that their owner can't write to: such a directory is locked before anything is put in its place.
    """
    locked = {
        each.path for each in walked.entries if each.type == "d" and each.mode & _OWNER_ALL != _OWNER_ALL
    }
    return [
        found
        for found in among
        if found.type == "f"
        and found.size >= BARE_BYTES
        and locked.isdisjoint(_directories(found.path))
        and _is_dense(walked, found)
    ]


def _directories(path: bytes) -> Iterable[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _is_dense(walked: Walked, found: Found) -> bool:
    """Whether pieces from all over the file stay as long as they are when they are compressed."""
    compressor = zstandard.ZstdCompressor(level=1)
    left_bytes = 0
    with opened(walked, found) as handle:
        for number in range(SAMPLES):
            start = (found.size - SAMPLE_BYTES) * number // (SAMPLES - 1)
            left_bytes += len(compressor.compress(os.pread(handle, SAMPLE_BYTES, start)))
    return left_bytes > (1 - SAVED) * SAMPLES * SAMPLE_BYTES


def places(files: Iterable[Bare]) -> str:
    """Return a line for each of them, for a host.

    Numbers of its slices, MiB of each but the last, mode, time in UTC as `touch -t` takes it, name as in a manifest.
    """
    return "".join(
        f"{bare.first} {bare.last} {LARGE_PART_BYTES >> 20} {bare.found.mode:o} {_stamp(bare.found)} {escape(bare.found.path)}\n"
        for bare in files
    )


def _stamp(found: Found) -> str:
    try:
        return time.strftime("%Y%m%d%H%M.%S", time.gmtime(found.mtime_ns // 1_000_000_000))
    except (ValueError, OverflowError, OSError):  # a year that nobody will see
        return "-"
