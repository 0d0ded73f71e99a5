"""Hosts with other tools, other shells and other habits: the same release arrives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.artifact.trees import make_nasty_tree
from tests.release.conftest import MakeLab
from tests.release.lab import Lab, tool_directory
from tests.release.trees import make_site, walk

pytestmark = pytest.mark.sshd

SHELLS = ("dash", "bash", "zsh", "fish", "tcsh", "ksh", "busybox")


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return f"{found} sh" if name == "busybox" else found


def busybox_tools(directory: Path, *without: str) -> Path:
    """What a small router or container has: busybox's applets, and an scp."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    directory.mkdir()
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in {"busybox", *applets}:
        if applet not in without:
            (directory / applet).symlink_to(busybox)
    scp = shutil.which("scp")
    assert scp
    (directory / "scp").unlink(missing_ok=True)
    (directory / "scp").symlink_to(scp)
    return directory


def push_once(lab: Lab, source: Path) -> None:
    pushed = lab.push(source)
    assert pushed.code == 0, pushed.stderr
    assert lab.live == lab.serves(pushed.release)
    for place in lab:
        assert walk(place.root / "current/") == walk(source)
        assert place.incoming == []
    lab.assert_idle()


def push_twice(lab: Lab, source: Path) -> None:
    """All arrives, is found again, and a change on top of it arrives as well."""
    push_once(lab, source)
    assert lab.push(source).outcome == "unchanged"
    (source / "one more").write_text("x")
    second = lab.push(source)
    assert second.code == 0
    assert walk(next(iter(lab)).root / "current/") == walk(source)


def test_busybox_alone(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(1, path=str(busybox_tools(tmp_path / "tools", "zstd")), wrapper="RUN_WITH='busybox sh'")
    push_twice(lab, make_nasty_tree(tmp_path / "nasty"))


@pytest.mark.parametrize(
    "without", [("sha256sum", "openssl"), ("openssl",), ("zstd",), ("gzip",)], ids="-".join
)
def test_hosts_that_lack_one_of_two_tools(
    make_lab: MakeLab, tmp_path: Path, without: tuple[str, ...]
) -> None:
    if "sha256sum" in without and shutil.which("shasum") is None:
        pytest.skip("shasum is not installed")
    if "gzip" in without and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    lab = make_lab(1, path=str(tool_directory(tmp_path / "tools", without=without)))
    push_twice(lab, make_nasty_tree(tmp_path / "nasty"))


def test_a_find_without_printf(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(1)
    find = shutil.which("find")
    [place] = lab
    place.program("find", f'#!/bin/sh\ncase "$*" in *-printf*) exit 1;; esac\nexec {find} "$@"\n')
    push_twice(lab, make_nasty_tree(tmp_path / "nasty"))


@pytest.mark.hosts(3)
def test_one_host_gets_gzip_where_the_others_get_zstd(lab: Lab, site: Path, tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    tools = tool_directory(tmp_path / "tools", without=("zstd",))
    lab["h02"].program("sh", f'#!/bin/sh\nPATH={tools} exec /bin/sh "$@"\n')
    for place in lab:
        place.program("mv", f'#!/bin/sh\necho "$*" >>{place.programs}/moved\nexec /bin/mv "$@"\n')
    tools.joinpath("mv").unlink()
    tools.joinpath("mv").symlink_to(lab["h02"].programs / "mv")
    pushed = lab.push(site)
    assert pushed.code == 0
    moved = {place.name: (place.programs / "moved").read_text() for place in lab}
    assert ".tar.gz" in moved["h02"]
    assert ".tar.zst" in moved["h01"]
    assert ".tar.zst" in moved["h03"]
    assert all(walk(place.root / "current/") == walk(site) for place in lab)


@pytest.mark.parametrize("name", SHELLS)
def test_login_shells(make_lab: MakeLab, site: Path, name: str) -> None:
    lab = make_lab(1, wrapper=f"RUN_WITH='{shell(name)}'")
    push_once(lab, site)


@pytest.mark.parametrize("stream", [1, 2])
def test_login_shells_that_talk(make_lab: MakeLab, site: Path, stream: int) -> None:
    """To standard error before anything; to standard output too, except before scp, whose protocol that breaks."""
    noise = f"printf 'Welcome!\\n\\033[2J no newline' >&{stream}"
    lab = make_lab(1, wrapper=f"case $SSH_ORIGINAL_COMMAND in scp*) ;; *) {noise};; esac")
    push_once(lab, site)


def test_a_shell_that_talks_before_scp_is_told(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, wrapper="echo Welcome to this host")
    failed = lab.push(site)
    assert failed.code == 20
    assert failed.failure("h01")[0] == "upload"
    assert "elcome" in failed.stderr
    assert "deployctl: hint: a login shell that prints on standard output breaks scp" in failed.stderr
    assert lab.live == lab.everywhere(None)


def test_a_login_that_runs_nothing(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, wrapper="echo This account is currently not available.; exit 1")
    failed = lab.push(site)
    assert failed.failure("h01")[:2] == ("probe", 30)
    assert "currently not available" in failed.stderr


@pytest.mark.parametrize("mask", ["000", "077"])
def test_a_umask_changes_no_mode(make_lab: MakeLab, site: Path, mask: str) -> None:
    lab = make_lab(1, wrapper=f"umask {mask}")
    push_once(lab, site)
    [place] = lab
    assert (place.root / "releases").stat().st_mode & 0o777 == 0o755
    assert (place.root / "current/").stat().st_mode & 0o777 == 0o755


def test_a_deploy_root_with_the_setgid_bit(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"shared": {"dirs": ["var/log"]}})
    [place] = lab
    place.root.chmod(0o2775)
    staged = lab.push(site, "--no-activate")
    again = lab.push(site)
    assert (again.code, again.bytes_sent, again.release) == (0, 0, staged.release)
    assert lab.push(site).outcome == "unchanged"


def test_a_deploy_root_with_spaces_and_quotes(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    lab = make_lab(1)
    root = tmp_path / "a 'deploy' root $(touch pwned)"
    lab.edit("h01", path=str(root))
    pushed = lab.push(site)
    assert pushed.code == 0
    assert walk(root / "current/") == walk(site)
    make_site(site, "two")
    assert lab.push(site).code == 0
