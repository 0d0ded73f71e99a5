"""Hooks, checks, batches and the lock where the host's tools are busybox's, or the login shell is any of many."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.life.moments import Diary, configure, hooks
from tests.release.conftest import MakeLab
from tests.release.lab import PATH, Lab
from tests.release.trees import make_site, walk
from tests.support.wide import some

pytestmark = pytest.mark.sshd

# On standard error for scp as well; on standard output it breaks every scp there is, and is refused with that reason.
NOISE = """
echo 'motd on stderr' >&2
case $SSH_ORIGINAL_COMMAND in scp*) ;; *) echo 'welcome to this host'; echo '@0 status 1'; printf 'no end' ;; esac
"""
MakeKind = Callable[[str], Lab]


def need(program: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: install it", pytrace=False)
        pytest.skip(f"{program} is missing: install it to run this test")
    return found


def applets(directory: Path) -> str:
    """A PATH in which busybox's applets come before what they stand for; its httpd and sshd are none of ours."""
    busybox = need("busybox")
    directory.mkdir()
    names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for name in names:
        (directory / name).symlink_to(busybox)
    return f"{directory}:{PATH}"


@pytest.fixture
def make_kind(make_lab: MakeLab, tmp_path: Path) -> MakeKind:
    """`make_kind("fish")`: two hosts of that kind."""

    def make(kind: str) -> Lab:
        if kind == "busybox":
            return make_lab(2, path=applets(tmp_path / "applets"))
        if kind == "noise":
            return make_lab(2, wrapper=NOISE)
        return make_lab(2, env={"RUN_WITH": need(kind)}, wrapper=":")

    return make


@pytest.mark.parametrize(
    "kind", some(("busybox", "noise", "fish"), ("busybox", "noise", "dash", "fish", "tcsh", "zsh"))
)
def test_a_release_with_all_its_moments(
    make_kind: MakeKind, site: Path, diary: Diary, tmp_path: Path, kind: str
) -> None:
    lab = make_kind(kind)
    odd = "a 'b' \"c\" $d \\e !f `g` ünicode"
    configure(lab, vars={"ODD": odd})
    note = f'printf "%s\\n" "$ODD" >{tmp_path}/odd-$DEPLOYCTL_HOST'
    hooks(
        lab,
        {**diary.hooks("activating", "activated"), "staged": [note, "echo changed >index.html; echo said"]},
        check={"run": "cat index.html | grep changed", "timeout": "10s"},
        shared={"dirs": ["storage"]},
    )
    done = lab.push(site, "--batch", "1")
    assert done.code == 0, done.hosts
    assert lab.live == lab.serves(done.release)
    assert [line[:2] for line in diary.lines] == [
        [moment, host] for host in lab.names for moment in ("activating", "activated")
    ]
    for place in lab:
        assert (tmp_path / f"odd-{place.name}").read_text() == odd + "\n"
        assert place.incoming == []
        assert not (place.root / ".deployctl/lock.owner").exists()
    logs = [(event["host"], event["text"]) for event in done.events if event["event"] == "log"]
    assert ("h01", "said") in logs
    assert ("h02", "said") in logs
    first = walk(lab["h01"].root / "current")
    make_site(site, "two")
    hung = {"run": '[ "$DEPLOYCTL_HOST" = h01 ] || sleep 60', "timeout": "1s"}
    hooks(lab, {"activated": [hung]}, shared={"dirs": ["storage"]})
    failed = lab.push(site, "--batch", "1")
    assert failed.outcome in {"reverted", "mixed"}  # the hook hangs on the way back too
    assert failed.failure("h02")[:2] == ("activate", 40)
    assert walk(lab["h01"].root / "current") == first
    lab.assert_idle()
    assert not any((place.root / ".deployctl/lock.owner").exists() for place in lab)


@pytest.mark.parametrize("kind", some(("busybox", "tcsh"), ("busybox", "noise", "fish", "tcsh")))
def test_the_lock(make_kind: MakeKind, site: Path, tmp_path: Path, kind: str) -> None:
    lab = make_kind(kind)
    hold = tmp_path / "hold"
    hold.touch()
    hooks(lab, {"staged": [f"echo here; while [ -e {hold} ]; do sleep 0.05; done"]})
    running = lab.start("push", site)
    running.wait_for(lambda event: event["event"] == "log")
    refused = lab.push(make_site(tmp_path / "other", "other"))
    assert (refused.code, refused.failure("h01")[1]) == (12, 50)
    assert f"process {running.process.pid}" in refused.failure("h01")[2]
    running.signal(9)
    running.process.wait()
    hold.unlink()
    assert lab.push(tmp_path / "other", "--wait-lock", "30s").code == 0
    assert all(place.runs_left == [] for place in lab)
