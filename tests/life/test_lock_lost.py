"""A lock that is taken away while its run is at work: that run stops, takes back what is still its own, and tells the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.life.kit import Story
from tests.release.lab import Lab
from tests.release.running import Pushed, Running
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """What somebody else releases."""
    return make_site(tmp_path / "other", "other")


def let_others_pass(lab: Lab, name: str, point: str) -> None:
    """Whoever stands at this gate stays there; who comes later passes."""
    (lab[name].programs / "gates" / point).unlink()


def stopped_at(story: Story, point: str, *arguments: str) -> tuple[Running, Path]:
    """A push of the tree `mine` that stands still in a step on h02 until the returned file is removed."""
    place = story.lab["h02"]
    sign, here = place.programs / "sign", place.programs / "here"
    place.gate(point, f"touch {here}; while [ -e {sign} ]; do sleep 0.02; done")
    sign.touch()
    running = story.lab.start("push", story.tree("mine"), *arguments)
    wait_until(here.exists, 30, f"h02 in {point}")
    return running, sign


def take_over(lab: Lab, tree: Path, limit: str, point: str) -> Pushed:
    """Somebody takes every lock away and releases on some hosts."""
    let_others_pass(lab, "h02", point)
    assert lab.start("unlock", "--yes").finish().code == 0
    done = lab.push(tree, "--limit", limit)
    assert (done.code, done.outcome) == (0, "released")
    return done


@pytest.mark.hosts(3)
@pytest.mark.parametrize("limit", ["h01,h03", "h03", "h01"])
def test_between_batches(story: Story, other: Path, limit: str) -> None:
    """h01 had switched: it is put back unless the other run has switched it, and what is told is what is there."""
    lab = story.lab
    [old] = story.releases("old")
    running, sign = stopped_at(story, "activate", "--batch", "1,1,1")
    theirs = take_over(lab, other, limit, "activate")
    sign.unlink()
    ended = running.finish()
    assert ended.failure("h02")[:2] == ("activate", 50)
    now = {name: theirs.release if name in limit else old for name in lab.names}
    assert lab.live == {name: f"releases/{release}" for name, release in now.items()}
    assert ended.serving == now
    assert (ended.code, ended.outcome) == (22, "mixed")
    assert f"another run has switched {'h[01,03]' if ',' in limit else limit}" in ended.last["message"]
    assert ended.states["h01"] == ("cancelled" if "h01" in limit else "reverted")
    assert story.run("status").code == 22


@pytest.mark.hosts(3)
def test_between_batches_when_nobody_else_releases(story: Story) -> None:
    [old] = story.releases("old")
    running, sign = stopped_at(story, "activate", "--batch", "1,1,1")
    assert story.run("unlock", "--yes").code == 0
    sign.unlink()
    ended = running.finish()
    assert ended.failure("h02")[:2] == ("activate", 50)
    assert "taken away, as `deployctl unlock` does" in ended.failure("h02")[2]
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert ended.states == {"h01": "reverted", "h02": "failed", "h03": "cancelled"}
    assert ended.serving == story.lab.everywhere(old)
    assert story.lab.live == story.lab.serves(old)


def test_before_the_first_switch(story: Story) -> None:
    """Nothing was switched, so nothing is said to be switched back."""
    [old] = story.releases("old")
    running, sign = stopped_at(story, "stage.tar")
    assert story.run("unlock", "--yes").code == 0
    sign.unlink()
    ended = running.finish()
    assert (ended.code, ended.outcome) == (20, "aborted")
    assert 50 in {host["code"] for host in ended.hosts.values()}
    assert set(ended.states.values()) <= {"failed", "cancelled"}
    assert ended.serving == story.lab.everywhere(old)
    assert story.lab.live == story.lab.serves(old)
    events = [json.loads(line)["event"] for place in story.lab for line in place.history.splitlines()]
    assert "revert" not in events
    assert not any(place.runs_left for place in story.lab)


def test_another_run_that_holds_the_lock_is_named(story: Story, other: Path) -> None:
    lab = story.lab
    running, sign = stopped_at(story, "activate")
    let_others_pass(lab, "h02", "activate")
    assert lab.start("unlock", "--yes").finish().code == 0
    their_sign = lab["h02"].hold("stage")
    theirs = lab.start("push", other, "--limit", "h02")
    theirs.wait_for_host("h02", "stage")
    sign.unlink()
    ended = running.finish()
    name, code, message = ended.failure("h02")
    assert (name, code) == ("activate", 50)
    assert f"process {theirs.process.pid}, run {theirs.events[0]['run']}" in message
    their_sign.unlink()
    done = theirs.finish()
    assert done.code == 0
    assert lab["h02"].live == f"releases/{done.release}"


@pytest.mark.hosts(3)
def test_in_the_middle_of_staging(story: Story, other: Path) -> None:
    """The other run swept what ours was staging: the lock is the cause that is told, not the missing directory."""
    lab = story.lab
    running, sign = stopped_at(story, "stage.tar")
    theirs = take_over(lab, other, "h02", "stage.tar")
    sign.unlink()
    ended = running.finish()
    assert ended.failure("h02")[:2] == ("stage", 50)
    assert (ended.code, ended.outcome) == (20, "aborted")
    assert ended.serving == {"h01": None, "h02": theirs.release, "h03": None}


@pytest.mark.hosts(3)
def test_after_the_last_switch(story: Story, other: Path) -> None:
    """Every host had switched, and another run switches one of them before it is confirmed."""
    lab = story.lab
    story.releases("old")
    running, sign = stopped_at(story, "confirm")
    theirs = take_over(lab, other, "h02", "confirm")
    sign.unlink()
    ended = running.finish()
    assert (ended.code, ended.outcome) == (22, "mixed")
    assert ended.hosts["h02"]["code"] == 50
    assert ended.serving == {"h01": ended.release, "h02": theirs.release, "h03": ended.release}
    last = json.loads(lab["h02"].history.splitlines()[-1])
    assert (last["event"], last["release"]) == ("confirm", theirs.release)
