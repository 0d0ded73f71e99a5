"""A run that an error of its own stops: what it had switched is put back, and it tells its end itself."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd

# Loaded by Python itself at the start: one method of the program raises when it comes to it.
DEFECT = """
import deployctl.release.{module} as module
def fails(*_arguments, **_settings):
    raise ZeroDivisionError("a defect")
module.{method} = fails
"""


def with_defect(tmp_path: Path, module: str, method: str) -> dict[str, str]:
    """The environment of a program that has a defect in one method."""
    directory = tmp_path / "defect"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(DEFECT.format(module=module, method=method))
    return {"PYTHONPATH": os.pathsep.join((str(directory), os.environ.get("PYTHONPATH", "")))}


def told(ended: Pushed) -> None:
    """It said its end under its own id, with every host."""
    assert set(ended.hosts) == {"h01", "h02", "h03"}
    assert "ZeroDivisionError: a defect" in ended.last["message"]
    assert "please report it" in ended.last["hint"]
    assert "after the end of the run" not in ended.stderr


@pytest.mark.hosts(3)
def test_a_defect_after_the_switch(lab: Lab, site: Path, tmp_path: Path) -> None:
    old = lab.push(site).release
    ended = lab.push(make_site(site, "two"), env=with_defect(tmp_path, "rollout", "Rollout._check"))
    told(ended)
    assert (ended.code, ended.outcome) == (1, "reverted")
    assert set(ended.states.values()) == {"reverted"}
    assert lab.live == lab.serves(old)
    assert ended.serving == lab.everywhere(old)
    assert not any(place.runs_left for place in lab)
    assert lab.push(site).code == 0


@pytest.mark.hosts(3)
def test_a_defect_while_hosts_switch(lab: Lab, site: Path, tmp_path: Path) -> None:
    """Commands are under way on hosts when it happens."""
    old = lab.push(site).release
    lab["h02"].hold("activate.mv")
    ended = lab.push(make_site(site, "two"), env=with_defect(tmp_path, "member", "Member.serves"))
    assert lab.live == lab.serves(old)
    assert ended.code in {1, 22}  # the defect stands in the way of reading what is live as well
    assert set(ended.hosts) == {"h01", "h02", "h03"}


@pytest.mark.hosts(3)
def test_a_defect_before_the_switch(lab: Lab, site: Path, tmp_path: Path) -> None:
    ended = lab.push(site, env=with_defect(tmp_path, "stage", "Staging.perform"))
    told(ended)
    assert (ended.code, ended.outcome) == (1, "aborted")
    assert lab.live == lab.everywhere(None)
    assert lab.push(site).code == 0


@pytest.mark.hosts(3)
def test_a_defect_once_it_is_live(lab: Lab, site: Path, tmp_path: Path) -> None:
    ended = lab.push(site, env=with_defect(tmp_path, "push", "prune_after"))
    told(ended)
    assert (ended.code, ended.outcome) == (1, "released")
    assert lab.live == lab.serves(ended.release)
    assert set(ended.states.values()) == {"ok"}


def test_a_defect_in_a_command_that_reads(lab: Lab, site: Path, tmp_path: Path) -> None:
    lab.push(site)
    ended = lab.start("status", env=with_defect(tmp_path, "reading", "_standings")).finish()
    assert (ended.code, ended.outcome) == (1, "failed")


@pytest.mark.hosts(3)
def test_no_process_left_for_the_way_back(lab: Lab, site: Path) -> None:
    """All workers die after a switch and no other can be forked: nothing is claimed about hosts that nobody can reach."""
    old = lab.push(site).release
    make_site(site, "two")
    sign = lab["h02"].hold("activate")
    running = lab.start("push", site, "--batch", "1,1,1", "--forks", "1")
    running.wait_for_host("h02", "activate")
    # Enough for what is open, since poll(2) refuses to look at more than the limit; too few for another worker.
    opened = {int(path.name) for path in Path(f"/proc/{running.process.pid}/fd").iterdir()}
    few = next(number for number in range(len(opened) + 1) if number not in opened)
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (few, few))
    for worker in running.workers_of(lab["h01"].port):
        worker.signal(signal.SIGKILL)
    ended = running.finish(timeout_s=30)
    sign.unlink()
    assert (ended.code, ended.outcome) == (22, "mixed")
    assert ended.serving["h01"] is None
    assert ended.hosts["h01"]["state"] == "failed"
    assert ended.hosts["h01"]["code"] == 60
    assert "no worker is left" in ended.stderr
    assert "ulimit -n" in ended.stderr
    assert lab["h01"].live == f"releases/{ended.release}"
    assert lab["h03"].live == f"releases/{old}"
    wait_until(lambda: not lab.servers[0].command_pids(), 10, "the end of all commands on h01")
    lab["h02"].mend()
    assert lab.push(site).code == 0
