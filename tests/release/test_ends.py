"""A run's end is told as it came, whatever happens while it is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deployctl import load_inventory, push
from deployctl.engine.crew import Arrival
from deployctl.errors import SourceError
from deployctl.release.fleet import Fleet
from deployctl.release.member import Member
from tests.life.moments import configure, hooks
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd

NO_PROCESS_FOR_HOOKS = """
import errno
from deployctl.engine.crew import Crew
from deployctl.engine.worker import ForkError
hire = Crew.hire
def refuse(self, servant=None, role="worker"):
    if role == "hooks":
        raise ForkError(OSError(errno.EAGAIN, "Resource temporarily unavailable"))
    return hire(self, servant, role)
Crew.hire = refuse
"""


@pytest.fixture
def no_process_for_hooks(tmp_path: Path) -> dict[str, str]:
    directory = tmp_path / "limited"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(NO_PROCESS_FOR_HOOKS)
    return {"PYTHONPATH": os.pathsep.join((str(directory), os.environ.get("PYTHONPATH", "")))}


def test_no_process_for_the_hook_that_tells_of_a_release(
    lab: Lab, site: Path, no_process_for_hooks: dict[str, str]
) -> None:
    hooks(lab, {"released": ["true"], "failed": ["true"]})
    done = lab.push(site, env=no_process_for_hooks)
    assert (done.code, done.outcome) == (0, "released")
    assert lab.live == lab.serves(done.release)
    assert done.states == {"h01": "ok", "h02": "ok"}
    assert "released hook could not be started" in done.stderr
    lab["h02"].gate("activate")
    failed = lab.push(make_site(site, "two"), env=no_process_for_hooks)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.serving == lab.everywhere(done.release)
    assert lab.live == lab.serves(done.release)


@pytest.mark.cold
@pytest.mark.parametrize("moment", ["released", "failed"])
def test_two_signals_while_a_hook_tells_of_the_end(lab: Lab, site: Path, tmp_path: Path, moment: str) -> None:
    """What it came to is known by then, and stays so."""
    before = lab.push(site).release
    begun = tmp_path / "begun"
    hooks(lab, {moment: [f"touch {begun}; sleep 60"]})
    if moment == "failed":
        lab["h02"].gate("activate")
    running = lab.start("push", make_site(site, "two"))
    wait_until(begun.exists, 30, "the hook to begin")
    running.signal(signal.SIGINT)
    running.signal(signal.SIGTERM)  # another SIGINT could become one with the first
    ended = running.finish(timeout_s=20)
    if moment == "released":
        assert (ended.code, ended.outcome) == (0, "released")
        assert lab.live == lab.serves(ended.release)
        assert set(ended.states.values()) == {"ok"}
    else:
        assert (ended.code, ended.outcome) == (21, "reverted")
        assert lab.live == lab.serves(before)
    assert ended.serving == lab.everywhere(str(ended.release if moment == "released" else before))


def test_keys_that_are_new_and_cannot_be_written_down(make_lab: MakeLab, site: Path) -> None:
    """As with ssh, that is worth a warning and no more."""
    lab = make_lab(1, ssh={"host_keys": "accept-new", "known_hosts": "/proc/known_hosts"})
    done = lab.push(site)
    assert (done.code, done.outcome) == (0, "released")
    assert "/proc/known_hosts: the new host keys could not be added" in done.stderr


@pytest.mark.parametrize("more", [[], ["--no-activate"]], ids=str)
def test_all_hosts_fail_within_what_is_tolerated(lab: Lab, site: Path, more: list[str]) -> None:
    for place in lab:
        place.gate("stage")
    failed = lab.push(site, "--max-failures", "100%", *more)
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert lab.live == lab.everywhere(None)
    lab.assert_idle()


@pytest.mark.parametrize("command", ["prune", "unlock"])
def test_one_wrong_host_key_keeps_no_other_host_from_being_tidied(
    make_lab: MakeLab, site: Path, command: str
) -> None:
    lab = make_lab(2, release={"keep": 9})
    for text in ("one", "two", "three"):
        assert lab.push(make_site(site, text)).code == 0
    configure(lab, release={"keep": 1})
    known = lab.inventory.with_name("known_hosts")
    keys = [server.host_key.public for server in lab.servers]
    known.write_text(known.read_text().replace(keys[1], keys[0]))
    arguments = ["--yes"] if command == "unlock" else []
    ended = lab.start(command, *arguments).finish()
    assert (ended.code, ended.outcome) == (20, "failed")
    assert ended.states == {"h01": "ok", "h02": "failed"}
    if command == "prune":
        assert (len(lab["h01"].releases), len(lab["h02"].releases)) == (2, 3)


class Broken:
    """Shows a run to somebody who has left."""

    def event(self, _event: Mapping[str, Any]) -> None:
        raise ConnectionResetError("whoever listened is gone")

    def note(self, level: str, text: str) -> None: ...

    def tick(self) -> None: ...


def test_an_observer_that_fails_at_the_first_event(lab: Lab, site: Path) -> None:
    """No packer is left, and the error is the observer's own, not one of SOURCE."""
    with pytest.raises(ConnectionResetError) as caught:
        push(load_inventory(lab.inventory), site, observer=Broken())
    assert not isinstance(caught.value, SourceError)
    assert multiprocessing.active_children() == []


class ALoop:
    """Brings two arrivals at once."""

    def __init__(self) -> None:
        self.signals = None
        self.crew = None
        done = {"event": "done", "host": "h01", "do": "stage", "state": "ok", "phase": "stage", "reached": True, "data": {}}  # fmt: skip
        self.arrivals = [Arrival(1, {"event": "refused"}), Arrival(2, done)]

    def turn(self, _timeout_s: float, _also: object) -> list[Arrival]:
        return self.arrivals


def test_what_arrives_with_a_refusal_of_the_packer_is_heard() -> None:
    loop, member = ALoop(), Member("h01", "h01")
    fleet = Fleet(loop, [member], forks=1, timeout_s=1)  # type: ignore[arg-type]

    def packer(arrival: Arrival) -> bool:
        if arrival.worker == 1:
            raise SourceError("SOURCE changed")
        return False

    fleet.listen(packer)
    member.doing = "stage"
    with pytest.raises(SourceError, match="SOURCE changed"):
        fleet.turn()
    assert [member.doing] == [None]
    assert member.holds
