"""What is written into a base at an awkward moment, or hidden by a step that fails, neither goes live nor is vouched for."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.delta.conftest import MakeWith
from tests.delta.kit import Site, arrived, files_sent, flipped, forge, ways
from tests.release.trees import walk

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize(
    ("tools", "moment"),
    [
        ("gnu", "linked"),
        ("gnu", "replaced"),
        ("gnu", "published"),
        ("no printf", "linked"),
        ("no cnewer", "published"),
    ],
)
def test_a_base_that_is_written_to_while_it_is_linked(
    make_with: MakeWith, tree: Site, tools: str, moment: str
) -> None:
    """Between the links and the end; the second time, of the same size and with another inode."""
    lab = make_with("gnu" if tools == "no cnewer" else tools, links="hard")
    [place] = lab
    if tools == "no cnewer":
        find = shutil.which("find")
        place.program(
            "find", f'#!/bin/sh\ncase "$*" in *-printf*|*-cnewer*) exit 1;; esac\nexec {find} "$@"\n'
        )
    lab.push(tree.root)
    file = place.root.resolve() / "current/d0/f00"
    tree.fill("d1/f01")
    once = f"[ -e {place.programs}/once ] || {{ : >{place.programs}/once;"
    write = f"printf EDITED | dd of={file} conv=notrunc 2>/dev/null"
    if moment == "linked":
        place.gate("stage.tar", f"{once} {write}; }}")
    elif moment == "replaced":
        new = f"{file}.n"
        place.gate(
            "stage.cp",
            f"case $* in *-RPl*|*-RPpl*) cp {file} {new}; printf EDITED | dd of={new} conv=notrunc 2>/dev/null; mv {new} {file};; esac",
        )
    else:
        place.gate("stage.mv", f"case $* in *releases/*) {once} echo appended >>{file}; }};; esac")
    done = lab.push(tree.root)
    place.mend()
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta", "upload"]
    assert lab.push(tree.root).outcome == "unchanged"
    tree.fill("d2/f02")
    third = lab.push(tree.root)
    arrived(lab, third, tree.root)
    assert ways(third) == ["delta"]


def test_a_record_that_cannot_be_derived_is_made_anew(make_with: MakeWith, tree: Site) -> None:
    """From the list of the new release, that is; then the base is looked at again."""
    lab = make_with(links="hard")
    [place] = lab
    lab.push(tree.root)
    tree.fill("d1/f01")
    place.gate("stage.awk", "case $* in *kind=u*kind=n*) exit 2;; esac")
    before = {path: path.read_bytes() for path in tree.root.glob("d0/*")}
    tree.fill("d0/f00")
    assert lab.push(tree.root, "--no-activate").outcome == "staged"
    place.mend()
    for path, data in before.items():
        path.write_bytes(data)
    file = place.root / "current/d2/f02"
    forge(file, flipped(file))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert (ways(done), files_sent(done)) == (["delta"], 2)


def test_a_record_that_cannot_be_renewed_vouches_for_nothing(make_with: MakeWith, tree: Site) -> None:
    """As when the disk is full: the edited base, which stays live, is not taken for recorded as it is."""
    lab = make_with(links="hard")
    [place] = lab
    lab.push(tree.root)
    file = place.root / "current/d0/f00"
    file.write_bytes(flipped(file))
    tree.fill("d1/f01")
    place.gate("stage.awk", "case $* in *kind=h*kind=n*held.now*) exit 2;; esac")
    place.gate("stage.mv", "case $* in *releases/*) exit 1;; esac")
    assert lab.push(tree.root).code != 0
    place.mend()
    done = lab.push(tree.root)
    assert done.code == 0, done.stderr
    assert walk(place.root / "current/") == walk(tree.root)
    assert lab.start("verify").finish().code == 0


@pytest.mark.parametrize("edit", ["ln -sfn run {}/link", "chmod 700 {}/d0"])
def test_an_edit_of_no_file_while_the_base_is_recorded_anew(
    make_with: MakeWith, tree: Site, edit: str
) -> None:
    lab = make_with(links="hard")
    [place] = lab
    lab.push(tree.root)
    path = tree.root / "d1/f01"
    before = path.read_bytes()
    tree.fill("d1/f01")
    once = f"{place.programs}/once"
    live = place.root.resolve() / "current"
    place.gate("stage.tar", f"[ -e {once} ] || {{ : >{once}; {edit.format(live)}; }}")
    assert lab.push(tree.root, "--no-activate").outcome == "staged"
    place.mend()
    path.write_bytes(before)
    assert lab.push(tree.root).outcome == "released"
    assert walk(place.root / "current/") == walk(tree.root)


def test_an_edit_of_no_file_while_others_are_pruned(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(links="hard", release={"keep": 2})
    [place] = lab
    for _ in range(2):
        tree.fill("d1/f01")
        lab.push(tree.root)
    live = place.root.resolve() / "current"
    place.gate("prune.mv", f"case $* in *releases/2*) ln -sfn run {live}/link; chmod 700 {live}/d0;; esac")
    tree.fill("d1/f01")
    assert lab.push(tree.root).outcome == "released"
    place.mend()
    assert walk(place.root / "current/") != walk(tree.root)
    assert lab.push(tree.root).outcome == "released"
    assert walk(place.root / "current/") == walk(tree.root)


def test_names_with_a_byte_that_stands_for_a_newline(make_with: MakeWith, tree: Site) -> None:
    """One is not vouched for by the other."""
    lab = make_with()
    [place] = lab
    tree.fill("d0/a\x01b")
    tree.fill("d0/a\nb")
    lab.push(tree.root)
    file = place.root / "current/d0/a\nb"
    tree.fill("d1/f01")
    sign = place.hold("stage")
    running = lab.start("push", tree.root)
    running.wait_for_host("h01", "stage")
    file.write_bytes(flipped(file))
    sign.unlink()
    done = running.finish()
    place.mend()
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta", "upload"]
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta"]


@pytest.mark.parametrize("links", ["copy", "hard"])
def test_an_edit_while_the_clock_was_set_back(make_with: MakeWith, tree: Site, links: str) -> None:
    """Its times are older than the manifest's; the record tells."""
    lab = make_with(links=links)
    [place] = lab
    first = lab.push(tree.root)
    os.utime(place.root / ".deployctl/manifests" / first.release, (time.time() + 3600,) * 2)
    (place.root / "current/d0/f00").write_text("by hand")
    dry = lab.push(tree.root, "--dry-run")
    assert dry.code == 0, dry.stderr
    done = lab.push(tree.root)
    assert (done.code, done.outcome) == (0, "released"), done.stderr
    assert walk(place.root / "current/") == walk(tree.root)
