"""A host on which the login user's files may not be larger than some size (`ulimit -f`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.trees import make_heavy, make_site

pytestmark = pytest.mark.sshd

LIMIT_KIB = 400


@pytest.fixture
def limited(make_lab: MakeLab) -> Lab:
    """Two hosts, h02 with the limit."""
    return make_lab(2, wrapper=f"case $PATH in */h02/*) ulimit -f {LIMIT_KIB * 2} ;; esac")


def make_airy(directory: Path) -> Path:
    """A tree with a file that is large only once it is unpacked."""
    make_site(directory, "airy")
    (directory / "large").write_bytes(b"x" * (2 * LIMIT_KIB * 1024))
    return directory


@pytest.mark.parametrize("phase", ["upload", "stage"])
def test_the_limit_is_named(limited: Lab, tmp_path: Path, phase: str) -> None:
    lab = limited
    old = lab.push(make_site(tmp_path / "small", "small")).release
    tree = make_heavy(tmp_path / "tree", 2 * LIMIT_KIB) if phase == "upload" else make_airy(tmp_path / "tree")
    failed = lab.push(tree)
    said, code, message = failed.failure("h02")
    assert (said, code) == (phase, 31), message
    assert f"no file may be larger than {LIMIT_KIB} KiB" in message
    assert "ulimit -f" in message
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert lab.live == lab.serves(old)
    assert not any(place.runs_left for place in lab)


def test_a_tree_within_the_limit_is_released(limited: Lab, tmp_path: Path) -> None:
    done = limited.push(make_heavy(tmp_path / "tree", LIMIT_KIB // 2))
    assert done.code == 0
    assert limited.live == limited.serves(done.release)
