"""Archives as SOURCE: what comes through whole, and everything that must not."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from deployctl.artifact.manifest import escape
from deployctl.artifact.pack import pack
from deployctl.artifact.source import open_source
from deployctl.artifact.unpack import Unpacker
from deployctl.artifact.walk import walk
from deployctl.errors import SourceError
from deployctl.model import Shared
from tests.artifact.sources import manifest_of, refusal_of
from tests.artifact.trees import file_times, make_nasty_tree, make_tree, names, run, simple_manifest, tool

Member = tuple[tarfile.TarInfo, bytes]


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.zst", ".TAR.GZ"])
def test_nasty_tree_through_every_tar(tmp_path: Path, work: Path, ending: str, form: str) -> None:
    if form in {"gnu", "pax"}:
        tree = make_nasty_tree(tmp_path / "tree")
    else:  # these can't say long names
        tree = make_tree(
            tmp_path / "tree",
            {"caf\u00e9": "", "new\nline/ $(x)": "1" * 1000, "link": "->new\nline", "empty/": ""},
        )
    archive = tmp_path / f"a{ending}"
    plain = run(tool("tar"), f"--format={form}", "-C", tree, "-cf", "-", ".")
    if ending.lower().endswith("gz"):
        archive.write_bytes(gzip.compress(plain))
    elif ending.endswith("zst"):
        half = len(plain) // 2  # two frames in a row are one stream
        archive.write_bytes(
            b"".join(zstandard.ZstdCompressor().compress(part) for part in (plain[:half], plain[half:]))
        )
    else:
        archive.write_bytes(plain)
    with open_source(archive, None, work) as opened:
        assert simple_manifest(opened.path) == simple_manifest(tree)
        times = file_times(tree)
        times.pop(b"/future", None)  # not every file system can say it
        assert times.items() <= file_times(opened.path).items()
    assert names(work) == []


def _info(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", *, link: str = "", mode: int = 0o644
) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(content), link, mode
    return info, content


def _tar(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


DIR, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    ("members", "problems"),
    [
        ([_info("/etc/x")], ("/etc/x: is an absolute path",)),
        ([_info("a/../../x")], ("a/../../x: is not a path inside the tree",)),
        ([_info("..", DIR)], ("..: is not a path inside the tree",)),
        ([_info("a"), _info("./a")], ("a: is there twice",)),
        ([_info("a"), _info("a", DIR)], ("a: is there twice",)),
        ([_info("a"), _info("a/b")], ("a/b: is below a, which is not a directory",)),
        ([_info("a", LINK, link="/tmp"), _info("a/b")], ("a/b: is below a, which is not a directory",)),
        ([_info("a", LINK, link="."), _info("a/b/c")], ("a/b: is below a, which is not a directory",)),
        ([_info("a", LINK, link="../x")], ("a: leads out of the tree, to ../x",)),
        ([_info("a", LINK, link="/etc")], ("a: leads out of the tree, to /etc",)),
        ([_info("a", HARD, link="b")], ("a: is a hard link to b, which is no file that came before it",)),
        ([_info("a", HARD, link="../../etc/passwd")], ("../../etc/passwd: is not a path inside the tree",)),
        (
            [_info("s", LINK, link="/etc/passwd"), _info("a", HARD, link="s")],
            ("a: leads out of the tree, to /etc/passwd", "s: leads out of the tree, to /etc/passwd"),
        ),
        ([_info("a", mode=0o4755)], ("a: is setuid or setgid, which a release never is",)),
        ([_info("a", tarfile.FIFOTYPE)], ("a: is a named pipe (FIFO)",)),
        ([_info("a", tarfile.CHRTYPE)], ("a: is a character device",)),
        (
            [_info("a", tarfile.BLKTYPE), _info("b", b"D")],
            ("a: is a block device", "b: is of a kind that cannot be carried"),
        ),
        ([_info("./", DIR)], None),
        ([], None),
    ],
)
def test_what_a_tar_must_not_hold(
    tmp_path: Path, work: Path, members: list[Member], problems: tuple[str, ...] | None
) -> None:
    archive = _tar(tmp_path / "a.tar", _info("fine") if problems else _info(".", DIR), *members)
    assert refusal_of(archive, work) == (problems or ("is empty",))


def test_odd_but_harmless_tar(tmp_path: Path, work: Path) -> None:
    archive = _tar(
        tmp_path / "a.tar",
        _info("./a//b/./c", content=b"1", mode=0o755),
        _info("a/b/", DIR, mode=0o700),
        _info("hard", HARD, link="./a/b/c"),
        _info("dangling", LINK, link="a/no"),
        _info("hard-to-it", HARD, link="dangling"),
        _info("label", b"V"),
        _info("sticky", DIR, mode=0o3755),
    )
    lines = manifest_of(archive, work).decode().splitlines()
    assert [(line.split()[1], line.split()[-1]) for line in lines] == [
        ("0755", "a"), ("0700", "a/b"), ("0755", "a/b/c"), ("0777", "dangling"), ("0755", "hard"),
        ("0777", "hard-to-it"), ("0755", "sticky"),
    ]  # fmt: skip


def test_same_archive_gives_the_same_artifact(tmp_path: Path, work: Path) -> None:
    archive = _tar(
        tmp_path / "a.tar", _info("implied/dir/file", content=b"1"), _info("link", LINK, link="implied")
    )
    found = set()
    for _ in range(2):
        with open_source(archive, None, work) as opened:
            assert (
                os.lstat(opened.path / "link").st_mtime == os.lstat(opened.path / "implied/dir/file").st_mtime
            )
            found.add(pack(walk(opened.path, exclude=[], shared=Shared()), tmp_path).artifact.sha256)
    assert len(found) == 1


def test_sparse_files_of_tar(tmp_path: Path, work: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": b""})
    with (tree / "holes").open("wb") as file:
        file.write(b"start")
        file.seek(3_000_000)
        file.write(b"end")
    run(tool("tar"), "-S", "-C", tree, "-cf", tmp_path / "a.tar", ".")
    with open_source(tmp_path / "a.tar", None, work) as opened:
        assert simple_manifest(opened.path) == simple_manifest(tree)


def _whole(tmp_path: Path) -> bytes:
    """A tar of ten members, each of 512 + 30,208 bytes, that can't be compressed."""
    noise = random.Random(1)
    return _tar(
        tmp_path / "whole", *(_info(f"file-{n}", content=noise.randbytes(30_000)) for n in range(10))
    ).read_bytes()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("ending", ENCODERS)
