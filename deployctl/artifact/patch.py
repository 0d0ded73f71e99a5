"""A large file as what differs from an older one: which ranges are written anew, and of what they are made.

Owns the choice of ranges and references, and the compression; refuses to know how that travels or is carried out. Neither file is ever
in memory as a whole, here or on a host: what is new comes in segments, each a zstd frame of its own with some of the old file as raw
dictionary, which every zstd takes with `-D`, however old.

    same     blocks that are where they were: left as they are in a copy of the old file (`over`)
    pieces   of the ranges between them, each with the places in the old file where its content seems to have been
    copy     pieces in a row that are as they were, but elsewhere
    segment  other pieces: as many as make 4 MiB, with at most 8 MiB of references
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import zstandard

from deployctl.artifact.manifest import Entry
from deployctl.artifact.pack import LEVEL, processors
from deployctl.artifact.reading import CHUNK_BYTES, opened
from deployctl.artifact.walk import Found, Walked

WORTH = (
    0.9  # of what the file would take compressed: a patch that is larger is not worth the work on the host
)
WORTH_REFERENCE = (
    0.8  # of what a segment takes without: one that saves less is not worth a process for each of its ranges
)
SEGMENT_BYTES = 4 << 20
REFERENCE_BYTES = 8 << 20  # as much as the first versions of zstd take
COPY_BYTES = 4 << 20  # at least: fewer are decoded as fast
PIECE_BYTES = 512 << 10

_BLOCK = 4096
_RANGES = 128  # each costs a host two processes
_COARSE = 64 << 10
_SLACK = 64 << 10  # around where a piece seems to have been
_ANCHOR_BYTES = 32
_ANCHORS = 4  # tried in each piece
_SEARCH_BYTES = 4 << 20
_SEARCHED_BYTES = 2 << 30  # at most, for pieces that are nowhere near
_SAMPLES = 16
_THREADS = 2  # each takes some 30 MiB
_TABLE_LOG = 20  # of entries by which references are found: what zstd would choose are too few for that much
_DICTIONARY = b"\x37\xa4\x30\xec"  # begins a dictionary that zstd made: as a reference it would not be raw


class Range(NamedTuple):
    """Bytes of a file; both ends are multiples of 4 KiB or, at most, the file's end."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What `new` ranges of the new file are made of: a frame, at an offset in the spool, decoded with the `old` ranges before it."""

    old: tuple[Range, ...]
    new: tuple[Range, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A range of the new file that the old one has from `old_start` on."""

    old_start: int
    new: Range


@dataclass(frozen=True, slots=True)
class Patch:
    """How a file comes of an older one; the frames are in `spool`.

    `over`: the steps are written over a copy of the old file, cut to `new_bytes`, since some of it stays where it is. Otherwise they
    make up the whole file in their order, and each writes one range.
    """

    spool: Path
    steps: tuple[Segment | Copy, ...]
    over: bool
    old_bytes: int
    new_bytes: int

    @property
    def size_bytes(self) -> int:
        return sum(step.size_bytes for step in self.steps if isinstance(step, Segment))


class _UselessError(Exception):
    """A patch does not pay, or there is no room for one."""


class _DamagedError(Exception):
    """The old content is not what it should be."""


class _Piece(NamedTuple):
    new: Range
    old: tuple[Range, ...]
    found: bool  # an anchor of it was there
    shift: int | None  # from where it is now to where it was, if it is the same


def make_patch(walked: Walked, found: Found, old: Path, before: Entry, spool: Path) -> Patch | None:
    """Work out how a file of the tree comes of `before`, whose content `old` should have; frames go into `spool`.

    None where that does not pay; an `old` that is not what it should be is removed. SourceError if the file can't be read or has
    changed since the walk.
    """
    patch = None
    try:
        with old.open("rb") as file, spool.open("xb") as frames, opened(walked, found) as new:
            work = _Patching(new, found.size, file.fileno(), before.size)
            patch = work.perform(before.sha256, spool, frames.fileno())
    except _DamagedError:
        with contextlib.suppress(OSError):
            old.unlink()
    except (OSError, _UselessError, zstandard.ZstdError):
        pass
    finally:
        if patch is None:
            with contextlib.suppress(OSError):
                spool.unlink()
    return patch


class _Patching:
    """One patch while it is worked out, of descriptors and sizes in bytes."""

    def __init__(self, new: int, new_bytes: int, old: int, old_bytes: int) -> None:
        self._new = new
        self._new_bytes = new_bytes
        self._old = old
        self._old_bytes = old_bytes
        self._shift = 0  # from the new file to the old one, where the last piece was found
        self._misses = 0
        self._searched_bytes = 0

    def perform(self, digest: str, spool: Path, frames: int) -> Patch:
        """The patch, its frames written to the descriptor `frames`."""
        pool = ThreadPoolExecutor(min(_THREADS, processors()))
        try:
            proof = pool.submit(self._digest)
            ranges = _at_most(self._differing(), _RANGES)
            same_bytes = self._new_bytes - _total(ranges)
            over = same_bytes >= self._new_bytes / 4
            if not over:
                ranges, same_bytes = [Range(0, self._new_bytes)], 0
            if proof.result() != digest:
                raise _DamagedError
            pieces = [self._place(piece) for piece in _cut(ranges)]
            known_bytes = same_bytes + _total([piece.new for piece in pieces if piece.found])
            if known_bytes < (1 - WORTH) * self._new_bytes:
                raise _UselessError
            steps = self._compress(pool, _steps(pieces), frames)
        finally:
            pool.shutdown(cancel_futures=True)
        return Patch(spool, tuple(steps), over, self._old_bytes, self._new_bytes)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self._old_bytes, CHUNK_BYTES):
            digest.update(self._read_old(start, CHUNK_BYTES))
        return digest.hexdigest()

    def _read_old(self, start: int, size: int) -> bytes:
        try:
            return os.pread(self._old, size, start)
        except OSError:  # which `opened` would take for one of SOURCE
            raise _DamagedError from None

    def _differing(self) -> list[Range]:
        """The blocks that are not what the old file has in their place, as ranges."""
        ranges: list[Range] = []
        for start in range(0, self._new_bytes, CHUNK_BYTES):
            new = os.pread(self._new, CHUNK_BYTES, start)
            old = self._read_old(start, len(new))
            if new == old:
                continue
            for coarse in range(0, len(new), _COARSE):
                if new[coarse : coarse + _COARSE] == old[coarse : coarse + _COARSE]:
                    continue
                for at in range(coarse, min(coarse + _COARSE, len(new)), _BLOCK):
                    if new[at : at + _BLOCK] != old[at : at + _BLOCK]:
                        end = start + min(at + _BLOCK, len(new))
                        if ranges and ranges[-1].end == start + at:
                            ranges[-1] = Range(ranges[-1].start, end)
                        else:
                            ranges.append(Range(start + at, end))
        return ranges

    # ---- where a piece was

    def _place(self, piece: Range) -> _Piece:
        size = piece.end - piece.start
        shifts = self._find(piece) if size >= _COARSE else []
        old = [self._range(piece, shift, _SLACK) for shift in shifts]
        if shifts:
            self._shift = shifts[-1]
        else:  # small, between what is the same; or unlike what was there, but hardly everywhere
            old = [self._range(piece, self._shift if size >= _COARSE else 0, 0)]
        same = next((shift for shift in shifts if self._is_at(piece, shift)), None)
        return _Piece(piece, tuple([each for each in old if each.start < each.end]), bool(shifts), same)

    def _is_at(self, piece: Range, shift: int) -> bool:
        size, start = piece.end - piece.start, piece.start + shift
        return start >= 0 and os.pread(self._new, size, piece.start) == self._read_old(start, size)

    def _range(self, piece: Range, shift: int, slack: int) -> Range:
        unit = _COARSE if slack else _BLOCK
        low = max(0, (piece.start + shift - slack) // unit * unit)
        return Range(low, min(self._old_bytes, -(-(piece.end + shift + slack) // unit) * unit))

    def _find(self, piece: Range) -> list[int]:
        """How far the places of some of the piece in the old file are from where it is now."""
        last = piece.end - piece.start - _ANCHOR_BYTES
        places = [piece.start + last * number // (_ANCHORS - 1) for number in range(_ANCHORS)]
        anchors = {at: os.pread(self._new, _ANCHOR_BYTES, at) for at in places}
        anchors = {at: anchor for at, anchor in anchors.items() if len(set(anchor)) >= _ANCHOR_BYTES // 4}
        found = [shift for at, anchor in anchors.items() if (shift := self._near(at, anchor)) is not None]
        if not found and last > PIECE_BYTES / 2 and (shift := self._anywhere(anchors)) is not None:
            found = [shift]
        self._misses = 0 if found else self._misses + 1
        return list(dict.fromkeys(found))

    def _near(self, at: int, anchor: bytes) -> int | None:
        """Look for an anchor where the piece before was, where it is now, and where it is from the end."""
        guesses = list(dict.fromkeys((self._shift, 0, self._old_bytes - self._new_bytes)))
        for guess in guesses:
            if at + guess >= 0 and self._read_old(at + guess, _ANCHOR_BYTES) == anchor:
                return guess
        for guess in guesses:
            low = max(0, at + guess - _SLACK)
            if at + guess > -_SLACK and low < self._old_bytes:
                place = self._read_old(low, 2 * _SLACK + _ANCHOR_BYTES).find(anchor)
                if place >= 0:
                    return low + place - at
        return None

    def _anywhere(self, anchors: Mapping[int, bytes]) -> int | None:
        """Look for one of the anchors in all of the file; the longer nothing is found, the less often."""
        rarely = self._misses & (self._misses + 1)  # 0 for the first, the second, the fourth, the eighth miss
        if not anchors or rarely or self._searched_bytes > _SEARCHED_BYTES:
            return None
        at, anchor = list(anchors.items())[len(anchors) // 2]
        for start in range(0, self._old_bytes, _SEARCH_BYTES):
            place = self._read_old(start, _SEARCH_BYTES + _ANCHOR_BYTES).find(anchor)
            self._searched_bytes += _SEARCH_BYTES
            if place >= 0:
                return start + place - at
        return None

    # ---- what it becomes

    def _compress(
        self, pool: ThreadPoolExecutor, plans: Sequence[Segment | Copy], frames: int
    ) -> list[Segment | Copy]:
        """The steps, with the frames of segments written."""
        limit_bytes = WORTH * self._compressed_bytes()
        done: list[Segment | Copy] = []
        ahead: deque[Future[tuple[Segment, bytes]]] = deque()
        waiting: deque[Segment | Copy] = deque(plans)
        offset = 0
        for plan in plans:
            if isinstance(plan, Copy):
                done.append(plan)
                continue
            while waiting and len(ahead) < _THREADS + 1:
                if isinstance(following := waiting.popleft(), Segment):
                    ahead.append(pool.submit(self._frame, following))
            segment, frame = ahead.popleft().result()
            done.append(replace(segment, offset=offset, size_bytes=len(frame)))
            offset += len(frame)
            if offset > limit_bytes:
                raise _UselessError
            _write(frames, frame)
        return done

    def _frame(self, plan: Segment) -> tuple[Segment, bytes]:
        new = b"".join([os.pread(self._new, end - start, start) for start, end in plan.new])
        old = b"".join([self._read_old(start, end - start) for start, end in plan.old])
        if len(old) < _BLOCK or old.startswith(_DICTIONARY):
            return replace(plan, old=()), _plain(new)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            window_log=(len(old) + len(new)).bit_length(),  # else all that lies farther back is not used
            hash_log=_TABLE_LOG,
            chain_log=_TABLE_LOG,
            write_checksum=True,
        )
        reference = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        frame = zstandard.ZstdCompressor(dict_data=reference, compression_params=parameters).compress(new)
        if len(frame) > len(new) / 4 and WORTH_REFERENCE * len(plain := _plain(new)) <= len(frame):
            return replace(plan, old=()), plain
        return plan, frame

    def _compressed_bytes(self) -> float:
        """About what the new file takes compressed."""
        step = max(1, self._new_bytes // _SAMPLES)
        samples = [os.pread(self._new, _COARSE, start) for start in range(0, self._new_bytes, step)]
        size_bytes = sum(len(sample) for sample in samples)
        return self._new_bytes * sum(len(_plain(sample)) for sample in samples) / max(1, size_bytes)


def _plain(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)


def _write(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
    except OSError:
        raise _UselessError from None


# ---- ranges ------------------------------------------------------------------------------------------------------


def _total(ranges: Sequence[Range]) -> int:
    return sum(end - start for start, end in ranges)


def _at_most(ranges: list[Range], count: int) -> list[Range]:
    """So many ranges and no more, by closing the smallest gaps."""
    gaps = sorted(after.start - before.end for before, after in pairwise(ranges))
    return ranges if len(ranges) <= count else _joined(ranges, gaps[len(ranges) - count - 1])


def _joined(ranges: Sequence[Range], gap: int = 0) -> list[Range]:
    """The union of sorted ranges, those not farther apart than `gap` made one."""
    joined: list[Range] = []
    for start, end in ranges:
        if joined and start <= joined[-1].end + gap:
            joined[-1] = Range(joined[-1].start, max(joined[-1].end, end))
        else:
            joined.append(Range(start, end))
    return joined


def _cut(ranges: Sequence[Range]) -> Iterator[Range]:
    for start, end in ranges:
        for at in range(start, end, PIECE_BYTES):
            yield Range(at, min(at + PIECE_BYTES, end))


def _steps(pieces: Sequence[_Piece]) -> list[Segment | Copy]:
    """The pieces in order as copies, where these are long, and segments without frames."""
    steps: list[Segment | Copy] = []
    for run in _runs(pieces):
        first, last = run[0], run[-1]
        if first.shift is not None and last.new.end - first.new.start >= COPY_BYTES:
            steps.append(Copy(first.new.start + first.shift, Range(first.new.start, last.new.end)))
        else:
            for piece in run:
                _add(steps, piece)
    return steps


def _runs(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces that lay behind one another as they do now; each that is not the same alone."""
    run: list[_Piece] = []
    for piece in pieces:
        if run and (
            piece.shift is None or piece.shift != run[-1].shift or piece.new.start != run[-1].new.end
        ):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _add(steps: list[Segment | Copy], piece: _Piece) -> None:
    """Put a piece into the last step, if that is a segment that has room for it, or into a new one."""
    last = steps[-1] if steps else None
    if isinstance(last, Segment) and _total([*last.new, piece.new]) <= SEGMENT_BYTES:
        old = _joined(sorted([*last.old, *piece.old]))
        if _total(old) <= REFERENCE_BYTES:
            steps[-1] = Segment(tuple(old), tuple(_joined([*last.new, piece.new])), 0, 0)
            return
    steps.append(Segment(tuple(_joined(sorted(piece.old))), (piece.new,), 0, 0))
