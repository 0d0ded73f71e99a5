"""Patches of large files: what comes of old file and patch, where there is none, and what that costs."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployctl.artifact.manifest import Entry
from deployctl.artifact.patch import (
    COPY_BYTES,
    REFERENCE_BYTES,
    SEGMENT_BYTES,
    Copy,
    Patch,
    Segment,
    make_patch,
)
from deployctl.artifact.walk import walk
from deployctl.errors import SourceError
from deployctl.model import Shared

MIB = 1 << 20
OLD = random.Random(5).randbytes(6 * MIB + 123)


@contextmanager
def patched(old: bytes, new: bytes, kept: bytes | None = None) -> Iterator[tuple[Patch | None, Path]]:
    """What is made of files with this content, and the directory of `new`, `old` and `spool`."""
    with TemporaryDirectory() as name:
        base = Path(name)
        (base / "tree").mkdir()
        (base / "tree/f").write_bytes(new)
        (base / "old").write_bytes(old if kept is None else kept)
        walked = walk(base / "tree", exclude=(), shared=Shared(), name="tree", allow_empty=False)
        before = Entry("f", 0o644, len(old), hashlib.sha256(old).hexdigest(), b"f")
        yield make_patch(walked, walked.entries[0], base / "old", before, base / "spool"), base


def applied(patch: Patch, old: bytes) -> bytes:
    """What a host makes of it."""
    new = bytearray(old[: patch.new_bytes] if patch.over else b"")
    frames = patch.spool.read_bytes()
    for step in patch.steps:
        if not patch.over:  # then a host writes one behind the other
            begin = step.new.start if isinstance(step, Copy) else step.new[0].start
            assert begin == len(new)
        if isinstance(step, Copy):
            size = step.new.end - step.new.start
            new[step.new.start : step.new.end] = old[step.old_start : step.old_start + size]
        else:
            data = decoded(step, frames, old)
            for start, end in step.new:
                new[start:end], data = data[: end - start], data[end - start :]
            assert not data
    return bytes(new)


def decoded(segment: Segment, frames: bytes, old: bytes) -> bytes:
    reference = b"".join([old[start:end] for start, end in segment.old])
    assert len(reference) <= REFERENCE_BYTES
    raw = (
        zstandard.ZstdCompressionDict(reference, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        if reference
        else None
    )
    frame = frames[segment.offset : segment.offset + segment.size_bytes]
    assert zstandard.get_frame_parameters(frame).window_size <= SEGMENT_BYTES
    data = zstandard.ZstdDecompressor(dict_data=raw).decompress(frame)
    assert len(data) <= SEGMENT_BYTES
    return data


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "remove", "repeat", "zero"]),
        st.integers(0, len(OLD)),
        st.integers(1, 700_000),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EDITS, st.integers(0, 9))
def test_any_edits(edits: list[tuple[str, int, int]], seed: int) -> None:
    chance = random.Random(seed)
    new = OLD
    for deed, at, size in edits:
        head, tail = new[:at], new[at:]
        match deed:
            case "overwrite":
                new = head + chance.randbytes(size) + tail[size:]
            case "insert":
                new = head + chance.randbytes(size) + tail
            case "remove":
                new = head + tail[size:]
            case "repeat":
                new = head + head[-size:] + tail
            case _:
                new = head + bytes(size) + tail[size:]
    with patched(OLD, new) as (patch, _):
        assert patch is not None
        assert applied(patch, OLD) == new
        random_bytes = sum(size for deed, _, size in edits if deed in ("overwrite", "insert"))
        assert patch.size_bytes < random_bytes + 600_000 * (len(edits) + 1)


@pytest.mark.parametrize(
    ("new", "most"),
    [
        (OLD, 0),
        (OLD[:MIB], 0),
        (OLD + b"x", 5000),
        (b"x" + OLD, 2 * COPY_BYTES // 1000),
        (bytes(3 * MIB) + OLD, 2 * COPY_BYTES // 1000),
        (OLD[2 * MIB :] + OLD[: 2 * MIB], 600_000),
    ],
    ids=["same", "cut", "one more at the end", "one more before", "much before", "turned round"],
)
def test_how_little_it_takes(new: bytes, most: int) -> None:
    with patched(OLD, new) as (patch, _):
        assert patch is not None
        assert applied(patch, OLD) == new
        assert patch.size_bytes <= most


def test_many_small_changes_take_few_ranges() -> None:
    new = bytearray(OLD)
    for at in range(0, len(OLD) - 10, 9000):
        new[at : at + 10] = b"0123456789"
    with patched(OLD, bytes(new)) as (patch, _):
        assert patch is not None
        assert applied(patch, OLD) == new
        assert patch.size_bytes < 100_000
        assert sum(len(step.new) for step in patch.steps if isinstance(step, Segment)) <= 128


@pytest.mark.parametrize("new", [random.Random(6).randbytes(3 * MIB), bytes(3 * MIB), b"all the same " * MIB])
def test_none_where_nothing_is_as_it_was(new: bytes) -> None:
    with patched(OLD, new) as (patch, base):
        assert patch is None
        assert not (base / "spool").exists()
        assert (base / "old").exists()


def test_what_compresses_as_well_alone() -> None:
    text = b"".join(b"line %d of a log\n" % number for number in range(200_000))
    with patched(text, text.replace(b"7", b"8")) as (patch, _):
        assert patch is None or patch.size_bytes < len(zstandard.compress(text))


@pytest.mark.parametrize("kept", [OLD[:-1] + b"!", OLD[:-1], b""])
def test_an_old_content_that_is_not_what_it_was_is_removed(kept: bytes) -> None:
    with patched(OLD, OLD + b"more", kept) as (patch, base):
        assert patch is None
        assert not (base / "old").exists()
        assert not (base / "spool").exists()


def test_a_reference_that_looks_like_a_dictionary() -> None:
    """Zstd would take it for one that it made itself."""
    magic = b"\x37\xa4\x30\xec"
    old = b"".join(magic + random.Random(at).randbytes(4092) for at in range(512))
    new = bytearray(old)
    for at in range(0, len(old), 256 << 10):
        new[at + 100 : at + 110] = b"0123456789"
    with patched(old, bytes(new)) as (patch, _):
        assert patch is not None
        assert applied(patch, old) == new
        assert not any(step.old for step in patch.steps if isinstance(step, Segment))


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_bytes(OLD)
    (tmp_path / "old").write_bytes(OLD)
    walked = walk(tmp_path / "tree", exclude=(), shared=Shared(), name="tree", allow_empty=False)
    (tmp_path / "tree/f").write_bytes(OLD[:-7])
    before = Entry("f", 0o644, len(OLD), hashlib.sha256(OLD).hexdigest(), b"f")
    with pytest.raises(SourceError, match="changed"):
        make_patch(walked, walked.entries[0], tmp_path / "old", before, tmp_path / "spool")
    assert not (tmp_path / "spool").exists()
