"""Headers against Python's own reader of tar archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from deployctl.artifact.tarstream import END, header, padding
from tests.artifact.trees import run, tool


def _read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data + END), encoding="utf-8", errors="surrogateescape") as archive:
        return archive.getmembers()


@pytest.mark.parametrize("length", [1, 98, 99, 100, 101, 255, 4000])
@pytest.mark.parametrize("kind", ["f", "d", "l"])
def test_names_and_links_of_any_length(kind: str, length: int) -> None:
    name = b"\xff" * length
    (member,) = _read(header(kind, name, mode=0o640, mtime_s=7, link=name if kind == "l" else b""))
    assert member.name.encode("utf-8", "surrogateescape") == name
    assert member.linkname.encode("utf-8", "surrogateescape") == (name if kind == "l" else b"")
    assert (member.isfile(), member.isdir(), member.issym()) == (kind == "f", kind == "d", kind == "l")
    assert (member.mode, member.mtime, member.uid, member.gid, member.uname, member.gname) == (
        0o640,
        7,
        0,
        0,
        "",
        "",
    )


@pytest.mark.parametrize("size", [0, 1, 8 * 2**30 - 1, 8 * 2**30, 9 * 2**30, 2**60])
def test_sizes_beyond_eight_gib(size: int) -> None:
    record = header("f", b"big", mode=0o644, size=size)
    assert len(record) == 512
    assert tarfile.TarInfo.frombuf(record, "utf-8", "strict").size == size


@pytest.mark.parametrize("mtime_s", [-1, -(2**40), 0, 1, 8**11 - 1, 8**11, 2**40])
def test_times_of_any_sign(mtime_s: int) -> None:
    assert (
        tarfile.TarInfo.frombuf(header("f", b"a", mode=0, mtime_s=mtime_s), "utf-8", "strict").mtime
        == mtime_s
    )


@pytest.mark.parametrize(("size", "zeros"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_content_is_padded_to_records(size: int, zeros: int) -> None:
    assert padding(size) == bytes(zeros)


@pytest.mark.parametrize("program", ["tar", "busybox"])
def test_other_programs_read_nine_gib(tmp_path: Path, program: str) -> None:
    size = 9 * 2**30
    archive = tmp_path / "archive.tar"
    with archive.open("wb") as file:  # the content is a hole in the file, so nothing is read or written
        file.write(header("f", b"big", mode=0o644, size=size))
        file.seek(size, io.SEEK_CUR)
        file.write(header("f", b"after", mode=0o644) + END)
    command = (tool("tar"),) if program == "tar" else (tool("busybox"), "tar")
    lines = run(*command, "-tvf", archive).decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["big", "after"]
    assert str(size) in lines[0]
