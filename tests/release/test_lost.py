"""Connections that end, are cut or crawl while a push is under way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.trees import make_heavy, make_site
from tests.support import proc
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.support.wide import some

pytestmark = pytest.mark.sshd


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Proxy]:
    """Stands before h02."""
    with Proxy(("127.0.0.1", lab.servers[1].port), buffer=65536) as proxy:
        lab.through("h02", proxy.port)
        yield proxy


@pytest.mark.parametrize(
    ("phase", "how"), [("stage", "finish"), ("stage", "kill"), ("activate", "reset"), ("activate", "kill")]
)
def test_a_connection_that_ends(lab: Lab, site: Path, proxy: Proxy, how: str, phase: str) -> None:
    before = lab.push(site)
    make_site(site, "two")
    sign = lab["h02"].hold("stage.tar" if phase == "stage" else "activate.mv")
    running = lab.start("push", site)
    running.wait_for_host("h02", phase)
    if how == "kill":
        for pid in lab.servers[1].session_pids():
            os.kill(pid, signal.SIGKILL)
    else:
        getattr(proxy, how)()
    ended = running.finish(timeout_s=20)
    sign.unlink()
    assert ended.failure("h02")[:2] == (phase, 20)
    assert ended.code == (20 if phase == "stage" else 21)
    assert lab.live == lab.serves(before.release)
    lab.assert_idle()


def test_a_connection_cut_in_the_middle_of_an_upload(lab: Lab, tmp_path: Path, proxy: Proxy) -> None:
    heavy = make_heavy(tmp_path / "heavy", 4000)
    proxy.up(cut_after=1_000_000)
    failed = lab.push(heavy)
    assert (failed.code, failed.failure("h02")[:2]) == (20, ("upload", 20))
    assert lab.live == lab.everywhere(None)
    proxy.up(cut_after=None)
    done = lab.push(heavy)
    assert done.code == 0
    assert (done.sent("h02") or 0) > 4_000_000
    assert all(place.incoming == [] for place in lab)


def test_an_upload_that_stands_still(lab: Lab, tmp_path: Path, proxy: Proxy) -> None:
    running = lab.start("push", make_heavy(tmp_path / "heavy", 8000), "--timeout", "2s")
    proxy.up(rate=1_000_000)
    wait_until(lambda: any(p.stat().st_size > 100_000 for p in lab["h02"].parts), what="an upload under way")
    proxy.both(mode="stall")
    stalled_at = time.monotonic()
    ended = running.finish(timeout_s=30)
    assert ended.failure("h02")[:2] == ("upload", 11)
    assert "no progress for 2 s" in ended.failure("h02")[2]
    assert time.monotonic() - stalled_at < 2 + 10
    assert lab.live == lab.everywhere(None)


def test_a_signal_while_an_upload_stands_still(lab: Lab, tmp_path: Path, proxy: Proxy) -> None:
    running = lab.start("push", make_heavy(tmp_path / "heavy", 8000))
    proxy.up(rate=1_000_000)
    wait_until(lambda: any(p.stat().st_size > 100_000 for p in lab["h02"].parts), what="an upload under way")
    proxy.both(mode="stall")
    time.sleep(1)  # until every buffer on the way is full
    told_at = time.monotonic()
    running.signal(signal.SIGINT)
    ended = running.finish(timeout_s=30)
    assert time.monotonic() - told_at < 12
    assert (ended.code, set(ended.states.values())) == (130, {"cancelled"})


def test_a_host_that_comes_back_between_stage_and_switch_is_switched(
    lab: Lab, site: Path, proxy: Proxy
) -> None:
    """Its connection is lost while others are still staging; the switch opens another one."""
    sign = lab["h01"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage", "ok")
    running.wait_for_host("h01", "stage")
    proxy.reset()
    sign.unlink()
    done = running.finish()
    assert done.code == 0
    assert lab.live == lab.serves(done.release)


@pytest.mark.hosts(3)
@pytest.mark.parametrize(
    "end",
    some(
        ["reset before", "kill after", "shell before", "shell after"],
        [f"{how} {when}" for how in ("reset", "kill", "shell") for when in ("before", "after")],
    ),
)
def test_a_connection_that_ends_on_the_way_back(lab: Lab, site: Path, proxy: Proxy, end: str) -> None:
    """h02 has switched, h03 fails, and h02's connection or command ends while it is switched back: it is once more."""
    how, done = end.split(maxsplit=1)[0], end.endswith("after")
    before = lab.push(site)
    make_site(site, "two")
    place = lab["h02"]
    sign, here = place.programs / "sign", place.programs / "here"
    place.gate(
        "revert.sync" if done else "revert.ln",
        f"echo $PPID >{here}; while [ -e {sign} ]; do sleep 0.02; done",
    )
    sign.touch()
    broken = lab["h03"].hold("activate.mv")
    running = lab.start("push", site)
    running.wait_for_host("h02", "activate", "ok")
    lab["h03"].gate("activate.readlink")
    broken.unlink()
    wait_until(lambda: here.exists() and here.read_text().strip() != "", 30, "the way back on h02")
    place.gate("revert.sync" if done else "revert.ln", ":")  # for the second try
    if how == "reset":
        proxy.reset()
    else:
        group = os.getpgid(int(here.read_text()))
        for pid in lab.servers[1].session_pids() if how == "kill" else [group]:
            os.kill(pid, signal.SIGKILL)
    ended = running.finish(timeout_s=30)
    sign.unlink()
    assert lab.live == lab.serves(before.release)
    assert ended.serving == lab.everywhere(before.release)
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert ended.states == {"h01": "reverted", "h02": "reverted", "h03": "failed"}
    assert ended.phases("h02")[-3:] == ["revert:running", "revert:running", "revert:reverted"]
    lab.assert_idle()


