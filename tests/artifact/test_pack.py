"""The packed artifact, unpacked by other people's programs and compared byte for byte."""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH103, PTH118, PTH120

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployctl.artifact.manifest import Manifest
from deployctl.artifact.pack import Packed, pack
from deployctl.artifact.transcode import transcode
from tests.artifact.trees import (
    as_nobody,
    file_times,
    make_nasty_tree,
    make_tree,
    names,
    run,
    simple_manifest,
    tool,
    walked,
    write,
)


def _plain(packed: Packed) -> bytes:
    with packed.artifact.path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


@pytest.fixture(params=["tar", "busybox"])
def untar(request: pytest.FixtureRequest) -> Callable[[Path, Path], Path]:
    """A function of archive and directory that unpacks with that program and returns the tree in it."""
    command = (tool("tar"),) if request.param == "tar" else (tool("busybox"), "tar")

    def unpack(archive: Path, into: Path) -> Path:
        into.mkdir()
        run(*command, "-xpzf" if archive.suffix == ".gz" else "-xpf", archive, cwd=into, umask=0)
        # busybox sets a mode by creating with it, and changes none unless it is root: this is what a host does then.
        for entry in Manifest.from_bytes((into / "manifest").read_bytes()).locked:
            (into / "tree" / os.fsdecode(entry.path)).chmod(entry.mode)
        return into / "tree"

    return unpack


Untar = Callable[[Path, Path], Path]


def test_nasty_tree_comes_out_of_other_programs_as_it_went_in(
    tmp_path: Path, out: Path, untar: Untar
) -> None:
    tree = make_nasty_tree(tmp_path / "tree")
    packed = pack(walked(tree), out)
    plain = tmp_path / "plain.tar"
    plain.write_bytes(_plain(packed))
    unpacked = untar(plain, tmp_path / "unpacked")
    assert simple_manifest(unpacked) == simple_manifest(tree)
    assert (unpacked.parent / "manifest").read_bytes() == packed.manifest.to_bytes()
    assert file_times(unpacked) == file_times(tree)


def test_directories_without_write_permission_come_out_without_root(open_dir: Path, untar: Untar) -> None:
    tree = make_nasty_tree(open_dir / "tree")
    plain = open_dir / "plain.tar"
    packed = pack(walked(tree), open_dir)
    plain.write_bytes(_plain(packed))
    expected = simple_manifest(tree)
    assert [entry.path for entry in packed.manifest.locked] == [b"locked/inner", b"locked"]

    def unpack_and_compare() -> None:
        assert simple_manifest(untar(plain, open_dir / "unpacked")) == expected

    as_nobody(unpack_and_compare)


def test_gnu_tar_locks_directories_by_itself(open_dir: Path) -> None:
    tree = make_nasty_tree(open_dir / "tree")
    plain = open_dir / "plain.tar"
    plain.write_bytes(_plain(pack(walked(tree), open_dir)))
    expected = simple_manifest(tree)

    def unpack_and_compare() -> None:
        (open_dir / "unpacked").mkdir()
        run("tar", "-xpf", plain, cwd=open_dir / "unpacked")
        assert simple_manifest(open_dir / "unpacked" / "tree") == expected

    as_nobody(unpack_and_compare)


