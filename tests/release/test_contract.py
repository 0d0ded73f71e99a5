"""The core of what a push promises, behind real OpenSSH servers and behind the embedded one alike."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.artifact.trees import make_nasty_tree
from tests.release.lab import HALF_A_FILE, Lab
from tests.release.trees import make_site, walk

pytestmark = [pytest.mark.cold, pytest.mark.hosts(3)]


def test_a_push_makes_the_tree_live_everywhere(any_lab: Lab, site: Path) -> None:
    pushed = any_lab.push(site)
    assert (pushed.code, pushed.outcome) == (0, "released")
    assert set(pushed.states.values()) == {"ok"}
    assert any_lab.live == any_lab.serves(pushed.release)
    assert pushed.serving == any_lab.everywhere(pushed.release)
    for place in any_lab:
        assert walk(place.root / "current/") == walk(site)
        assert place.runs_left == []
        assert (place.root / ".deployctl/version").read_text() == "1\n"
        assert (place.root / "shared").is_dir()
    any_lab.assert_idle()


def test_the_second_push_finds_it_there_and_sends_nothing(any_lab: Lab, site: Path) -> None:
    first = any_lab.push(site)
    again = any_lab.push(site)
    assert (again.code, again.outcome, again.bytes_sent) == (0, "unchanged", 0)
    assert again.release == first.release
    assert set(again.states.values()) == {"ok"}
    assert {host["message"] for host in again.hosts.values()} == {"unchanged"}
    assert any_lab.live == any_lab.serves(first.release)


def test_a_failed_upload_leaves_every_host_as_it_was(any_lab: Lab, site: Path) -> None:
    first = any_lab.push(site)
    make_site(site, "two")
    _, broken, _ = any_lab
    broken.gate("none.scp", HALF_A_FILE)
    failed = any_lab.push(site)
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert any_lab.live == any_lab.serves(first.release)
    phase, code, _ = failed.failure(broken.name)
    assert (phase, code) == ("upload", 20)
    assert [state for name, state in failed.states.items() if name != broken.name] == [
        "cancelled",
        "cancelled",
    ]
    assert failed.serving == any_lab.everywhere(first.release)
    for place in any_lab:
        assert place.runs_left == []
    any_lab.assert_idle()
    broken.mend()
    second = any_lab.push(site)
    assert second.code == 0
    assert any_lab.live == any_lab.serves(second.release)


def test_a_failed_switch_switches_the_others_back(any_lab: Lab, site: Path) -> None:
    first = any_lab.push(site)
    make_site(site, "two")
    *_, broken = any_lab
    broken.gate("activate.mv")
    reverted = any_lab.push(site)
    assert (reverted.code, reverted.outcome) == (21, "reverted")
    assert any_lab.live == any_lab.serves(first.release)
    assert reverted.failure(broken.name)[:2] == ("activate", 32)
    others = [name for name in any_lab.names if name != broken.name]
    assert [reverted.states[name] for name in others] == ["reverted", "reverted"]
    assert reverted.serving == any_lab.everywhere(first.release)
    any_lab.assert_idle()


def test_names_modes_and_links_arrive_byte_for_byte(any_lab: Lab, tmp_path: Path) -> None:
    source = make_nasty_tree(tmp_path / "nasty")
    pushed = any_lab.push(source)
    assert pushed.code == 0
    for place in any_lab:
        assert walk(place.root / "current/") == walk(source)


def test_what_was_staged_is_made_live_later(any_lab: Lab, site: Path) -> None:
    staged = any_lab.push(site, "--no-activate")
    assert (staged.code, staged.outcome) == (0, "staged")
    assert any_lab.live == any_lab.everywhere(None)
    assert staged.serving == any_lab.everywhere(None)
    assert all(place.releases == [staged.release] for place in any_lab)
    done = any_lab.activate(staged.release)
    assert (done.code, done.outcome) == (0, "released")
    assert any_lab.live == any_lab.serves(staged.release)
    for place in any_lab:
        assert walk(place.root / "current/") == walk(site)
        assert place.incoming == []


def test_a_killed_worker_costs_its_host_and_no_other_changes(any_lab: Lab, site: Path) -> None:
    first = any_lab.push(site)
    make_site(site, "two")
    _, held, _ = any_lab
    sign = held.hold("stage.tar")
    running = any_lab.start("push", site)
    running.wait_for_host(held.name, "stage")
    running.worker_of(held.port).signal(signal.SIGKILL)
    ended = running.finish()
    sign.unlink()
    assert (ended.code, ended.outcome) == (20, "aborted")
    phase, code, message = ended.failure(held.name)
    assert (phase, code) == ("stage", 60)
    assert "SIGKILL" in message
    assert any_lab.live == any_lab.serves(first.release)
    assert [state for name, state in ended.states.items() if name != held.name] == ["cancelled", "cancelled"]
    any_lab.assert_idle()