@pytest.mark.parametrize(
    "what",
    some(
        [
            "shell at stage.tar",
            "step at stage.tar",
            "step at activate.mv",
            "shell at activate.sync",
            "all at activate.sync",
        ],
        [
            f"{who} at {point}"
            for who in ("shell", "step", "all")
            for point in ("stage.tar", "activate.mv", "activate.sync")
        ],
    ),
)
def test_a_remote_command_that_is_killed(lab: Lab, site: Path, what: str) -> None:
    """`kill -9` on the host, by a person or for want of memory: of the shell itself, of the step in it, or of all."""
    who, _, point = what.partition(" at ")
    before = lab.push(site)
    make_site(site, "two")
    place, phase = lab["h02"], point.partition(".")[0]
    here = place.programs / "here"
    place.gate(point, f"echo $PPID >{here}; while :; do sleep 0.02; done")
    running = lab.start("push", site)
    wait_until(lambda: here.exists() and here.read_text().strip() != "", 30, f"h02 in {point}")
    running.wait_for_host("h01", phase, "ok")
    shell, step = shell_and_step(int(here.read_text()))
    if who == "all":
        os.killpg(shell, signal.SIGKILL)
    else:
        os.kill(shell if who == "shell" else step, signal.SIGKILL)
    ended = running.finish(timeout_s=20)
    assert ended.failure("h02")[:2] == (phase, 20)
    assert ended.code == (20 if phase == "stage" else 21)
    assert ended.outcome == ("aborted" if phase == "stage" else "reverted")
    assert lab.live == lab.serves(before.release)
    assert ended.serving == lab.everywhere(before.release)
    lab.assert_idle()
    place.mend()
    assert lab.push(site).code == 0
    assert not any(each.runs_left for each in lab)


def shell_and_step(pid: int) -> tuple[int, int]:
    """The remote shell that a process came from, which leads its group, and that shell's child on the way to it."""
    shell = os.getpgid(pid)
    while (found := proc.read(pid)) is not None and found.ppid != shell:
        pid = found.ppid
    return shell, pid