def test_gzip_holds_the_same_archive(tmp_path: Path, out: Path, untar: Untar) -> None:
    tree = make_nasty_tree(tmp_path / "tree")
    write(tree / "noise", os.urandom(3_000_000))
    packed = pack(walked(tree), out)
    artifact = transcode(packed, "gzip", out, threads=2)
    data = artifact.path.read_bytes()
    assert (artifact.size_bytes, artifact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (
        run("gzip", "-dc", artifact.path)
        == run(tool("busybox"), "gunzip", "-c", artifact.path)
        == _plain(packed)
    )
    assert simple_manifest(untar(artifact.path, tmp_path / "unpacked")) == simple_manifest(tree)


def test_artifact_is_described_as_it_is(tmp_path: Path, out: Path) -> None:
    packed = pack(walked(make_tree(tmp_path / "tree", {"a": "one", "d/b": "two", "link": "->a"})), out)
    data = packed.artifact.path.read_bytes()
    assert packed.artifact.codec == "zstd"
    assert (packed.artifact.size_bytes, packed.artifact.sha256) == (
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert packed.unpacked_bytes == len(_plain(packed))
    assert packed.links == {b"link": b"a"}
    assert names(out) == [f"{packed.tree_digest}.tar.zst"]


def test_layout(tmp_path: Path, out: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a/b": "1", "a-b": "2", "a.b": "3", "link": "->a"})
    with tarfile.open(fileobj=io.BytesIO(_plain(pack(walked(tree), out)))) as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == [
        "tree/a",
        "tree/a-b",
        "tree/a.b",
        "tree/a/b",
        "tree/link",
        "manifest",
    ]
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert members[-1].mode == 0o644


def test_fixed_tree_has_the_digest_it_always_had(tmp_path: Path, out: Path) -> None:
    tree = make_tree(
        tmp_path / "tree", {"bin/run": "#!/bin/sh\n", "empty/": "", "caf\u00e9": "x", "now": "->bin/run"}
    )
    (tree / "bin" / "run").chmod(0o755)
    packed = pack(walked(tree), out)
    assert packed.manifest.to_bytes() == (
        b"d 0755 0 - bin\n"
        b"f 0755 10 a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf bin/run\n"
        b"f 0644 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 caf\\xc3\\xa9\n"
        b"d 0755 0 - empty\n"
        b"l 0777 7 57b94356302c85712d33811d8bda2a57b5181e3b496466db149873f6ed118265 now\n"
    )
    assert packed.tree_digest == "2f28174d20e90a2ef97881414c119dd3a8b26a3b43a2bad4c09e0d2bb5ac606c"


def test_same_tree_gives_the_same_bytes_whatever_the_threads(tmp_path: Path, out: Path) -> None:
    tree = make_nasty_tree(tmp_path / "tree")
    write(tree / "large", os.urandom(100_000) * 200)
    digests = {pack(walked(tree), out, threads=threads).artifact.sha256 for threads in (1, 1, 2, 4)}
    assert len(digests) == 1
    packed = pack(walked(tree), out)
    assert len({transcode(packed, "gzip", out, threads=threads).sha256 for threads in (1, 2, 5)}) == 1


def test_one_file_is_a_tree_of_one(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "app.jar"
    file.write_bytes(b"jar")
    (tmp_path / "latest.jar").symlink_to("app.jar")
    for name in ("app.jar", "latest.jar"):
        packed = pack(walked(tmp_path / name), out)
        assert [(e.path, e.size) for e in packed.manifest.entries] == [(name.encode(), 3)]


def test_empty_tree_where_it_is_allowed(tmp_path: Path, out: Path) -> None:
    (tmp_path / "tree").mkdir()
    packed = pack(walked(tmp_path / "tree", allow_empty=True), out)
    assert packed.manifest.entries == ()
    assert packed.tree_digest == hashlib.sha256(b"").hexdigest()


def test_progress_ends_with_everything(tmp_path: Path, out: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"small": b"1", "large": bytes(5_000_000), "z": b"22"})
    seen: list[tuple[int, int]] = []
    packed = pack(walked(tree), out, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (5_000_003, 5_000_003)
    assert len(seen) > 4
    seen.clear()
    transcode(packed, "gzip", out, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (packed.unpacked_bytes, packed.unpacked_bytes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.lists(
            st.binary(min_size=1, max_size=6).map(
                lambda raw: b"n" + raw.replace(b"/", b"_").replace(b"\0", b"_")
            ),
            min_size=1,
            max_size=4,
        ).map(tuple),
        st.tuples(st.binary(max_size=2000), st.sampled_from([0o600, 0o644, 0o755, 0o444])),
        max_size=12,
    )
)
def test_random_trees(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[bytes, ...], tuple[bytes, int]]
) -> None:
    base = tmp_path_factory.mktemp("random")
    tree = base / "tree"
    tree.mkdir()
    for parts, (content, mode) in files.items():
        place = os.path.join(os.fsencode(tree), *parts)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            write(place, content, mode=mode)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # a name that is a file in one path and a directory in another
    packed = pack(walked(tree, allow_empty=True), base)
    assert packed.manifest.to_bytes() == simple_manifest(tree)
    plain = base / "plain.tar"
    plain.write_bytes(_plain(packed))
    (base / "unpacked" / "tree").mkdir(parents=True)
    run("tar", "-xpf", plain, cwd=base / "unpacked")
    assert simple_manifest(base / "unpacked" / "tree") == simple_manifest(tree)
