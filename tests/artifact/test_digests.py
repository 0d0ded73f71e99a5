"""The cache of digests: what did not change is not read again, and whatever changed is."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from deployctl.artifact import digests, pack
from deployctl.artifact.digests import GRAIN_NS, KEPT, Digests, has_sound_times
from deployctl.artifact.manifest import Manifest
from deployctl.artifact.reading import read_whole
from deployctl.artifact.walk import Found, Walked, walk
from deployctl.model import Shared

Read = list[bytes]


@pytest.fixture(autouse=True)
def _sound(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Wherever tests have their directories, their times count."""
    if "mounts" not in request.node.name:
        monkeypatch.setattr(digests, "has_sound_times", lambda _source: True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "css").mkdir(parents=True)
    for name in ("index.html", "css/a.css", "css/b.css"):
        (made / name).write_text(f"content of {name}")
    (made / "link").symlink_to("css/a.css")
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Paths of the files that were read."""
    paths: Read = []

    def noting(walked: Walked, found: Found) -> tuple[bytes, str]:
        paths.append(found.path)
        return read_whole(walked, found)

    monkeypatch.setattr(pack, "read_whole", noting)
    return paths


def hashed(source: Path, cache: Path, *, later_ns: int = 2 * GRAIN_NS) -> Manifest:
    """Hash `source` with the cache, as if so much time had passed."""
    walked = walk(source, exclude=[], shared=Shared(), allow_empty=True)
    known = Digests(cache, source)
    known._read_at_ns = time.time_ns() + later_ns
    manifest = pack.read_manifest(walked, known)
    known.keep(walked, manifest.entries)
    return manifest


def test_what_did_not_change_is_not_read_again(source: Path, tmp_path: Path, read: Read) -> None:
    first = hashed(source, tmp_path / "cache")
    assert sorted(read) == [b"css/a.css", b"css/b.css", b"index.html"]
    read.clear()
    assert hashed(source, tmp_path / "cache") == first
    assert read == []


@pytest.mark.parametrize("how", ["same size and mtime", "another file of its name", "new mtime alone"])
def test_whatever_changed_is_read(source: Path, tmp_path: Path, read: Read, how: str) -> None:
    first = hashed(source, tmp_path / "cache")
    page = source / "css/a.css"
    status = page.stat()
    if how == "another file of its name":
        (source / "new").write_bytes(page.read_bytes().upper())
        (source / "new").replace(page)
    elif how == "same size and mtime":
        page.write_bytes(page.read_bytes().upper())
    os.utime(page, ns=(status.st_atime_ns, status.st_mtime_ns + (how == "new mtime alone")))
    read.clear()
    second = hashed(source, tmp_path / "cache")
    assert read == [b"css/a.css"]
    assert (second == first) == (how == "new mtime alone")


def test_what_is_as_young_as_the_clock_is_coarse_is_read_again(
    source: Path, tmp_path: Path, read: Read
) -> None:
    hashed(source, tmp_path / "cache", later_ns=0)
    read.clear()
    hashed(source, tmp_path / "cache")
    assert len(read) == 3


@pytest.mark.parametrize(
    "content", [b"", b"deployctl digests 1\nno numbers\n", b"deployctl digests 9\n", b"\xff\0"]
)
def test_a_cache_that_makes_no_sense_is_none(source: Path, tmp_path: Path, content: bytes) -> None:
    first = hashed(source, tmp_path / "cache")
    [file] = (tmp_path / "cache").iterdir()
    file.write_bytes(content)
    assert hashed(source, tmp_path / "cache") == first
    assert file.read_bytes() != content


def test_a_cache_that_cannot_be_written_is_not_missed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a directory should be")
    assert hashed(source, tmp_path / "cache") == hashed(source, tmp_path / "cache")


def test_the_sources_used_last_are_kept(source: Path, tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        (tmp_path / f"s{number}").mkdir()
        hashed(tmp_path / f"s{number}", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == KEPT


def test_what_was_wrong_can_be_forgotten(source: Path, tmp_path: Path, read: Read) -> None:
    hashed(source, tmp_path / "cache")
    Digests(tmp_path / "cache", source).forget()
    read.clear()
    hashed(source, tmp_path / "cache")
    assert len(read) == 3


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:25 / /home rw shared:1 - xfs /dev/vdb rw
29 27 0:26 / /tmp rw - tmpfs tmpfs rw
30 27 0:27 / /cdrom ro - ext4 /dev/loop0 ro
31 27 0:28 / /home/me/app/node_modules rw - fuse.sshfs there rw
32 27 0:29 / /srv/with\\040space rw - nfs4 there rw
"""


@pytest.mark.parametrize(
    ("place", "sound"),
    [
        ("/opt/app", True),
        ("/home/you", True),
        ("/homestead", True),
        ("/tmp/app", False),
        ("/cdrom/app", False),
        ("/home/me/app", False),
        ("/srv/with space/app", False),
    ],
)
def test_mounts_tell_whether_times_can_be_relied_upon(tmp_path: Path, place: str, sound: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert has_sound_times(Path(place), tmp_path / "mounts") is sound
    assert has_sound_times(Path(place), tmp_path / "none") is (sys.platform == "darwin")


def test_unsound_mounts_have_no_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "has_sound_times", lambda _source: False)
    hashed(source, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
