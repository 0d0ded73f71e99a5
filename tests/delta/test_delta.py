"""A redeploy sends what changed, whatever tools a host has, and what arrives is the new tree and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.artifact.trees import make_nasty_tree
from tests.delta.conftest import MakeWith
from tests.delta.kit import FILE_BYTES, Site, arrived, files_sent, release_of, way, ways
from tests.release.lab import Lab
from tests.release.trees import listing, walk
from tests.support.wide import some

pytestmark = pytest.mark.sshd

TOOLS = ("gnu", "busybox", "gzip", "no printf")
LINKS = ("copy", "hard")


@pytest.fixture(
    params=some(
        ("gnu-copy", "gnu-hard", "busybox-copy", "gzip-hard", "no printf-copy"),
        [f"{tools}-{links}" for tools in TOOLS for links in LINKS],
    )
)
def lab(request: pytest.FixtureRequest, make_with: MakeWith) -> Lab:
    tools, links = request.param.split("-")
    return make_with(tools, links)


@pytest.fixture(params=LINKS)
def gnu(request: pytest.FixtureRequest, make_with: MakeWith) -> Lab:
    return make_with("gnu", request.param)


def content(top: Path) -> dict[bytes, tuple[int, int, int]]:
    """What must not change in an old release: inode, mode and size of everything, not the time that a hard link moves."""
    return {path: entry[:3] for path, entry in listing(top).items()}


def test_one_change_sends_one_file(lab: Lab, tree: Site) -> None:
    [place] = lab
    first = lab.push(tree.root)
    assert first.bytes_sent > 60 * FILE_BYTES
    old = release_of(place, first)
    before, seen = walk(old), content(old)
    tree.fill("d1/f01")
    second = lab.push(tree.root)
    arrived(lab, second, tree.root)
    assert way(second) == "delta"
    assert files_sent(second) == 1
    assert FILE_BYTES < second.bytes_sent < FILE_BYTES + 3000
    assert second.sent("h01") == second.bytes_sent
    assert (walk(old), content(old)) == (before, seen)
    assert lab.push(tree.root).outcome == "unchanged"
    assert lab.start("verify").finish().code == 0


def test_many_kinds_of_change_at_once(lab: Lab, tree: Site) -> None:
    root = tree.root
    (root / "became dir").write_text("file")
    (root / "became file").mkdir()
    (root / "became file/inside").write_text("x")
    (root / "became link").write_text("y")
    (root / "from link").symlink_to("run")
    (root / "emptied").mkdir()
    (root / "emptied/file").write_text("z")
    one = lab.push(root)
    (root / "became dir").unlink()
    (root / "became dir").mkdir()
    tree.fill("became dir/now", 100)
    shutil.rmtree(root / "became file")
    tree.fill("became file", 100)
    (root / "became link").unlink()
    (root / "became link").symlink_to("run")
    (root / "from link").unlink()
    (root / "from link").write_text("a file now")
    (root / "emptied/file").unlink()
    (root / "link").unlink()
    (root / "link").symlink_to("d1")
    (root / "run").chmod(0o700)
    (root / "d2").chmod(0o750)
    (root / "d0/f03").unlink()
    two = lab.push(root)
    arrived(lab, two, root)
    assert way(two) == "delta"
    assert two.bytes_sent < 4000
    for back in (one, two):
        assert lab.start("rollback", str(back.release)).finish().code == 0
    assert lab.start("verify").finish().code == 0


def test_renamed_and_duplicate_content_is_not_sent(lab: Lab, tree: Site) -> None:
    root = tree.root
    lab.push(root)
    os.rename(root / "d0", root / "moved")  # noqa: PTH104
    (root / "link").unlink()
    (root / "link").symlink_to("moved/f00")
    # Two files change places, one is there twice, one is new and there twice, with a mode and a time of its own.
    (root / "d1/f01").rename(root / "aside")
    (root / "d1/f04").rename(root / "d1/f01")
    (root / "aside").rename(root / "d1/f04")
    shutil.copy(root / "d2/f02", root / "twice")
    (root / "twice").chmod(0o600)
    new = tree.fill("new", 20_000)
    (root / "new again").write_bytes(new.read_bytes())
    (root / "new again").chmod(0o755)
    os.utime(root / "new again", (1_000_000_000, 1_000_000_000))
    done = lab.push(root)
    arrived(lab, done, root)
    assert way(done) == "delta"
    assert files_sent(done) == 1
    assert 20_000 < done.bytes_sent < 27_000
    [place] = lab
    assert (place.root / "current/new again").stat().st_mtime == 1_000_000_000
    assert int((place.root / "current/new").stat().st_mtime) == int(new.stat().st_mtime)


def test_names_that_break_tools(lab: Lab, tmp_path: Path) -> None:
    tree = make_nasty_tree(tmp_path / "nasty")
    (tree / "heavy").write_bytes(os.urandom(50_000))
    lab.push(tree)
    files = sorted(path for path in tree.iterdir() if path.is_file() and path.name != "heavy")
    for number, path in enumerate(files):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.rename(tree / ("renamed" + path.name[:200]))
    (tree / "locked").chmod(0o755)
    (tree / "locked/more").write_text("more")
    (tree / "locked").chmod(0o555)
    done = lab.push(tree)
    arrived(lab, done, tree)
    assert done.bytes_sent < 30_000


def test_a_mode_alone(gnu: Lab, tree: Site) -> None:
    [place] = gnu
    first = gnu.push(tree.root)
    before = walk(release_of(place, first))
    (tree.root / "d0/f00").chmod(0o600)
    second = gnu.push(tree.root)
    arrived(gnu, second, tree.root)
    assert (way(second), files_sent(second)) == ("delta", 0)
    assert walk(release_of(place, first)) == before


def test_a_write_into_the_new_release_does_not_reach_the_old(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    [place] = lab
    first = lab.push(tree.root)
    tree.fill("d0/f00")
    second = lab.push(tree.root)
    before = walk(release_of(place, first))
    for path in release_of(place, second).rglob("f*"):
        path.write_text("written into")
    assert walk(release_of(place, first)) == before


def test_hard_links_share_what_did_not_change(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(links="hard")
    [place] = lab
    first = lab.push(tree.root)
    tree.fill("d0/f00")
    (tree.root / "d1/f01").rename(tree.root / "renamed")
    second = lab.push(tree.root)
    old, new = release_of(place, first), release_of(place, second)
    assert (old / "d2/f02").samefile(new / "d2/f02")
    assert (old / "d1/f01").samefile(new / "renamed")
    assert not (old / "d0/f00").samefile(new / "d0/f00")


def test_what_lies_about_in_the_old_release_is_not_carried_over(gnu: Lab, tree: Site) -> None:
    gnu.push(tree.root)
    [place] = gnu
    live = place.root / "current"
    (live / "cache").mkdir()
    (live / "cache/entry").write_text("x")
    (live / "d0/extra").write_text("x")
    (live / "d1/extra link").symlink_to("/")
    os.mkfifo(live / "d2/fifo")
    tree.fill("d0/f00")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert way(done) == "delta"


def test_a_delta_that_saves_nothing_is_not_used(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    lab.push(tree.root)
    for path in tree.root.glob("d*/*"):
        tree.fill(str(path.relative_to(tree.root)))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert way(done) == "upload"


@pytest.mark.parametrize("links", LINKS)
def test_shared_links_come_anew(make_with: MakeWith, tree: Site, links: str) -> None:
    lab = make_with(links=links, release={"shared": {"dirs": ["var/log"]}})
    [place] = lab
    lab.push(tree.root)
    tree.fill("d0/f00")
    done = lab.push(tree.root)
    assert way(done) == "delta"
    assert (place.root / "current/var/log").resolve() == place.root / "shared/var/log"
    assert (place.root / "current/d0/f00").read_bytes() == (tree.root / "d0/f00").read_bytes()


def test_a_host_without_xargs_is_sent_the_whole(make_with: MakeWith, tree: Site) -> None:
    """At once, not after a delta that cannot be built."""
    lab = make_with("no xargs")
    lab.push(tree.root)
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["upload"]