def test_cut_archives(tmp_path: Path, work: Path, ending: str) -> None:
    data = ENCODERS[ending](_whole(tmp_path))
    archive = tmp_path / f"a{ending}"
    for keep in (0, 1, 100, 512, 513, 30_720, 31_232, len(data) // 2, len(data) - 10_240, len(data) - 1):
        archive.write_bytes(data[:keep])
        if ending == ".tar" and keep == len(data) - 1:
            continue  # only padding after the end is missing
        (problem,) = refusal_of(archive, work)
        assert problem.startswith("damaged, or not such an archive: "), (keep, problem)


@pytest.mark.parametrize("ending", ENCODERS)
def test_archives_of_a_tar_that_was_cut(tmp_path: Path, work: Path, ending: str) -> None:
    whole = _whole(tmp_path)
    archive = tmp_path / f"a{ending}"
    for keep in (
        31_232,
        2 * 31_232,
        31_232 + 512,
        40_000,
    ):  # at the end of a member, of a header, and in a content
        archive.write_bytes(ENCODERS[ending](whole[:keep]))
        (problem,) = refusal_of(archive, work)
        assert problem.startswith("damaged, or not such an archive: "), (keep, problem)


def test_broken_header_in_the_middle(tmp_path: Path, work: Path) -> None:
    whole = bytearray(_whole(tmp_path))
    second = whole.index(b"file-1")
    whole[second] ^= 1
    (tmp_path / "a.tar").write_bytes(whole)
    (problem,) = refusal_of(tmp_path / "a.tar", work)
    assert problem == "damaged, or not such an archive: bad checksum"


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.zst", ".zip"])
def test_flipped_bits(tmp_path: Path, work: Path, ending: str) -> None:
    if ending == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as members:
            members.writestr("a", b"content" * 1000)
        data = bytearray(buffer.getvalue())
    else:
        data = bytearray(ENCODERS[ending](_whole(tmp_path)))
    data[len(data) // 2] ^= 1
    archive = tmp_path / f"a{ending}"
    archive.write_bytes(data)
    (problem,) = refusal_of(archive, work)
    assert problem.startswith("damaged, or not such an archive: ")


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.zst", ".zip"])
def test_files_that_only_have_the_name(tmp_path: Path, work: Path, ending: str) -> None:
    archive = tmp_path / f"a{ending}"
    archive.write_bytes(b"this is text and nothing else\n" * 100)
    (problem,) = refusal_of(archive, work)
    assert problem.startswith("damaged, or not such an archive: ")


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.zst", ".zip"])
def test_bombs_stop_before_the_disk_is_full(tmp_path: Path, work: Path, ending: str) -> None:
    archive = tmp_path / f"a{ending}"
    size = 2 * 2**30
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
            members.writestr("zeros", bytes(1000))
        data = archive.read_bytes()  # the announced size is in the directory at the end
        announced = data.rindex(b"PK\x01\x02") + 24
        archive.write_bytes(data[:announced] + size.to_bytes(4, "little") + data[announced + 4 :])
    else:
        info, _ = _info("zeros")
        info.size = size
        plain = info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)
        archive.write_bytes(ENCODERS[ending](plain))
    (problem,) = refusal_of(archive, work)
    assert problem == "unpacks to more than 1,073,741,824 bytes, far more than its size lets expect"


def refused_in_little_memory(archive: Path, work: Path) -> str:
    tracemalloc.start()
    try:
        (problem,) = refusal_of(archive, work)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 * 2**20
    return problem


def test_bombs_of_zstd_take_no_memory(tmp_path: Path, work: Path) -> None:
    archive = tmp_path / "a.tar.zst"
    info, _ = _info("zeros")
    info.size = 2 * 2**30
    packer = zstandard.ZstdCompressor().compressobj()
    zeros = bytes(2**20)
    with archive.open("wb") as file:
        file.write(packer.compress(info.tobuf(tarfile.GNU_FORMAT)))
        for _ in range(200):
            file.write(packer.compress(zeros))
        file.write(packer.flush())
    problem = refused_in_little_memory(archive, work)
    assert problem.startswith("unpacks to more than ")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("first", [True, False])
def test_headers_that_announce_gigabytes(tmp_path: Path, work: Path, kind: bytes, first: bool) -> None:
    archive = tmp_path / "a.tar"
    info, _ = _info("long", kind)
    info.size = 2**30
    with archive.open("wb") as file:
        file.write(b"" if first else _info("a")[0].tobuf())
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**30 + 2**20)  # a hole
    problem = refused_in_little_memory(archive, work)
    assert problem == "damaged, or not such an archive: a header of 1,073,741,824 bytes"


