"""The whole run killed, its workers too, at every point of a push with hooks and batches that its events tell of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.life.moments import gone, hooks
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import Event, Running
from tests.release.trees import make_site, walk
from tests.support.proc import wait_until

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

EVERY = int(os.environ.get("DEPLOYCTL_TEST_EVERY", "14"))  # point; `make crash` takes 1
BATCH = ("--batch", "1,2")


@pytest.fixture
def swept(make_lab: MakeLab, tmp_path: Path) -> Lab:
    """Three hosts whose hooks and checks note their process ids and print a line, so that there is a point in each."""
    lab = make_lab(3)
    hook = f"echo $$ >>{tmp_path}/pids; echo in a hook; sleep 0.05"
    release = {moment: [hook] for moment in ("staged", "activating", "activated")}
    hooks(lab, {"build": [hook], **release, "released": [hook]}, check={"run": hook, "timeout": "20s"})
    return lab


def points(events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] in {"run_started", "host", "log"}]


def kill_at(running: Running, number: int) -> None:
    """Kill the parent, and then whoever of its workers is still there, when it has told of so many points."""
    running.wait_for(lambda _event: len(points(running.events)) > number)
    family = running.family()
    running.signal(signal.SIGKILL)
    for process in family:
        process.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 5, "the end of the workers")


@pytest.mark.timeout(1200)
def test_killed_anywhere(swept: Lab, site: Path, tmp_path: Path) -> None:
    """`current` is whole on every host, the next push succeeds with no help, nothing of the dead run is left."""
    lab = swept
    whole = {}
    first = lab.push(site, *BATCH)
    assert first.code == 0
    count = len(points(list(first.events)))
    whole[first.release] = walk(site)
    killed = range(0, count - 1, EVERY)
    for number in killed:
        make_site(site, f"point {number}")
        running = lab.start("push", site, *BATCH)
        kill_at(running, number)
        chosen = {event["release"] for event in running.events} - {None}
        whole |= {release: walk(site) for release in chosen}
        for place in lab:
            live = str(place.live).removeprefix("releases/")
            assert live in whole, (number, place.name, place.live)
            assert walk(place.root / "current") == whole[live], (number, place.name)
        lab.assert_idle()
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(gone(pid) for pid in pids), number
        (tmp_path / "pids").write_text("")
        done = lab.push(site, *BATCH)
        assert (done.code, done.outcome) in {(0, "released"), (0, "unchanged")}, (number, done.hosts)
        whole[done.release] = walk(site)
        assert lab.live == lab.serves(done.release), number
        for place in lab:
            assert place.incoming == [], number
            assert not (place.root / ".deployctl/lock.owner").exists()
            assert walk(place.root / "current") == whole[done.release]
    print(f"killed at {len(killed)} of {count} points")  # noqa: T201 - said with -s, by `make crash`
