"""Ctrl-C, TERM and HUP in each phase, and what a second one does."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.trees import make_heavy, make_site
from tests.support.proc import wait_until
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
HOLDS = {"probe": "probe.df", "upload": "none.scp", "stage": "stage.tar", "activate": "activate.mv"}
SOON_S = 6.0  # a cancel has 2 s, the way back a moment more; the rest is for a slow machine


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        *((phase, signal.SIGINT) for phase in HOLDS),
        *((phase, number) for phase in ("upload", "activate") for number in (signal.SIGTERM, signal.SIGHUP)),
    ],
    ids=str,
)
def test_a_signal_leaves_every_host_on_what_it_served(
    lab: Lab, site: Path, phase: str, number: signal.Signals
) -> None:
    before = lab.push(site)
    make_site(site, "two")
    sign = lab["h02"].hold(HOLDS[phase])
    running = lab.start("push", site)
    running.wait_for_host("h02", phase)
    told_at = time.monotonic()
    running.signal(number)
    ended = running.finish(timeout_s=20)
    assert time.monotonic() - told_at < SOON_S
    sign.unlink()
    assert (ended.code, ended.outcome) == (CODES[number], "interrupted")
    assert lab.live == lab.serves(before.release)
    assert set(ended.states.values()) <= ({"reverted", "cancelled"} if phase == "activate" else {"cancelled"})
    known = {name: live for name, live in ended.serving.items() if phase != "probe" or name != "h02"}
    assert set(known.values()) == {before.release}
    assert all(place.runs_left == [] for place in lab)
    lab.assert_idle()


def test_a_signal_while_it_connects(lab: Lab, site: Path) -> None:
    lab.servers[1].freeze(listener=True)
    running = lab.start("push", site)
    running.wait_for_host("h02", "connect")
    told_at = time.monotonic()
    running.signal(signal.SIGINT)
    ended = running.finish(timeout_s=20)
    assert time.monotonic() - told_at < SOON_S
    assert (ended.code, ended.outcome) == (130, "interrupted")
    assert lab.live == lab.everywhere(None)
    assert all(not place.root.joinpath(".deployctl").exists() for place in lab)


def test_a_signal_before_anything_is_packed(lab: Lab, tmp_path: Path) -> None:
    running = lab.start("push", make_heavy(tmp_path / "heavy", 80_000))
    running.wait_for(lambda e: e["event"] == "run_started")
    running.signal(signal.SIGTERM)
    ended = running.finish(timeout_s=20)
    assert ended.code == 143
    assert set(ended.states.values()) <= {"skipped", "cancelled"}


@pytest.fixture
def slow_lab(lab: Lab) -> Iterator[Lab]:
    """What is sent to each host goes at 400 kB/s: what the kernel held of it would go on flowing for seconds."""
    with ExitStack() as stack:
        for server in lab.servers:
            proxy = stack.enter_context(Proxy(("127.0.0.1", server.port), buffer=65536))
            proxy.up(rate=400_000)
            lab.through(server.name, proxy.port)
        yield lab


def size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return -1


def test_uploads_stop_within_a_second(slow_lab: Lab, tmp_path: Path) -> None:
    running = slow_lab.start("push", make_heavy(tmp_path / "heavy", 30_000))
    wait_until(
        lambda: all(size(p) > 100_000 for place in slow_lab for p in place.parts or [Path("/-")]),
        20,
        "uploads",
    )
    running.signal(signal.SIGINT)
    told_at = grew_at = time.monotonic()
    seen: dict[Path, int] = {}
    while running.process.poll() is None and time.monotonic() < told_at + 10:
        for part in [part for place in slow_lab for part in place.parts]:
            now = size(part)
            if now > seen.setdefault(part, now):
                seen[part], grew_at = now, time.monotonic()
        time.sleep(0.02)
    assert grew_at - told_at < 2.5  # a second, and what was on its way in buffers
    ended = running.finish(timeout_s=20)
    assert ended.code == 130
    assert set(ended.states.values()) == {"cancelled"}
    slow_lab.assert_idle()


@pytest.mark.hosts(3)
def test_an_upload_elsewhere_stops_when_a_host_fails(slow_lab: Lab, tmp_path: Path) -> None:
    running = slow_lab.start("push", make_heavy(tmp_path / "heavy", 7_000))
    wait_until(
        lambda: all(size(p) > 100_000 for place in slow_lab for p in place.parts or [Path("/-")]),
        20,
        "uploads",
    )
    failed_at = time.monotonic()
    slow_lab.servers[1].kill_sessions()
    ended = running.finish(timeout_s=20)
    assert time.monotonic() - failed_at < SOON_S
    assert (ended.code, ended.states) == (20, {"h01": "cancelled", "h02": "failed", "h03": "cancelled"})
    assert ended.failure("h02")[:2] == ("upload", 20)
    slow_lab.assert_idle()


def test_a_second_signal_leaves_at_once_and_says_what_is_known(lab: Lab, site: Path) -> None:
    before = lab.push(site)
    make_site(site, "two")
    lab["h02"].hold("activate.mv")
    lab["h01"].hold("revert.mkdir")
    running = lab.start("push", site)
    running.wait_for_host("h02", "activate")
    running.wait_for_host("h01", "activate", "ok")
    running.signal(signal.SIGINT)
    running.wait_for_host("h01", "revert")
    told_at = time.monotonic()
    running.signal(signal.SIGINT)
    ended = running.finish(timeout_s=20)
    assert time.monotonic() - told_at < SOON_S
    assert (ended.code, ended.outcome) == (22, "mixed")
    lab["h01"].mend()
    lab["h02"].mend()
    lab.assert_idle()
    assert lab["h02"].live == f"releases/{before.release}"
    done = lab.push(site)
    assert done.code == 0
    assert lab.live == lab.serves(done.release)


def test_a_second_signal_before_anything_is_live(lab: Lab, site: Path) -> None:
    before = lab.push(site)
    make_site(site, "two")
    lab["h02"].hold("stage.tar")
    lab["h02"].hold("clean.rm")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGINT)
    ended = running.finish(timeout_s=20)
    assert ended.code in {130, 143}
    assert ended.outcome == "interrupted"
    assert lab.live == lab.serves(before.release)


def test_a_hangup_that_is_ignored_stays_ignored(lab: Lab, site: Path) -> None:
    sign = lab["h02"].hold("stage.tar")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = lab.start("push", site)  # as nohup starts it
    finally:
        signal.signal(signal.SIGHUP, before)
    running.wait_for_host("h02", "stage")
    running.signal(signal.SIGHUP)
    sign.unlink()
    assert running.finish().code == 0
