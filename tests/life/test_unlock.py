"""`deployctl unlock`: who holds the lock, asking, and a run that is told to let go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.life.test_batches import Terminal
from tests.release.lab import Lab
from tests.release.running import Pushed, Running
from tests.release.trees import make_site

pytestmark = pytest.mark.sshd


def unlock(lab: Lab, *arguments: str) -> Pushed:
    return lab.start("unlock", *arguments).finish()


def holding(lab: Lab, site: Path) -> tuple[Running, Path]:
    """A push that holds every lock and stands still on h02."""
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    return running, sign


@pytest.mark.hosts(3)
def test_nothing_to_unlock(lab: Lab, site: Path) -> None:
    assert lab.push(site).code == 0
    done = unlock(lab)
    assert (done.code, done.outcome) == (0, "ok")
    lines = [line for name in lab.names for line in done.of(name) if line["phase"] == "unlock"]
    assert [line["data"] for line in lines] == [{"held": None, "taken": False}] * 3


def test_without_a_terminal_and_without_yes_it_takes_nothing(lab: Lab, site: Path) -> None:
    running, sign = holding(lab, site)
    refused = unlock(lab)
    assert refused.code == 2
    assert "--yes" in refused.stderr
    assert f"process {running.process.pid}" in refused.stderr
    sign.unlink()
    ended = running.finish()
    assert ended.code == 0
    assert lab.live == lab.serves(ended.release)


def test_yes_takes_it_and_the_run_that_had_it_changes_nothing(lab: Lab, site: Path) -> None:
    first = lab.push(site)
    make_site(site, "two")
    running, sign = holding(lab, site)
    done = unlock(lab, "--yes")
    assert (done.code, done.outcome) == (0, "ok")
    for name in lab.names:
        [line] = [line for line in done.of(name) if line["phase"] == "unlock" and line["state"] == "ok"]
        assert line["data"]["taken"] is True
        assert line["data"]["held"]["pid"] == running.process.pid
        assert line["data"]["held"]["run"] == running.events[0]["run"]
    sign.unlink()
    ended = running.finish()
    assert (ended.code, ended.outcome) == (20, "aborted")
    assert lab.live == lab.serves(first.release)
    for place in lab:
        records = [json.loads(line) for line in place.history.splitlines()]
        [told] = [record for record in records if record["event"] == "unlock"]
        assert told["holder"]["run"] == running.events[0]["run"]
        place.mend()
    assert unlock(lab).code == 0
    again = lab.push(site)
    assert again.code == 0
    assert lab.live == lab.serves(again.release)


def test_a_no_is_a_failure_in_json(lab: Lab, site: Path) -> None:
    running, sign = holding(lab, site)
    terminal = Terminal(lab, "unlock", "-o", "json")
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.exit_code() == 20
    [line] = [line for line in terminal.said.splitlines() if '"run_finished"' in line]
    last = json.loads(line[line.index("{") :])
    assert (last["outcome"], last["exit_code"]) == ("failed", 20)
    sign.unlink()
    assert running.finish().code == 0


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 20)])
def test_it_asks_on_a_terminal(lab: Lab, site: Path, answer: str, code: int) -> None:
    running, sign = holding(lab, site)
    terminal = Terminal(lab, "unlock")
    terminal.read_until("[y/N]")
    assert f"process {running.process.pid}" in terminal.said
    terminal.type(f"{answer}\n")
    assert terminal.exit_code() == code
    if answer == "n":
        assert "unlock: no host changed" in terminal.said
        assert "the answer was no" in terminal.said
    sign.unlink()
    ended = running.finish()
    assert (ended.code == 0) is (answer == "n")
    assert lab.live == (lab.serves(ended.release) if answer == "n" else lab.everywhere(None))
