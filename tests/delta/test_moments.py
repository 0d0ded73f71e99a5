"""What is written into a base at an awkward moment, or hidden by a step that fails, neither goes live nor is vouched for."""

from __future__ import annotations

import shutil

import pytest

from tests.delta.conftest import MakeWith
from tests.delta.kit import Site, arrived, ways

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize(
    ("tools", "moment"),
    [("gnu", "linked"), ("gnu", "replaced"), ("gnu", "published"), ("no printf", "linked"), ("no cnewer", "published")],
)
def test_a_base_that_is_written_to_while_it_is_linked(
    make_with: MakeWith, tree: Site, tools: str, moment: str
) -> None:
    """Between the links and the end; the second time, of the same size and with another inode."""
    lab = make_with("gnu" if tools == "no cnewer" else tools, links="hard")
    [place] = lab
    if tools == "no cnewer":
        find = shutil.which("find")
        place.program("find", f'#!/bin/sh\ncase "$*" in *-printf*|*-cnewer*) exit 1;; esac\nexec {find} "$@"\n')
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
            f"case $* in *-RPpl*) cp {file} {new}; printf EDITED | dd of={new} conv=notrunc 2>/dev/null; mv {new} {file};; esac",
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


