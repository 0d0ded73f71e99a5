"""What somebody did to a host by hand, or put into the inventory, and no run may take for well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.life.moments import configure, hooks
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_site

pytestmark = pytest.mark.sshd


def back(lab: Lab, *arguments: str) -> Pushed:
    return lab.start("rollback", *arguments).finish()


def test_a_release_that_a_forced_rollback_took_altered_is_never_unchanged(
    make_lab: MakeLab, site: Path
) -> None:
    lab = make_lab(2)
    first = lab.push(site)
    content = (site / "index.html").read_bytes()
    altered = lab["h01"].root / "releases" / str(first.release) / "index.html"
    make_site(site, "two")
    lab.push(site)
    altered.write_bytes(b"altered")
    assert back(lab, "--force").code == 0
    assert (lab["h01"].root / "current" / "index.html").read_bytes() == b"altered"
    make_site(site, "one")
    (site / "index.html").write_bytes(content)
    again = lab.push(site)
    assert (again.code, again.outcome) == (0, "released")
    for place in lab:
        assert (place.root / "current" / "index.html").read_bytes() == content


def test_names_with_odd_bytes_go_back_and_verify(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(1)
    odd, plain = tmp_path / "odd", tmp_path / "plain"
    for directory in (odd, plain):
        directory.mkdir()
        (directory / "index.html").write_text(directory.name)
    for name in ("back\\slash", "new\nline", "carriage\rreturn", "ünï"):
        (odd / name).write_text(name)
    one = lab.push(odd)
    assert lab.push(plain).code == 0
    assert back(lab).code == 0
    assert lab.live == lab.serves(str(one.release))
    assert lab.start("verify").finish().code == 0


def test_what_came_to_be_shared_later_does_not_stop_a_rollback(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2)
    one = lab.push(site)
    configure(lab, release={"shared": {"dirs": ["storage"]}})
    make_site(site, "two")
    assert lab.push(site).code == 0
    assert back(lab).code == 0
    assert lab.live == lab.serves(str(one.release))
    assert all((place.root / "current" / "storage").is_dir() for place in lab)


def test_a_closed_standard_input_is_no_empty_file(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(1)
    target = tmp_path / "kept"
    target.write_text("kept")
    words = [sys.executable, "-m", "deployctl", "copy", "-", str(target), "-i", str(lab.inventory)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, target.read_text()) == (2, "kept")
    assert "standard input is closed" in done.stderr


def test_all_hosts_failing_within_what_is_tolerated_is_an_abort(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2)
    for place in lab:
        place.root.rmdir()
        place.root.write_text("a file")
    failed = lab.push(site, "--max-failures", "100%")
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert set(failed.states.values()) == {"failed"}


@pytest.mark.parametrize("text", ["-rf", "-n", "gone/away"])
def test_a_foreign_current_comes_back_with_its_exact_text(make_lab: MakeLab, site: Path, text: str) -> None:
    lab = make_lab(2)
    lab["h01"].link(text)
    hooks(lab, {"activated": ["test $DEPLOYCTL_HOST != h02"]})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == {"h01": text, "h02": None}


@pytest.mark.parametrize("name", [".deployctl", "releases"])
def test_links_out_of_the_deploy_root_are_refused(
    make_lab: MakeLab, site: Path, tmp_path: Path, name: str
) -> None:
    lab = make_lab(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (lab["h01"].root / name).symlink_to(elsewhere)
    refused = lab.push(site)
    assert (refused.code, refused.failure("h01")[:2]) == (20, ("probe", 32))
    assert list(elsewhere.iterdir()) == []


def test_a_lock_that_is_no_file_is_told_as_such(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1)
    lab.push(site)
    lock = lab["h01"].root / ".deployctl" / "lock"
    lock.unlink()
    lock.mkdir()
    make_site(site, "two")
    failed = lab.push(site)
    assert (failed.code, failed.failure("h01")[1]) == (20, 32)


def test_two_names_for_one_place_are_told_from_another_run(
    make_lab: MakeLab, site: Path, tmp_path: Path
) -> None:
    lab = make_lab(2)
    twin = tmp_path / "twin"
    twin.symlink_to(lab["h01"].root)
    lab.edit("h02", port=lab["h01"].port, path=str(twin))
    refused = lab.push(site)
    assert "same deploy root" in refused.stderr
    assert lab["h01"].live is None
