"""Workers and the run itself killed with SIGKILL, in each phase: who is named, what is live, what goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.trees import make_heavy, make_site
from tests.support.proc import wait_until
from tests.support.wide import some

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

HOLDS = {
    "connect": None,
    "probe": "probe.df",
    "upload": "none.scp",
    "stage": "stage.tar",
    "activate": "activate.mv",
}


@pytest.mark.parametrize(
    "when",
    some(
        ["first upload", "first activate", *(f"second {phase}" for phase in HOLDS if phase != "connect")],
        [f"{push} {phase}" for push in ("first", "second") for phase in HOLDS if phase != "connect"],
    ),
)
def test_a_killed_worker(lab: Lab, site: Path, when: str) -> None:
    earlier, phase = when.startswith("second"), when.split()[1]
    before = lab.push(site).release if earlier else None
    make_site(site, "two")
    held = lab["h02"]
    sign = held.hold(str(HOLDS[phase]))
    running = lab.start("push", site)
    running.wait_for_host("h02", phase)
    running.worker_of(held.port).signal(signal.SIGKILL)
    ended = running.finish(timeout_s=15)
    sign.unlink()
    assert lab.live == lab.everywhere(before and f"releases/{before}")
    said, code, message = ended.failure("h02")
    assert (said, code) == (phase, 60)
    assert "SIGKILL" in message
    others = {ended.states["h01"]}
    if phase == "activate":
        assert (ended.code, ended.outcome, others) == (21, "reverted", {"reverted"})
    else:
        assert (ended.code, ended.outcome, others) == (20, "aborted", {"cancelled"})
    lab.assert_idle()
    held.mend()
    if earlier:
        done = lab.push(site)
        assert done.code == 0
        assert lab.live == lab.serves(done.release)
        assert all(place.runs_left == [] for place in lab)


def test_a_worker_killed_while_it_connects(lab: Lab, site: Path) -> None:
    server, place = lab.servers[1], lab["h02"]
    server.freeze(listener=True)
    running = lab.start("push", site)
    running.wait_for_host("h02", "connect")
    wait_until(lambda: bool(running.workers_of(place.port)), 10, "the connection")
    running.worker_of(place.port).signal(signal.SIGKILL)
    ended = running.finish(timeout_s=15)
    server.thaw()
    assert ended.failure("h02")[:2] == ("connect", 60)
    assert (ended.code, ended.outcome) == (20, "aborted")
    assert lab.live == lab.everywhere(None)


@pytest.mark.hosts(3)
def test_a_worker_killed_on_the_way_back_is_replaced(lab: Lab, site: Path) -> None:
    first = lab.push(site)
    make_site(site, "two")
    lab["h03"].gate("activate.mv")
    lab["h02"].hold("revert.mkdir")
    running = lab.start("push", site)
    running.wait_for_host("h02", "revert")
    worker = running.worker_of(lab["h02"].port)
    lab["h02"].mend()  # what the killed worker began stays held; what its successor begins does not
    worker.signal(signal.SIGKILL)
    ended = running.finish(timeout_s=20)
    assert lab.live == lab.serves(first.release)
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert ended.states == {"h01": "reverted", "h02": "failed", "h03": "failed"}
    assert ended.hosts["h02"]["code"] == 60
    assert ended.serving == lab.everywhere(first.release)
    lab.assert_idle()


@pytest.mark.hosts(3)
@pytest.mark.parametrize("phase", ["upload", "stage", "activate"])
def test_a_killed_run_leaves_no_one_working_and_the_next_push_mends(
    lab: Lab, tmp_path: Path, phase: str
) -> None:
    """Its workers die with it, what they ran on hosts dies with them, and what it left is gone after the next push."""
    site = make_heavy(tmp_path / "heavy", 300)
    before = lab.push(site)
    make_heavy(site, 300)
    sign = lab["h02"].hold(str(HOLDS[phase]))
    running = lab.start("push", site)
    running.wait_for_host("h02", phase)
    wait_until(lambda: lab["h02"].runs_left != [], what="the directory of the run on h02")
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 3, "the end of the workers")
    sign.unlink()
    lab.assert_idle()
    for place in lab:
        assert place.live in {f"releases/{before.release}", f"releases/{latest(place.releases)}"}
    assert lab["h02"].live == f"releases/{before.release}"
    assert any(place.runs_left for place in lab)
    lab["h02"].mend()
    done = lab.push(site)
    assert (done.code, done.outcome) == (0, "released")
    assert lab.live == lab.serves(done.release)
    assert all(place.runs_left == [] for place in lab)
    assert lab.push(site).outcome == "unchanged"


def latest(releases: list[str]) -> str:
    return max(releases)


def test_a_killed_packer_is_told_and_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    running = lab.start("push", make_heavy(tmp_path / "heavy", 100_000))
    running.wait_for(lambda e: e["event"] == "run_started")
    [packer] = running.named("packer")
    packer.signal(signal.SIGKILL)
    ended = running.finish()
    assert (ended.code, ended.outcome) == (11, "refused")
    assert "SIGKILL" in ended.last["message"]
    assert lab.live == lab.everywhere(None)
    assert set(ended.states.values()) <= {"cancelled", "skipped"}


@pytest.mark.hosts(3)
def test_a_worker_killed_while_its_host_only_waits(lab: Lab, site: Path) -> None:
    before = lab.push(site)
    make_site(site, "two")
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    running.wait_for_host("h01", "stage", "ok")
    running.worker_of(lab["h01"].port).signal(signal.SIGKILL)
    ended = running.finish(timeout_s=15)
    sign.unlink()
    assert (ended.code, ended.states) == (20, {"h01": "failed", "h02": "cancelled", "h03": "cancelled"})
    assert ended.hosts["h01"]["code"] == 60
    assert lab.live == lab.serves(before.release)
    lab.assert_idle()