def test_limit_counts_what_was_not_announced(tmp_path: Path) -> None:
    unpacker = Unpacker(tmp_path, default_time_s=0, limit_bytes=10)
    with pytest.raises(SourceError, match="unpacks to more than 10 bytes"):
        unpacker.file(b"a", iter([b"12345", b"67890", b"1"]), size=1, mode=0o644, time_s=0)


def test_more_than_the_disk_has(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    unpacker = Unpacker(tmp_path, default_time_s=0)
    with pytest.raises(SourceError, match="does not fit into") as caught:
        unpacker.file(b"a", [], size=space.f_bavail * space.f_frsize, mode=0o644, time_s=0)
    assert caught.value.hint


def test_names_that_the_disk_refuses(tmp_path: Path, work: Path) -> None:
    archive = _tar(tmp_path / "a.tar", _info("n" * 256))
    assert refusal_of(archive, work) == (f"{'n' * 256}: cannot be created here: File name too long",)


def test_many_problems_are_capped(tmp_path: Path, work: Path) -> None:
    problems = refusal_of(_tar(tmp_path / "a.tar", *(_info(f"/{n}") for n in range(1000))), work)
    assert len(problems) == 101
    assert problems[-1] == "and maybe more"


def test_deployignore_in_an_archive(tmp_path: Path, work: Path) -> None:
    archive = _tar(tmp_path / "a.tar", _info(".deployignore", content=b"*.log\n"), _info("a.log"), _info("b"))
    assert [line.split()[-1] for line in manifest_of(archive, work).splitlines()] == [b"b"]


def test_other_files_and_directories_are_taken_as_they_are(tmp_path: Path, work: Path) -> None:
    (tmp_path / "app.jar").write_bytes(b"PK")
    make_tree(tmp_path / "dir.tar", {"a": ""})
    for name in ("app.jar", "dir.tar", "missing.zip"):
        with open_source(tmp_path / name, None, work) as opened:
            assert opened.path == tmp_path / name
    assert names(work) == []


def test_archive_that_cannot_be_read(tmp_path: Path, work: Path) -> None:
    archive = _tar(tmp_path / "a.tar", _info("a"))
    with pytest.raises(SourceError, match=r"cannot be written: No such file or directory$"):
        manifest_of(archive, work / "no")
    assert escape(os.fsencode(archive)) == str(archive)
