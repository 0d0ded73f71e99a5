"""What somebody, or a hook, changed in an old release never gets into a new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delta.conftest import MakeWith
from tests.delta.kit import FILE_BYTES, Site, arrived, files_sent, flipped, forge, release_of, way, ways
from tests.life.moments import hooks
from tests.release.lab import Lab
from tests.release.trees import walk
from tests.support.wide import some

pytestmark = pytest.mark.sshd

LINKS = ("copy", "hard")


KINDS = [f"{tools}-{links}" for tools in ("gnu", "busybox") for links in LINKS]


@pytest.fixture(params=some(("gnu-copy", "busybox-hard"), KINDS))
def lab(request: pytest.FixtureRequest, make_with: MakeWith) -> Lab:
    tools, links = request.param.split("-")
    return make_with(tools, links)


@pytest.fixture(params=some(("hard",), LINKS))
def gnu(request: pytest.FixtureRequest, make_with: MakeWith) -> Lab:
    return make_with("gnu", request.param)


@pytest.mark.parametrize(
    "edit", ["forged", "written", "mode", "removed", "replaced", "directory mode", "link"]
)
def test_an_edit_by_hand(lab: Lab, tree: Site, edit: str) -> None:
    [place] = lab
    lab.push(tree.root)
    live = place.root / "current"
    file = live / "d0/f00"
    if edit == "forged":
        forge(file, flipped(file))
    elif edit == "written":
        file.write_text("by hand")
    elif edit == "mode":
        file.chmod(0o755)
    elif edit == "removed":
        file.unlink()
    elif edit == "replaced":
        file.unlink()
        file.mkdir()
        (file / "x").write_text("x")
    elif edit == "directory mode":
        (live / "d0").chmod(0o700)
    else:
        (live / "link").unlink()
        (live / "link").symlink_to("run")
    edited = walk(live.resolve())
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert walk(place.root / "releases" / place.releases[0]) == edited


def test_only_what_was_edited_is_sent_with_what_changed(gnu: Lab, tree: Site) -> None:
    [place] = gnu
    gnu.push(tree.root)
    file = place.root / "current/d0/f00"
    forge(file, flipped(file))
    tree.fill("d1/f01")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert (way(done), files_sent(done)) == ("delta", 2)


def test_content_that_is_there_under_an_edited_name_alone_is_sent(gnu: Lab, tree: Site) -> None:
    [place] = gnu
    gnu.push(tree.root)
    file = place.root / "current/d0/f00"
    forge(file, flipped(file))
    (tree.root / "d0/f00").rename(tree.root / "renamed")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert (way(done), files_sent(done)) == ("delta", 1)


def test_a_file_that_was_only_touched_is_read_and_not_sent(gnu: Lab, tree: Site) -> None:
    [place] = gnu
    gnu.push(tree.root)
    for file in (place.root / "current/").rglob("f*"):
        file.chmod(file.stat().st_mode & 0o777)
        file.touch()
    tree.fill("d1/f01")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert (way(done), files_sent(done)) == ("delta", 1)


def test_an_edit_between_the_look_and_the_copy(lab: Lab, tree: Site) -> None:
    """The host notices while it builds, and is sent the whole."""
    [place] = lab
    lab.push(tree.root)
    tree.fill("d1/f01")
    sign = place.hold("stage")
    running = lab.start("push", tree.root)
    running.wait_for_host("h01", "stage")
    file = place.root / "current/d0/f00"
    forge(file, flipped(file))
    sign.unlink()
    done = running.finish()
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta", "upload"]
    assert done.bytes_sent > 60 * FILE_BYTES


def test_a_release_that_vanishes_meanwhile(gnu: Lab, tree: Site) -> None:
    [place] = gnu
    first = gnu.push(tree.root)
    tree.fill("d1/f01")
    sign = place.hold("stage")
    running = gnu.start("push", tree.root)
    running.wait_for_host("h01", "stage")
    manifest = place.root / ".deployctl/manifests" / first.release
    manifest.write_text(manifest.read_text().replace(" 0644 ", " 0600 ", 1))
    sign.unlink()
    done = running.finish()
    arrived(gnu, done, tree.root)
    assert ways(done) == ["delta", "upload"]


def test_a_live_tree_that_was_edited_is_mended_by_a_delta(gnu: Lab, tree: Site) -> None:
    """The same tree again: the copy of what is there fails, then only the edited file travels."""
    [place] = gnu
    gnu.push(tree.root)
    file = place.root / "current/d0/f00"
    forge(file, flipped(file))
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert ways(done) == ["copy", "delta"]
    assert FILE_BYTES < done.bytes_sent < FILE_BYTES + 2000


CHANGES = ["printf hooked >d0/f00", "rm d0/f03", "chmod 755 d0/f06", "mkdir made; >made/x"]
REMOVALS = ["rm -rf d2", "chmod 700 d1", "rmdir cache; ln -s d0 cache"]


@pytest.mark.parametrize("script", some(["; ".join(CHANGES)], ["; ".join(CHANGES), *CHANGES]))
def test_hooks_that_change_a_file_in_every_release(lab: Lab, tree: Site, script: str) -> None:
    [place] = lab
    hooks(lab, {"staged": [script]})
    for _ in range(3):
        tree.fill("d1/f01")
        done = lab.push(tree.root)
        assert done.code == 0, done.stderr
        left = walk(place.root / "current/")
        packed = walk(tree.root)
        assert {path for path in packed if left.get(path) != packed[path]} <= {
            b"d0/f00",
            b"d0/f03",
            b"d0/f06",
        }
    assert way(done) == "delta"
    assert done.bytes_sent < 5 * FILE_BYTES
    assert lab.start("verify").finish().code == 0
    assert lab.push(tree.root).outcome == "unchanged"


def test_a_base_that_hard_links_gave_new_names_is_unchanged(make_with: MakeWith, tree: Site) -> None:
    """The old release stays live while the new one waits: it is neither read again nor taken for edited."""
    lab = make_with(links="hard")
    [place] = lab
    first = lab.push(tree.root)
    before = {path: path.read_bytes() for path in tree.root.glob("d1/*")}
    tree.fill("d1/f01")
    assert lab.push(tree.root, "--no-activate").outcome == "staged"
    for path, data in before.items():
        path.write_bytes(data)
    place.gate("inspect", f"touch {place.programs}/inspected")
    assert lab.push(tree.root).outcome == "unchanged"
    assert not (place.programs / "inspected").exists()
    file = release_of(place, first) / "d2/f02"
    forge(file, flipped(file))
    assert lab.start("verify").finish().code == 22
    assert lab.push(tree.root).outcome == "released"


def test_pruning_what_shares_inodes_leaves_the_live_release_as_recorded(
    make_with: MakeWith, tree: Site
) -> None:
    lab = make_with(links="hard", release={"keep": 2})
    [place] = lab
    for _ in range(4):
        tree.fill("d1/f01")
        done = lab.push(tree.root)
        arrived(lab, done, tree.root)
        assert len(place.releases) <= 2
        assert len(list((place.root / ".deployctl/stats").iterdir())) == len(place.releases)
    place.gate("inspect", f"touch {place.programs}/inspected")
    assert lab.push(tree.root).outcome == "unchanged"
    assert not (place.programs / "inspected").exists()
    file = place.root / "current/d2/f02"
    forge(file, flipped(file))
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert (way(done), files_sent(done)) == ("delta", 2)


def test_a_release_without_a_record_is_read_whole(gnu: Lab, tree: Site) -> None:
    """As an older deployctl left it."""
    [place] = gnu
    first = gnu.push(tree.root)
    record = place.root / ".deployctl/stats" / first.release
    record.unlink()
    tree.fill("d1/f01")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert ways(done) == ["delta"]
    record = place.root / ".deployctl/stats" / done.release
    record.unlink()
    file = place.root / "current/d0/f00"
    forge(file, flipped(file))
    tree.fill("d1/f01")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert ways(done) == ["delta", "upload"]


def test_a_torn_record_vouches_for_nothing(gnu: Lab, tree: Site) -> None:
    [place] = gnu
    first = gnu.push(tree.root)
    record = place.root / ".deployctl/stats" / first.release
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    tree.fill("d1/f01")
    done = gnu.push(tree.root)
    arrived(gnu, done, tree.root)
    assert (way(done), files_sent(done)) == ("delta", 1)


def test_more_edits_than_are_listed(make_with: MakeWith, tmp_path: Path) -> None:
    lab = make_with()
    [place] = lab
    site = Site(tmp_path / "many")
    for number in range(600):
        site.fill(f"small/{number}", 20)
    lab.push(site.root)
    for path in (place.root / "current/small").iterdir():
        path.write_text("edited")
    site.fill("d1/f01")
    done = lab.push(site.root)
    arrived(lab, done, site.root)
    assert ways(done) == ["upload"]


@pytest.mark.parametrize("where", ["d0/cache", "cache"])
def test_what_programs_put_there_is_not_copied_when_it_is_much(
    make_with: MakeWith, tree: Site, where: str
) -> None:
    """In a directory of the release that would be copied; one of its own is left where it is."""
    lab = make_with()
    [place] = lab
    lab.push(tree.root)
    extra = place.root / "current" / where
    with extra.open("wb") as file:
        for _ in range(70):
            file.write(bytes(1 << 20))
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta" if where == "cache" else "upload"]


@pytest.mark.parametrize(
    "script", some(["; ".join(REMOVALS)], ["; ".join(REMOVALS), *REMOVALS, "rmdir cache"])
)
def test_hooks_that_remove_a_directory_in_every_release(lab: Lab, tree: Site, script: str) -> None:
    (tree.root / "cache").mkdir()
    hooks(lab, {"staged": [script]})
    for number in range(3):
        tree.fill("d1/f01")
        done = lab.push(tree.root)
        assert done.code == 0, done.stderr
        assert ways(done) == (["delta"] if number else ["upload"])


def test_a_directory_with_a_space_at_its_end_and_another_mode(lab: Lab, tree: Site) -> None:
    [place] = lab
    tree.fill("sp /x")
    tree.fill("sp/y")
    (tree.root / "sp").chmod(0o750)
    lab.push(tree.root)
    (place.root / "current/sp ").chmod(0o700)
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta"]
