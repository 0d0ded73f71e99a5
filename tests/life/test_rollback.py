"""Rollback on real servers: which release comes back, what refuses it, and that nothing changes when it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.life.kit import Story
from tests.release.running import Pushed
from tests.release.trees import walk
from tests.support import proc

pytestmark = pytest.mark.sshd


def events_of(place_history: str) -> list[tuple[str, str]]:
    return [(record["event"], record["release"]) for record in map(json.loads, place_history.splitlines())]


@pytest.mark.hosts(3)
def test_the_one_before_comes_back_and_twice_returns(story: Story) -> None:
    one, two, three = story.releases("one", "two", "three")
    lab = story.lab
    back = story.rollback("--message", "it was slow")
    assert (back.code, back.outcome, back.release) == (0, "released", two)
    assert lab.live == lab.serves(two) == {name: f"releases/{r}" for name, r in back.serving.items()}
    assert back.bytes_sent == 0
    again = story.rollback()
    assert (again.code, again.release) == (0, three)
    assert lab.live == lab.serves(three)
    named = story.rollback(one)
    assert (named.code, named.release) == (0, one)
    assert story.rollback().release == three
    ends = [("switch", two), ("confirm", two), ("switch", three), ("confirm", three)]
    assert events_of(lab["h02"].history)[6:10] == ends
    assert '"message": "it was slow"' in lab["h02"].history
    assert not any(place.runs_left for place in lab)


def test_a_release_is_named_by_its_digest_and_one_that_is_live_is_left_alone(story: Story) -> None:
    one, two = story.releases("one", "two")
    lab = story.lab
    back = story.rollback(one.rpartition("-")[2])
    assert (back.release, lab.live) == (one, lab.serves(one))
    before = lab["h01"].history
    same = story.rollback(one)
    assert (same.code, same.outcome) == (0, "unchanged")
    assert set(same.states.values()) == {"ok"}
    assert lab["h01"].history == before
    assert two in lab["h01"].releases


def test_nothing_to_roll_back_to_is_wrong_usage_and_changes_nothing(story: Story) -> None:
    lab = story.lab
    never = story.rollback()
    assert never.code == 2
    assert "nothing to roll back to" in never.stderr
    assert not any((place.root / ".deployctl").exists() for place in lab)
    [one] = story.releases("one")
    story.stage("two")
    only = story.rollback()
    assert only.code == 2
    assert "nothing to roll back to" in only.stderr
    assert one in only.stderr
    assert lab.live == lab.serves(one)


@pytest.mark.hosts(3)
def test_a_release_that_was_never_confirmed_is_not_the_one_before(story: Story) -> None:
    one, two = story.releases("one", "two")
    lab = story.lab
    lab["h03"].gate("activate.mv")
    failed = story.push("three")
    assert failed.outcome == "reverted"
    lab["h03"].mend()
    back = story.rollback()
    assert (back.code, back.release) == (0, one)
    assert story.rollback().release == two


def refused(back: Pushed, story: Story, live: str) -> None:
    assert (back.code, back.outcome) == (20, "aborted")
    assert story.lab.live == story.lab.serves(live)
    assert story.lab.live == {name: f"releases/{release}" for name, release in back.serving.items()}
    story.lab.assert_idle()
    assert not any(place.runs_left for place in story.lab)


@pytest.mark.hosts(3)
def test_hosts_without_the_target_are_named_with_the_limit_to_use(story: Story) -> None:
    one, two = story.releases("one", "two")
    lab = story.lab
    story.remove("h02", one)
    back = story.rollback()
    refused(back, story, two)
    assert back.failure("h02")[:2] == ("probe", 33)
    assert f"does not hold release {one} (it holds {two})" in back.stderr
    assert f"deployctl rollback {one} -i {lab.inventory} -l 'h[01,03]'" in back.stderr
    assert back.states == {"h01": "cancelled", "h02": "failed", "h03": "cancelled"}
    some = story.rollback("-l", "h[01,03]")
    assert (some.code, some.release) == (0, one)
    unknown = story.rollback("20200101T000000Z-00000000")
    assert unknown.code == 20
    assert set(unknown.states.values()) == {"failed"}


@pytest.mark.hosts(3)
@pytest.mark.parametrize("damage", ["byte", "missing", "mode", "link"])
def test_an_altered_target_is_refused_everywhere_it_was_altered_unless_forced(
    story: Story, damage: str
) -> None:
    one, two = story.releases("one", "two")
    lab = story.lab
    for name in ("h01", "h03"):
        story.alter(name, one, damage)
    back = story.rollback()
    refused(back, story, two)
    assert {name for name, state in back.states.items() if state == "failed"} == {"h01", "h03"}
    assert back.failure("h03")[:2] == ("stage", 33)
    assert "-l h02; --force" in back.stderr
    disk = walk(lab["h03"].root / "releases" / one)
    forced = story.rollback("--force")
    assert (forced.code, forced.release) == (0, one)
    assert lab.live == lab.serves(one)
    assert "was altered there" in forced.stderr
    assert walk(lab["h03"].root / "releases" / one) == disk


def test_what_staged_hooks_changed_is_part_of_the_release(story: Story) -> None:
    hook = "rm -r app; mkdir -p cache && echo made >cache/made && echo changed >>index.html"
    story.configure(hooks={"staged": [hook]}, shared={"dirs": ["var/log"]})
    one, _ = story.releases("one", "two")
    back = story.rollback()
    assert (back.code, back.release) == (0, one), back.stderr
    assert story.lab.live == story.lab.serves(one)


@pytest.mark.hosts(3)
def test_hosts_that_differ_meet_at_the_one_before_what_most_serve(story: Story) -> None:
    one, two = story.releases("one", "two")
    lab = story.lab
    three = story.push("three", "--limit", "h01,h02")
    back = story.rollback()
    assert (back.code, back.release) == (0, two), back.stderr
    assert lab.live == lab.serves(two)
    assert f"h[01-02] goes from {three.release} to {two}" in back.stderr
    assert "h03 stays" in back.stderr
    assert back.phases("h03")[-1] == "probe:ok"
    assert one in lab["h03"].releases


@pytest.mark.hosts(3)
def test_hooks_and_batches_as_for_a_push_and_a_failing_one_puts_all_back(story: Story) -> None:
    one, two = story.releases("one", "two")
    lab = story.lab
    story.configure(
        hooks={
            "activating": ["echo activating $DEPLOYCTL_PREVIOUS_RELEASE >>../../log"],
            "activated": [
                f"echo activated $DEPLOYCTL_RELEASE >>../../log; [ $DEPLOYCTL_RELEASE != {one} ] || [ ! -e ../../broken ]"
            ],
        }
    )
    (lab["h03"].root / "broken").touch()
    failed = story.rollback("--batch", "1")
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == lab.serves(two)
    (lab["h03"].root / "broken").unlink()
    (lab["h01"].root / "log").unlink()
    back = story.rollback("--batch", "1")
    assert (back.code, back.release, lab.live) == (0, one, lab.serves(one))
    assert (lab["h01"].root / "log").read_text() == f"activating {two}\nactivated {one}\n"


@pytest.mark.hosts(3)
def test_a_killed_push_is_undone_by_a_rollback(story: Story) -> None:
    """One host of three has switched when the run is killed: all meet at what the others still serve."""
    one, two = story.releases("one", "two")
    lab = story.lab
    lab["h02"].hold("activate.mv")
    lab["h03"].hold("activate.mv")
    running = lab.start("push", story.tree("three"))
    running.wait_for_host("h01", "activate", "ok")
    proc.kill(running.family())
    lab.assert_idle()  # before the gates open: what stands at one must not pass it
    for place in lab:
        place.mend()
    assert [lab[name].live != f"releases/{two}" for name in lab.names] == [True, False, False]
    back = story.rollback()
    assert (back.code, back.release) == (0, two), back.stderr
    assert lab.live == lab.serves(two)
    assert one != two


def test_the_library_returns_a_result_and_prints_nothing(
    story: Story, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import deployctl
    from deployctl.errors import UsageError

    one, two = story.releases("one", "two")
    inventory = deployctl.load_inventory(story.lab.inventory)
    result = deployctl.rollback(inventory, message="by a program")
    assert (result.exit_code, result.release) == (0, one)
    assert {host.live for host in result.hosts.values()} == {one}
    assert deployctl.rollback(inventory, two, limit="h01").hosts["h01"].live == two
    with pytest.raises(UsageError, match="neither a release id"):
        deployctl.rollback(inventory, "latest")
    assert capfd.readouterr() == ("", "")
