"""Pushing again: after success, after an abort, onto hosts that lag or were changed by hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.release.lab import HALF_A_FILE, Lab
from tests.release.trees import make_heavy, make_site, walk
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


@pytest.mark.hosts(3)
def test_a_host_that_lags_joins_the_others(lab: Lab, site: Path) -> None:
    one = lab.push(site, "--limit", "h01,h02")
    joined = lab.push(site)
    assert (joined.code, joined.outcome, joined.release) == (0, "released", one.release)
    assert lab.live == lab.serves(one.release)
    assert {name: joined.hosts[name]["message"] for name in ("h01", "h02")} == {
        "h01": "unchanged",
        "h02": "unchanged",
    }
    assert joined.phases("h01")[-1] == "probe:ok"
    assert joined.sent("h03") == joined.bytes_sent > 0


def test_a_host_that_went_its_own_way_comes_back(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    lab.push(site, "--limit", "h02")
    make_site(site, "one")
    back = lab.push(site)
    assert (back.code, back.release, back.bytes_sent) == (0, one.release, 0)
    assert lab.live == lab.serves(one.release)


@pytest.mark.parametrize("edit", ["content", "removed", "mode", "link"])
def test_a_live_tree_that_was_edited_by_hand_gets_a_fresh_copy(lab: Lab, site: Path, edit: str) -> None:
    one = lab.push(site)
    tree = lab["h02"].root / "current"
    if edit == "content":
        stamp = (tree / "index.html").stat()
        (tree / "index.html").write_text("<p>ONE</p>\n")
        os.utime(tree / "index.html", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif edit == "link":
        (tree / "link").unlink()
        (tree / "link").symlink_to("index.html")
    elif edit == "removed":
        (tree / "index.html").unlink()
    else:
        (tree / "app/run.sh").chmod(0o644)
    before = walk(tree)
    mended = lab.push(site)
    assert (mended.code, mended.outcome) == (0, "released")
    assert "h02" in mended.stderr
    assert mended.release != one.release
    assert lab.live == lab.serves(mended.release)
    assert all(walk(place.root / "current/") == walk(site) for place in lab)
    assert walk(lab["h02"].root / "releases" / one.release) == before


def test_a_file_that_a_program_wrote_beside_the_release_is_no_reason_to_copy_it(lab: Lab, site: Path) -> None:
    lab.push(site)
    for place in lab:
        (place.root / "current/app/cache").write_text("")
    assert lab.push(site).outcome == "unchanged"


@pytest.mark.hosts(3)
def test_an_abort_repeated_sends_nothing_to_hosts_that_have_it(lab: Lab, site: Path) -> None:
    sign = lab["h02"].hold("none.scp")
    lab["h02"].gate("none.scp", f"while [ -e {sign} ]; do sleep 0.02; done; {HALF_A_FILE}")
    running = lab.start("push", site)
    for name in ("h01", "h03"):
        running.wait_for_host(name, "stage", "ok")
    sign.unlink()
    failed = running.finish()
    assert (failed.code, failed.failure("h02")[0]) == (20, "upload")
    assert all(place.runs_left == [] for place in lab)
    assert lab["h02"].incoming == []
    lab["h02"].mend()
    done = lab.push(site)
    assert (done.code, done.release) == (0, failed.release)
    assert (done.sent("h01"), done.sent("h03")) == (0, 0)
    assert done.sent("h02") == done.bytes_sent > 0
    assert all(place.incoming == [] for place in lab)
    assert all(place.releases == [done.release] for place in lab)


def test_an_artifact_that_arrived_is_not_sent_again(lab: Lab, site: Path) -> None:
    lab["h02"].gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    failed = lab.push(site)
    assert failed.failure("h02")[0] == "stage"
    assert [name[-8:] for name in lab["h02"].incoming] == [".tar.zst"]
    lab["h02"].mend()
    done = lab.push(site)
    assert (done.code, done.bytes_sent) == (0, 0)
    assert lab["h02"].incoming == []
    assert walk(lab["h02"].root / "current/") == walk(site)


@pytest.mark.hosts(3)
def test_what_a_killed_run_left_behind_goes_with_the_next_push(lab: Lab, tmp_path: Path) -> None:
    heavy = make_heavy(tmp_path / "heavy", 2000)
    lab["h02"].gate(
        "none.scp",
        "stop() { :; }; printf '\\0'; read -r line; printf '\\0'; for t; do :; done; head -c 500000 >\"$t\"; while :; do sleep 0.1; done",
    )
    running = lab.start("push", heavy)
    wait_until(lambda: any(p.stat().st_size >= 500_000 for p in lab["h02"].parts), what="half an upload")
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 3, "the end of the workers")
    assert lab["h02"].parts != []
    lab["h02"].mend()
    done = lab.push(heavy)
    assert done.code == 0
    assert all(place.incoming == [] for place in lab)
    assert lab.live == lab.serves(done.release)
    assert walk(lab["h02"].root / "current/") == walk(heavy)


def test_a_run_that_died_between_switch_and_confirmation_is_confirmed_by_the_next(
    lab: Lab, site: Path
) -> None:
    sign = lab["h02"].hold("confirm.rm")
    lab["h02"].gate("confirm", f"while [ -e {sign} ]; do sleep 0.02; done; exit 1")
    running = lab.start("push", site)
    running.wait_for_host("h02", "clean")
    running.signal(signal.SIGKILL)
    running.process.wait()
    release = str(lab["h02"].live).removeprefix("releases/")
    sign.unlink()
    lab["h02"].mend()
    assert lab.live == lab.serves(release)
    again = lab.push(site)
    assert (again.code, again.outcome, again.release, again.bytes_sent) == (0, "released", release, 0)
    assert '"confirm"' in lab["h02"].history
    assert lab.push(site).outcome == "unchanged"


def test_a_host_that_could_not_confirm_is_a_warning(lab: Lab, site: Path) -> None:
    lab["h02"].gate("confirm")
    pushed = lab.push(site)
    assert (pushed.code, pushed.outcome) == (0, "released")
    assert "h02" in pushed.stderr
    assert lab.live == lab.serves(pushed.release)
    lab["h02"].mend()
    again = lab.push(site)
    assert (again.code, again.release) == (0, pushed.release)
    assert lab.push(site).outcome == "unchanged"
