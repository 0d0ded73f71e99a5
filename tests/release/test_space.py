"""Disks that are full, out of inodes or read-only, on a small file system of their own under one host's deploy root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_heavy, make_site, walk

pytestmark = [pytest.mark.sshd, pytest.mark.root]

FILL = "dd if=/dev/zero of={root}/filler bs=4096 2>/dev/null"
Mount = Callable[[str], None]


@pytest.fixture
def small(lab: Lab) -> Iterator[Mount]:
    """`small("size=4m")` gives h02 a small disk."""
    root = lab["h02"].root

    def mount(options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")

    yield mount
    while os.path.ismount(root):
        subprocess.run(["umount", "-l", root], check=True)


def assert_no_space(lab: Lab, failed: Pushed, phase: str, *words: str) -> None:
    said, code, message = failed.failure("h02")
    assert (said, code) == (phase, 31), message
    for word in words:
        assert word in message
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert lab.live == lab.everywhere(None)
    assert all(place.runs_left == [] for place in lab)


def test_what_can_not_fit_is_not_sent(lab: Lab, tmp_path: Path, small: Mount) -> None:
    small("size=4m")
    failed = lab.push(make_heavy(tmp_path / "heavy", 3000))
    assert_no_space(lab, failed, "upload", "needs 6.", "has 4.", str(lab["h02"].root))
    assert failed.sent("h02") is None
    assert "hint" in failed.stderr


def test_a_dry_run_sees_it_coming(lab: Lab, tmp_path: Path, small: Mount) -> None:
    small("size=4m")
    heavy = make_heavy(tmp_path / "heavy", 3000)
    failed = lab.push(heavy, "--dry-run")
    assert (failed.code, failed.failure("h02")[:2]) == (20, ("upload", 31))
    assert list(lab["h02"].root.iterdir()) == []


@pytest.mark.parametrize(("point", "phase"), [("none.scp", "upload"), ("stage.tar", "stage")])
def test_a_disk_that_fills_up_meanwhile(
    lab: Lab, tmp_path: Path, small: Mount, point: str, phase: str
) -> None:
    small("size=8m")
    heavy = make_heavy(tmp_path / "heavy", 2000)
    place = lab["h02"]
    place.gate(point, FILL.format(root=place.root))
    failed = lab.push(heavy)
    assert_no_space(lab, failed, phase, "no space left on")
    assert place.releases == []
    (place.root / "filler").unlink()
    place.mend()
    done = lab.push(heavy)
    assert done.code == 0
    assert walk(place.root / "current/") == walk(heavy)
    if phase == "stage":  # the artifact had arrived
        assert done.sent("h02") == 0


def test_too_few_inodes_are_told_as_such(lab: Lab, site: Path, small: Mount) -> None:
    small("nr_inodes=60")
    for number in range(100):
        (site / f"file{number}").write_text("")
    failed = lab.push(site)
    assert_no_space(lab, failed, "upload", "no inodes left", "needs 1", "has 59")


def test_inodes_that_run_out_meanwhile(lab: Lab, site: Path, small: Mount) -> None:
    small("nr_inodes=100")
    place = lab["h02"]
    place.gate("stage.tar", f"i=0; while (: >{place.root}/used$i); do i=$((i+1)); done 2>/dev/null")
    failed = lab.push(site)
    assert_no_space(lab, failed, "stage", "no inodes left")


def test_a_disk_that_fills_up_before_the_switch(lab: Lab, site: Path, small: Mount) -> None:
    """Whether the switch still succeeds or not: every host serves the same, and it is told."""
    small("size=1m")
    one = lab.push(site)
    make_site(site, "two")
    place = lab["h02"]
    place.gate("activate", FILL.format(root=place.root))
    two = lab.push(site)
    assert (two.code, two.outcome) in {(0, "released"), (21, "reverted")}
    assert lab.live == lab.serves(two.release if two.code == 0 else one.release)
    (place.root / "filler").unlink()
    place.mend()
    assert lab.push(site).code == 0


def test_a_read_only_disk(lab: Lab, site: Path, small: Mount) -> None:
    small("size=4m")
    one = lab.push(site)
    subprocess.run(["mount", "-o", "remount,ro", lab["h02"].root], check=True)
    make_site(site, "two")
    failed = lab.push(site)
    assert (failed.code, failed.failure("h02")[:2]) == (20, ("probe", 32))
    root = lab["h02"].root
    assert failed.failure("h02")[2].startswith(
        f"{root} is not writable, not even for root: its file system is read-only"
    )
    assert lab.live == lab.serves(one.release)
