"""What is live where, as the hosts' disks tell it: status and releases, and how a host that lags catches up."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.life.kit import Story
from tests.life.moments import spoken
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import listing
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


def facts(read: Pushed, command: str) -> dict[str, dict[str, Any]]:
    """The facts of each host, which has exactly one line."""
    lines = [event for event in read.events if event["event"] == "host"]
    assert {event["phase"] for event in lines} == {command}
    assert len({event["host"] for event in lines}) == len(lines) == len(read.hosts)
    return {event["host"]: event["data"] for event in lines if event["state"] == "ok"}


def plain(story: Story, command: str, *arguments: str) -> str:
    """What a person sees."""
    return spoken(story.lab, command, *arguments)[1]


@pytest.mark.hosts(3)
def test_status_tells_what_is_live_since_when_and_by_whom(story: Story) -> None:
    lab = story.lab
    nothing = story.run("status")
    assert (nothing.code, nothing.outcome) == (0, "ok")
    assert [each["live"] for each in facts(nothing, "status").values()] == [None] * 3
    assert not any((place.root / ".deployctl").exists() for place in lab)
    one, two = story.releases("one", "two")
    staged = story.stage("three")
    disks = [listing(place.root) for place in lab]
    read = story.run("status")
    assert (read.code, read.outcome) == (0, "ok")
    assert [listing(place.root) for place in lab] == disks
    for name, each in facts(read, "status").items():
        assert (each["live"], each["confirmed"], each["previous"]) == (two, True, one)
        assert each["staged"] == [staged]
        assert each["message"] == "release two"
        switched = [json.loads(line) for line in lab[name].history.splitlines()]
        [record] = [r for r in switched if (r["event"], r["release"]) == ("switch", two)]
        assert (each["since"], each["user"], each["machine"]) == (
            record["ts"],
            record["user"],
            record["machine"],
        )
        assert each["lock"] is None
    shown = plain(story, "status")
    assert f"h[01-03]  {two}" in shown
    assert f"release two; staged: {staged}" in shown
    assert len(shown.splitlines()) == 2


@pytest.mark.hosts(3)
def test_status_says_which_hosts_lag_and_what_mends_it(story: Story) -> None:
    """A host that was replaced joins with what is live, under the same id, and the others are left alone."""
    lab = story.lab
    one, two = story.releases("one", "two")
    story.run("rollback", one, "-l", "h02")
    story.forget("h03")
    read = story.run("status")
    assert (read.code, read.outcome) == (22, "failed")
    live = {name: each["live"] for name, each in facts(read, "status").items()}
    assert live == {"h01": two, "h02": one, "h03": None}
    assert read.last["lagging"] == ["h02", "h03"] if read.last["usual"] == two else ["h01", "h03"]
    two_hosts = story.run("status", "-l", "h01,h02")
    usual = two_hosts.last["usual"]
    assert two_hosts.last["mend"].startswith(f"deployctl rollback {usual} -i {lab.inventory} -l ")
    story.rollback(two, "-l", "h02")
    read = story.run("status")
    assert (read.code, read.last["lagging"]) == (22, ["h03"])
    assert read.last["mend"] == f"deployctl push {story.site} -i {lab.inventory} -l h03"
    shown = plain(story, "status")
    assert f"hosts differ: h03 does not serve {two}" in shown
    assert f"mend it with: deployctl push {story.site}" in shown
    joined = story.push("two", "-l", "h03")
    assert (joined.outcome, joined.release) == ("released", two)
    assert lab.live == lab.serves(two)
    assert story.run("status").code == 0


@pytest.mark.hosts(3)
def test_a_push_of_what_is_live_touches_only_hosts_that_lag(story: Story) -> None:
    lab = story.lab
    [one] = story.releases("one")
    story.forget("h02")
    before = {name: listing(lab[name].root / "releases") for name in ("h01", "h03")}
    done = story.push("one")
    assert (done.outcome, done.release) == ("released", one)
    assert [done.hosts[name]["message"] for name in lab.names] == ["unchanged", "success", "unchanged"]
    assert lab.live == lab.serves(one)
    assert {name: listing(lab[name].root / "releases") for name in before} == before
    assert [each.count('"switch"') for each in (lab["h01"].history, lab["h02"].history)] == [1, 1]


@pytest.mark.hosts(3)
def test_hosts_that_cannot_be_asked_do_not_keep_the_others_from_it(story: Story) -> None:
    [one] = story.releases("one")
    story.lab.servers[0].stop_listener()
    read = story.run("status")
    assert (read.code, read.outcome) == (20, "failed")
    assert read.states == {"h01": "failed", "h02": "ok", "h03": "ok"}
    assert read.failure("h01")[:2] == ("status", 10)
    assert read.serving == {"h01": None, "h02": one, "h03": one}
    story.run("rollback", one, "-l", "h02")
    story.push("two", "-l", "h03")
    assert story.run("status").code == 22


@pytest.mark.hosts(3)
def test_an_unconfirmed_release_and_a_foreign_one_are_told_apart(story: Story) -> None:
    lab = story.lab
    [one] = story.releases("one")
    lines = lab["h01"].history.splitlines(keepends=True)
    assert '"confirm"' in lines[1]
    (lab["h01"].root / ".deployctl/history.jsonl").write_text(lines[0] + lines[1][:30])  # torn by a crash
    read = story.run("status")
    assert read.code == 0
    assert [each["confirmed"] for each in facts(read, "status").values()] == [False, True, True]
    assert "not confirmed" in plain(story, "status")
    assert story.push("one").outcome == "released"  # confirms it, on a line of its own
    assert [each["confirmed"] for each in facts(story.run("status"), "status").values()] == [True] * 3
    (lab["h02"].root / "current").unlink()
    lab["h02"].link("/var/www/releases/20190101")
    read = story.run("status")
    assert (read.code, facts(read, "status")["h02"]["live"]) == (22, "20190101")
    assert "not a release of ours" in plain(story, "status")
    assert one in plain(story, "status")


def test_status_tells_who_holds_the_lock(story: Story) -> None:
    story.releases("one")
    sign = story.lab["h02"].hold("stage.tar")
    running = story.lab.start("push", story.tree("two"))
    running.wait_for_host("h02", "stage")
    held = facts(story.run("status"), "status")
    assert held["h01"]["lock"]["run"] == running.events[0]["run"]
    assert held["h01"]["lock"]["pid"] == running.process.pid
    sign.unlink()
    assert running.finish().code == 0
    assert facts(story.run("status"), "status")["h01"]["lock"] is None


@pytest.mark.hosts(3)
def test_releases_are_listed_newest_first_with_who_holds_and_serves_them(story: Story) -> None:
    one, two = story.releases("one", "two")
    story.remove("h02", one)
    story.rollback(one, "-l", "h01")
    read = story.run("releases")
    assert (read.code, read.outcome) == (0, "ok")
    found = facts(read, "releases")
    assert [each["release"] for each in found["h01"]["releases"]] == [two, one]
    assert [each["release"] for each in found["h02"]["releases"]] == [two]
    assert [each["live"] for each in found["h01"]["releases"]] == [False, True]
    sizes = {each["bytes"] for host in found.values() for each in host["releases"]}
    files = [path for path in (story.site).rglob("*") if path.is_file() and not path.is_symlink()]
    assert sizes == {sum(path.stat().st_size for path in files)}
    head, first, second = plain(story, "releases").splitlines()
    assert head.split()[:2] == ["RELEASE", "LIVE"]
    assert first.split()[:4] == [two, "h[02-03]", "h[01-03]", "yes"]
    assert second.split()[:4] == [one, "h01", "h[01,03]", "yes"]


def test_it_works_where_the_userland_is_busybox(make_lab: MakeLab, tmp_path: Path, busybox: str) -> None:
    lab: Lab = make_lab(2, path=busybox)
    story = Story(lab, tmp_path / "site")
    one, two = story.releases("one", "two")
    assert story.run("status").code == 0
    back = story.rollback()
    assert (back.code, back.release) == (0, one), back.stderr
    assert [each["live"] for each in facts(story.run("status"), "status").values()] == [one, one]
    assert two in plain(story, "releases")


def test_a_signal_ends_a_look_at_once(story: Story) -> None:
    story.releases("one")
    story.lab["h02"].hold("standing")
    running = story.lab.start("status")
    wait_until(lambda: bool(story.lab.servers[1].command_pids()), what="the question to h02")
    running.signal(signal.SIGTERM)
    ended = running.finish()
    assert (ended.code, ended.outcome) == (143, "interrupted")
    assert set(ended.states.values()) == {"cancelled"}
    assert {event["phase"] for event in ended.events if event["event"] == "host"} == {"status"}
    story.lab.assert_idle()
