"""Hooks that fail or never end: what is live then, who reloads what, and that nothing of them is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.life.moments import Diary, gone, held_by, hooks, pid_in
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    """Two servers: enough for one that fails and one that does not."""
    return make_lab(2)


def on(host: str, command: str) -> str:
    return f'if [ "$DEPLOYCTL_HOST" = {host} ]; then {command}; fi'


def test_a_failing_staged_hook_aborts_with_nothing_live(lab: Lab, site: Path, diary: Diary) -> None:
    hooks(lab, {**diary.hooks(), "staged": [on("h02", "echo why it failed >&2; exit 7")]})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert failed.failure("h02")[:2] == ("stage", 40)
    assert "status 7" in failed.failure("h02")[2]
    [line] = [event for event in failed.of("h02") if event["state"] == "failed"]
    assert line["data"]["tail"] == ["why it failed"]
    assert lab.live == lab.everywhere(None)
    assert diary.lines == []
    assert all(place.runs_left == [] for place in lab)
    hooks(lab, diary.hooks())
    done = lab.push(site)
    assert (done.code, done.bytes_sent) == (0, 0)
    assert lab.live == lab.serves(done.release)


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "second"])
def test_a_failing_activating_hook_in_the_first_batch_switches_nothing(
    lab: Lab, site: Path, diary: Diary, earlier: bool
) -> None:
    before = lab.push(site).release if earlier else None
    make_site(site, "two")
    hooks(lab, {**diary.hooks("activated"), "activating": [on("h01", "exit 1")]})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert failed.failure("h01")[:2] == ("activate", 40)
    assert lab.live == lab.everywhere(before and f"releases/{before}")
    assert diary.lines == []
    assert "revert" not in {event["phase"] for event in failed.events if event["event"] == "host"}


def test_a_failing_activated_hook_reverts_the_fleet_and_services_reload_what_is_back(
    make_lab: MakeLab, site: Path, diary: Diary
) -> None:
    """Links first, on every host; then the hooks, with the environment of the release that is back."""
    lab = make_lab(3)
    old = lab.push(site).release
    make_site(site, "two")
    seen = "; ".join(f'readlink "{place.root}/current"' for place in lab)
    reload = f'echo "reload $DEPLOYCTL_HOST $DEPLOYCTL_RELEASE $DEPLOYCTL_PREVIOUS_RELEASE $PWD" $({seen}) >>{diary.path}'
    fail = on(
        "h02", '[ "$DEPLOYCTL_RELEASE" = "$(basename "$DEPLOYCTL_RELEASE_PATH")" ] && [ ! -e ok ] && exit 3'
    )
    hooks(lab, {"activated": [f"{reload}; {fail}; true"]})
    (lab["h02"].root / "releases" / old / "ok").touch()
    failed = lab.push(site)
    new = failed.release
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.states == {"h01": "reverted", "h02": "failed", "h03": "reverted"}
    assert lab.live == lab.serves(old)
    assert failed.serving == lab.everywhere(old)
    back = [line for line in diary.lines if line[2] == old]
    assert sorted(line[1] for line in back) == ["h01", "h02", "h03"]
    for _, host, _, previous, directory, *links in back:
        assert previous == new
        assert Path(directory).samefile(lab[host].root / "releases" / old)
        assert links == [f"releases/{old}"] * 3


def test_hosts_that_served_nothing_serve_nothing_and_run_no_hook(lab: Lab, site: Path, diary: Diary) -> None:
    lab.push(site, "--limit", "h01")
    old = lab["h01"].live
    make_site(site, "two")
    hooks(lab, {"activated": [diary.line("activated"), on("h02", "exit 1")]})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == {"h01": old, "h02": None}
    assert failed.serving == {"h01": str(old).removeprefix("releases/"), "h02": None}
    back = [line[1] for line in diary.lines if line[2] != failed.release]
    assert back == ["h01"]
    assert [line[1] for line in diary.lines if line[1] == "h02"] == ["h02"]


def test_a_hook_that_fails_on_the_way_back_makes_hosts_differ(lab: Lab, site: Path) -> None:
    old = lab.push(site).release
    make_site(site, "two")
    hooks(lab, {"activated": [f'[ "$DEPLOYCTL_RELEASE" != {old} ] && [ "$DEPLOYCTL_HOST" = h01 ]']})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (22, "mixed")
    assert lab.live == lab.serves(old)
    assert failed.failure("h01")[:2] == ("revert", 40)
    assert "deployctl push" in failed.last["mend"]


@pytest.mark.parametrize("moment", ["staged", "activated"])
def test_a_hook_past_its_timeout_is_killed_with_its_children(
    make_lab: MakeLab, site: Path, tmp_path: Path, moment: str
) -> None:
    lab = make_lab(1)
    script = (
        f"trap '' TERM HUP INT; echo $$ >{tmp_path}/shell; sleep 300 & echo $! >{tmp_path}/child; "
        f"(trap '' TERM; sh -c 'echo $$ >{tmp_path}/deep; while :; do sleep 1; done') & echo begun; wait"
    )
    hooks(lab, {moment: [{"run": script, "timeout": "1s"}]})
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == ((20, "aborted") if moment == "staged" else (21, "reverted"))
    phase, code, message = failed.failure("h01")
    assert (phase, code) == ("stage" if moment == "staged" else "activate", 40)
    assert "did not end within 1 s and was killed" in message
    [line] = [event for event in failed.of("h01") if event["state"] == "failed"]
    assert line["data"]["tail"] == ["begun"]
    for name in ("shell", "child", "deep"):
        assert gone(pid_in(tmp_path / name))
    assert lab.live == lab.everywhere(None)
    lab.assert_idle()


def test_a_hook_may_take_longer_than_a_phase_when_it_says_so(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1)
    hooks(lab, {"staged": [{"run": "sleep 3", "timeout": "30s"}], "activated": ["sleep 60"]})
    failed = lab.push(site, "--timeout", "2s")
    assert failed.failure("h01")[:2] == ("activate", 40)
    assert "within 2 s" in failed.failure("h01")[2]


def test_hooks_elsewhere_are_stopped_when_one_fails(lab: Lab, site: Path, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    wait = f"while [ ! -e {hold}.here ]; do sleep 0.02; done; exit 1"
    hooks(lab, {"staged": [f"{on('h01', f'echo $$ >{tmp_path}/pid; {held_by(hold)}')}; {on('h02', wait)}"]})
    failed = lab.push(site)
    assert (failed.code, failed.states) == (20, {"h01": "cancelled", "h02": "failed"})
    wait_until(lambda: gone(pid_in(tmp_path / "pid")), 5, "the end of the hook")
    lab.assert_idle()


def test_a_worker_that_dies_in_a_hook_takes_it_along(
    lab: Lab, site: Path, tmp_path: Path, diary: Diary
) -> None:
    old = lab.push(site).release
    make_site(site, "two")
    hold = tmp_path / "hold"
    hooks(
        lab, {"activated": [on("h02", f"echo $$ >{tmp_path}/pid; {held_by(hold)}"), diary.line("activated")]}
    )
    running = lab.start("push", site)
    wait_until(lambda: Path(f"{hold}.here").exists(), 20, "the hook")
    hold_again = hold  # the hook of the way back must not wait
    running.worker_of(lab["h02"].port).signal(9)
    wait_until(lambda: gone(pid_in(tmp_path / "pid")), 10, "the end of the hook")
    hold_again.unlink()
    failed = running.finish()
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.failure("h02")[1] == 60
    assert lab.live == lab.serves(old)
    assert sorted(line[1] for line in diary.lines if line[2] == old) == ["h01", "h02"]
