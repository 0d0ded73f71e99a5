"""Zip archives as SOURCE: facts of Unix that hide in them, and what must not come through."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from deployctl.artifact.source import open_source
from tests.artifact.sources import manifest_of, refusal_of
from tests.artifact.trees import file_times, make_tree, run, simple_manifest, tool


def test_zip_made_by_zip(tmp_path: Path, work: Path) -> None:
    tree = make_tree(
        tmp_path / "tree",
        {"bin/run": "#!/bin/sh\n", "caf\u00e9": "x", "link": "->bin/run", "empty/": "", "d/secret": ""},
    )
    (tree / "bin" / "run").chmod(0o755)
    (tree / "d" / "secret").chmod(0o600)
    os.utime(tree / "bin" / "run", (1_500_000_001, 1_500_000_001))
    archive = tmp_path / "a.zip"
    run(tool("zip"), "-q", "-r", "-y", archive, ".", cwd=tree)
    with open_source(archive, None, work) as opened:
        assert simple_manifest(opened.path) == simple_manifest(tree)
        assert file_times(opened.path)[b"/bin/run"] == 1_500_000_001


def test_zip_names_and_modes_without_unix(tmp_path: Path, work: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr(_zip_info("dos.txt", create_system=0, attributes=0x20), b"x" * 1000)
        members.writestr(_zip_info("nomode", attributes=0x20), b"")
        members.writestr(_zip_info("d/", attributes=0x10), b"")
        members.writestr(_zip_info("\u00fc/f"), b"")
    lines = [line.split() for line in manifest_of(archive, work).splitlines()]
    assert [(line[1], line[2], line[4]) for line in lines] == [
        (b"0755", b"0", b"d"),
        (b"0644", b"1000", b"dos.txt"),
        (b"0644", b"0", b"nomode"),
        (b"0755", b"0", b"\\xc3\\xbc"),
        (b"0644", b"0", b"\\xc3\\xbc/f"),
    ]


def _zip_info(
    name: str, *, create_system: int = 3, attributes: int = (stat.S_IFREG | 0o644) << 16
) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2020, 2, 2, 2, 2, 2))
    info.create_system = create_system
    info.external_attr = attributes
    return info


def _zip(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("info", "content", "problem"),
    [
        (_zip_info("/etc/x"), b"", "/etc/x: is an absolute path"),
        (_zip_info("a/../../x"), b"", "a/../../x: is not a path inside the tree"),
        (
            _zip_info("a\\b", create_system=0),
            b"",
            "a\\x5cb: has backslashes between directories, as some programs on Windows write them",
        ),
        (
            _zip_info("l", attributes=(stat.S_IFLNK | 0o777) << 16),
            b"../../etc",
            "l: leads out of the tree, to ../../etc",
        ),
        (
            _zip_info("l", attributes=(stat.S_IFLNK | 0o777) << 16),
            b"x" * 5000,
            "l: is a link with a text that is too long",
        ),
        (_zip_info("p", attributes=(stat.S_IFIFO | 0o644) << 16), b"", "p: is a special file"),
        (
            _zip_info("s", attributes=(stat.S_IFREG | 0o4755) << 16),
            b"",
            "s: is setuid or setgid, which a release never is",
        ),
    ],
)
def test_what_a_zip_must_not_hold(
    tmp_path: Path, work: Path, info: zipfile.ZipInfo, content: bytes, problem: str
) -> None:
    assert refusal_of(_zip(tmp_path / "a.zip", (_zip_info("fine"), b""), (info, content)), work) == (problem,)


def test_encrypted_zip(tmp_path: Path, work: Path) -> None:
    (tmp_path / "secret").write_text("x")
    run(tool("zip"), "-q", "-P", "password", "a.zip", "secret", cwd=tmp_path)
    assert refusal_of(tmp_path / "a.zip", work) == ("secret: is encrypted",)


def test_duplicate_in_a_zip(tmp_path: Path, work: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = _zip(tmp_path / "a.zip", (_zip_info("a"), b"1"), (_zip_info("a"), b"2"))
    assert refusal_of(archive, work) == ("a: is there twice",)
