"""Hooks that run here: build in SOURCE before packing, released and failed when all is over."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.life.moments import Diary, gone, held_by, hooks, pid_in
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(1)


def test_build_runs_in_source_before_it_is_packed(lab: Lab, site: Path) -> None:
    hooks(lab, {"build": ["pwd >where; cat >nothing; echo building; echo made >made", "cp made again"]})
    done = lab.push(site)
    assert done.code == 0
    live = lab["h01"].root / "current"
    assert (live / "where").read_text().strip() == str(site)
    assert (live / "again").read_text() == "made\n"
    assert (live / "nothing").read_text() == ""
    [line] = [event for event in done.events if event["event"] == "log"]
    assert (line["host"], line["phase"], line["text"]) == (None, "build", "building")


def test_a_failing_build_contacts_nobody(lab: Lab, site: Path, diary: Diary) -> None:
    hooks(lab, {"build": ["echo why >&2; exit 4", diary.line("second")], "failed": [diary.line("failed")]})
    refused = lab.push(site)
    assert (refused.code, refused.outcome) == (11, "refused")
    assert "build hook `echo why >&2; exit 4` ended with status 4" in refused.last["message"]
    assert refused.states == {"h01": "skipped"}
    assert not (lab["h01"].root / ".deployctl").exists()
    assert diary.lines == []


def test_a_build_past_its_timeout_is_killed_with_its_children(lab: Lab, site: Path, tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 300 & echo $! >{tmp_path}/child; wait"
    hooks(lab, {"build": [{"run": script, "timeout": "500ms"}]})
    refused = lab.push(site)
    assert refused.code == 11
    assert "did not end within 0.5 s and was killed" in refused.last["message"]
    wait_until(lambda: gone(pid_in(tmp_path / "child")), 5, "the end of the child")


def test_build_is_refused_where_source_is_no_directory(lab: Lab, site: Path, tmp_path: Path) -> None:
    hooks(lab, {"build": ["touch built"]})
    archive = tmp_path / "site.tar"
    subprocess.run(["tar", "-cf", archive, "-C", site, "."], check=True)
    for arguments in ((site, "--ref", "HEAD"), (archive,), (site / "index.html",)):
        refused = lab.push(*arguments)
        assert refused.code == 2
        assert "build runs in SOURCE" in refused.last["message"]
    assert not (lab["h01"].root / ".deployctl").exists()


def test_a_dry_run_runs_no_hook(lab: Lab, site: Path, diary: Diary) -> None:
    moments = ("build", "staged", "activating", "activated", "released", "failed")
    hooks(lab, diary.hooks(*moments))
    assert lab.push(site, "--dry-run").outcome == "planned"
    assert diary.lines == []
    assert not (lab["h01"].root / ".deployctl").exists()


def test_released_and_failed_tell_of_the_end_and_cannot_change_it(lab: Lab, site: Path, diary: Diary) -> None:
    told = {
        "released": [diary.line("released"), "echo sorry >&2; exit 5", diary.line("never")],
        "failed": [diary.line("failed"), "exit 6"],
    }
    hooks(lab, told)
    done = lab.push(site)
    assert (done.code, done.outcome) == (0, "released")
    assert "warning: released hook `echo sorry >&2; exit 5` ended with status 5" in done.stderr
    assert diary.lines == [["released", done.release, "nothing"]]
    diary.clear()
    make_site(site, "two")
    hooks(lab, {**told, "staged": ["false"]})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert "warning: failed hook" in failed.stderr
    assert diary.lines == [["failed", failed.release, "nothing"]]
    diary.clear()
    hooks(lab, {**told, "activated": ["false"]})
    assert lab.push(site).code == 22  # it fails on the way back as well
    assert [line[0] for line in diary.lines] == ["failed"]


@pytest.mark.parametrize("moment", ["build", "released"])
def test_a_local_hook_dies_with_a_killed_run(lab: Lab, site: Path, tmp_path: Path, moment: str) -> None:
    hold = tmp_path / "hold"
    hooks(lab, {moment: [f"echo $$ >{tmp_path}/pid; sleep 300 & echo $! >{tmp_path}/child; {held_by(hold)}"]})
    running = lab.start("push", site)
    wait_until(lambda: Path(f"{hold}.here").exists(), 30, "the hook")
    running.signal(signal.SIGKILL)
    for name in ("pid", "child"):
        pid = pid_in(tmp_path / name)
        wait_until(lambda pid=pid: gone(pid), 5, f"the end of the hook's {name}")  # type: ignore[misc]
    wait_until(lambda: not running.family(), 5, "the end of the run")


def test_a_signal_ends_the_build(lab: Lab, site: Path, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hooks(lab, {"build": [f"echo $$ >{tmp_path}/pid; {held_by(hold)}"]})
    running = lab.start("push", site)
    wait_until(lambda: Path(f"{hold}.here").exists(), 30, "the hook")
    running.signal(signal.SIGTERM)
    ended = running.finish(timeout_s=20)
    assert (ended.code, ended.states) == (143, {"h01": "skipped"})
    wait_until(lambda: gone(pid_in(tmp_path / "pid")), 5, "the end of the hook")
