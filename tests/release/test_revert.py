"""Activation that fails after others have switched: every link is back, byte for byte, or the list says where not."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.running import Running
from tests.release.trees import make_site, walk
from tests.support.proc import wait_until

pytestmark = [pytest.mark.sshd, pytest.mark.hosts(3)]


def link_texts(lab: Lab, tmp_path: Path) -> list[str]:
    """Links as other tools leave them: absolute, with a slash too many, with odd bytes, to nothing."""
    old = tmp_path / "releases of another tool/2019'0101 $(x)"
    make_site(old, "old")
    return [str(old), "../root/./elsewhere//20190101/", "-n`nowhere` line"]


def test_links_of_other_tools_are_restored_byte_for_byte(lab: Lab, site: Path, tmp_path: Path) -> None:
    texts = link_texts(lab, tmp_path)
    for place, text in zip(lab, texts, strict=True):
        place.link(text)
    before = lab.live
    lab["h03"].gate("activate.mv")
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.states == {"h01": "reverted", "h02": "reverted", "h03": "failed"}
    assert lab.live == before == dict(zip(lab.names, texts, strict=True))
    lab["h03"].mend()
    done = lab.push(site)
    assert lab.live == lab.serves(done.release)
    assert walk(tmp_path / "releases of another tool/2019'0101 $(x)")[b"index.html"][0] == "f"


def test_hosts_that_served_nothing_serve_nothing_again(lab: Lab, site: Path) -> None:
    lab["h02"].gate("activate.mv")
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == lab.everywhere(None)
    assert not any((place.root / "current").is_symlink() for place in lab)
    assert failed.serving == lab.everywhere(None)


def test_hosts_that_differed_are_each_put_back_on_their_own(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    two = lab.push(site, "--limit", "h02")
    before = {
        "h01": f"releases/{one.release}",
        "h02": f"releases/{two.release}",
        "h03": f"releases/{one.release}",
    }
    assert lab.live == before
    make_site(site, "three")
    lab["h01"].gate("activate.mv")
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == before


def test_a_switch_that_happened_but_was_not_heard_of_is_taken_back(lab: Lab, site: Path) -> None:
    """The link has changed, then the command dies: the host counts as failed and is switched back all the same."""
    one = lab.push(site)
    make_site(site, "two")
    lab["h02"].gate("activate.sync", "kill -KILL 0")
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.failure("h02")[:2] == ("activate", 20)
    assert lab.live == lab.serves(one.release)
    assert failed.serving == lab.everywhere(one.release)


def lose_while_it_is_switched_back(lab: Lab, site: Path) -> Running:
    """h01 has switched, h03 fails, and h01 can't be reached any more when it should be switched back."""
    lab["h01"].hold("revert.mkdir")
    sign = lab["h03"].hold("activate.mv")
    lab["h03"].gate("activate.readlink")
    running = lab.start("push", site)
    running.wait_for_host("h01", "activate", "ok")
    lab["h03"].gate("activate.mv")
    sign.unlink()
    running.wait_for_host("h01", "revert")
    wait_until(lambda: bool(lab.servers[0].command_pids()), what="the way back on h01")
    lab.servers[0].stop()
    return running


def test_a_host_lost_on_the_way_back_is_named_and_the_next_push_mends_it(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    make_site(site, "two")
    ended = lose_while_it_is_switched_back(lab, site).finish(timeout_s=30)
    assert (ended.code, ended.outcome) == (22, "mixed")
    assert ended.states == {"h01": "failed", "h02": "reverted", "h03": "failed"}
    assert ended.failure("h01")[0] == "revert"
    assert ended.serving == {"h01": None, "h02": one.release, "h03": one.release}
    assert "deployctl push" in ended.last["mend"]
    assert lab.live == {**lab.serves(one.release), "h01": f"releases/{ended.release}"}
    for place in lab:
        place.mend()
    lab.servers[0].start()
    done = lab.push(site)
    assert (done.code, done.outcome) == (0, "released")
    assert lab.live == lab.serves(done.release)
    assert lab.push(site).outcome == "unchanged"


def test_the_history_tells_of_the_way_back(lab: Lab, site: Path) -> None:
    one = lab.push(site, "--message", "first")
    make_site(site, "two")
    # It fails once h01 has switched, so that h01 has something to take back.
    link = shlex.quote(str(lab["h01"].root / "current"))
    lab["h03"].gate(
        "activate.mv", f'while [ "$(readlink {link})" = releases/{one.release} ]; do sleep 0.05; done; exit 1'
    )
    failed = lab.push(site, "--message", "a second 'one'")
    records = [json.loads(line) for line in lab["h01"].history.splitlines()]
    assert [(r["event"], r["release"]) for r in records] == [
        ("switch", one.release),
        ("confirm", one.release),
        ("switch", failed.release),
        ("revert", failed.release),
    ]
    assert [r.get("message") for r in records[:3]] == ["first", "first", "a second 'one'"]
    assert len({r["run"] for r in records}) == 2
    assert {r["user"] for r in records} != {None}


def test_a_release_that_was_reverted_can_be_pushed_again(lab: Lab, site: Path) -> None:
    lab.push(site)
    make_site(site, "two")
    lab["h03"].gate("activate.mv")
    failed = lab.push(site)
    lab["h03"].mend()
    again = lab.push(site)
    assert (again.code, again.outcome, again.bytes_sent) == (0, "released", 0)
    assert lab.live == lab.serves(again.release)
    assert again.release[-8:] == failed.release[-8:]
