"""A tree that a host has under another id: made of that release, of which nothing is read that is as it was recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.delta.conftest import MakeWith
from tests.delta.kit import Site, arrived, flipped, forge, release_of, way, ways
from tests.release.lab import Lab, Place
from tests.release.running import Pushed
from tests.support.wide import some

pytestmark = pytest.mark.sshd


def three(lab: Lab, tree: Site, spoil: str = "") -> tuple[Pushed, Pushed, Pushed]:
    """Push a tree, another, and the first again; `spoil` is a file of the first release that is forged before."""
    first_tree = tree.root.with_name("first")
    shutil.copytree(tree.root, first_tree, symlinks=True)
    first = lab.push(first_tree)
    tree.fill("d0/f00")
    second = lab.push(tree.root)
    if spoil:
        for place in lab:
            file = release_of(place, first) / spoil
            forge(file, flipped(file))
    return first, second, lab.push(first_tree)


def numbers(place: Place, pushed: Pushed) -> dict[str, int]:
    root = release_of(place, pushed)
    return {
        str(p.relative_to(root)): p.stat().st_ino
        for p in root.rglob("*")
        if p.is_file() and not p.is_symlink()
    }


@pytest.mark.parametrize("tools", some(["gnu", "no printf"], ["gnu", "no printf", "busybox"]))
@pytest.mark.parametrize("links", ["copy", "hard"])
def test_it_is_copied_or_linked(make_with: MakeWith, tree: Site, tools: str, links: str) -> None:
    lab = make_with(tools, links, release={"shared": {"dirs": ["logs"]}})
    [place] = lab
    first, second, third = three(lab, tree)
    assert (third.code, ways(third), third.bytes_sent) == (0, ["copy"], 0)
    assert third.release not in (first.release, second.release)
    before, after = numbers(place, first), numbers(place, third)
    assert before.keys() == after.keys()
    same = {name for name, number in after.items() if before[name] == number}
    assert same == (set(after) if links == "hard" and tools == "gnu" else set())
    assert (release_of(place, third) / "logs").readlink() == Path("../../shared/logs")
    assert lab.push(tree.root.with_name("first")).outcome == "unchanged"
    tree.fill("d1/f01")
    assert way(lab.push(tree.root)) == "delta"


@pytest.mark.parametrize("links", ["copy", "hard"])
def test_content_that_is_as_recorded_is_not_read(make_with: MakeWith, tree: Site, links: str) -> None:
    """What the manifest's digest needs is one file; a second one that is hashed while this is staged fails it."""
    lab = make_with("gnu", links)
    [place] = lab
    first_tree = tree.root.with_name("first")
    shutil.copytree(tree.root, first_tree, symlinks=True)
    lab.push(first_tree)
    tree.fill("d0/f00")
    lab.push(tree.root)
    for tool in ("openssl", "sha256sum"):
        place.gate(f"stage.{tool}", 'case "$*" in *./d[012]/* | *-c*) exit 1 ;; esac')
    third = lab.push(first_tree)
    assert (third.code, ways(third), third.bytes_sent) == (0, ["copy"], 0)


@pytest.mark.parametrize("links", ["copy", "hard"])
def test_a_file_that_was_edited_there_is_not_taken(make_with: MakeWith, tree: Site, links: str) -> None:
    lab = make_with("gnu", links)
    third = three(lab, tree, spoil="d1/f01")[2]
    arrived(lab, third, tree.root.with_name("first"))
    assert ways(third)[0] == "copy"
    assert way(third) != "copy"


@pytest.mark.parametrize("tools", ["gnu", "busybox"])
def test_what_was_put_there_is_not_taken(make_with: MakeWith, tree: Site, tools: str) -> None:
    """Files and directories of modes that the release has nowhere: busybox's find can't list them all at once."""
    lab = make_with(tools)
    [place] = lab
    first_tree = tree.root.with_name("first")
    shutil.copytree(tree.root, first_tree, symlinks=True)
    first = lab.push(first_tree)
    tree.fill("d0/f00")
    lab.push(tree.root)
    cache = release_of(place, first) / "cache"
    cache.mkdir(mode=0o700)
    (cache / "session").write_text("x")
    (cache / "session").chmod(0o600)
    arrived(lab, lab.push(first_tree), first_tree)
