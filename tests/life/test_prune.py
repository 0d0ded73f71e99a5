"""Pruning on real servers: what goes, what stays whatever happens, and that it never costs a release its life."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab, Place, names_in
from tests.release.running import Pushed
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd

FOREIGN = "20190101120000"  # as Capistrano names a release


def push_several(lab: Lab, site: Path, count: int, *arguments: str) -> list[str]:
    """Push that many builds; their ids in order."""
    ids = []
    for number in range(count):
        make_site(site, f"build {number} {time.monotonic_ns()}")
        pushed = lab.push(site, *arguments)
        assert pushed.code == 0, pushed.stderr
        ids.append(pushed.release)
    return ids


def prune(lab: Lab, *arguments: str) -> Pushed:
    return lab.start("prune", *arguments).finish()


def found(pruned: Pushed, host: str) -> dict[str, object]:
    """What the run says it removed on a host."""
    [line] = [e for e in pruned.of(host) if e["phase"] == "prune" and e["state"] == "ok"]
    data: dict[str, object] = line["data"]
    return data


def manifests(place: Place) -> list[str]:
    """The releases that have a manifest, or what is noted beside one."""
    names = names_in(place.root / ".deployctl/manifests")
    return sorted({name.removesuffix(".settled") for name in names})


def keep(lab: Lab, count: int) -> None:
    text = lab.inventory.read_text()
    assert "keep: " in text
    lab.inventory.write_text(text.replace(text[text.index("keep: ") :].split("\n")[0], f"keep: {count}"))


def test_a_push_keeps_as_many_as_the_inventory_says(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2, release={"keep": 3})
    ids = push_several(lab, site, 5)
    for place in lab:
        assert place.releases == sorted(ids[-3:]) == manifests(place)
        assert place.live == f"releases/{ids[-1]}"
        assert place.incoming == []


def test_the_one_before_the_live_one_stays_even_when_one_is_to_be_kept(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"keep": 1})
    ids = push_several(lab, site, 3)
    assert lab["h01"].releases == sorted(ids[-2:])
    assert prune(lab).outcome == "ok"
    assert lab["h01"].releases == sorted(ids[-2:])


def test_prune_by_itself_tells_what_went(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2, release={"keep": 9})
    ids = push_several(lab, site, 4)
    keep(lab, 2)
    for place in lab:
        (place.root / ".deployctl/incoming/0123").mkdir()
        (place.root / ".deployctl/incoming/0123/part").write_bytes(b"half")
        (place.root / f".deployctl/incoming/{'a' * 64}.tar.gz").write_bytes(b"proven")
        (place.root / f".deployctl/manifests/{ids[0]}.settled").write_text("")
    pruned = prune(lab)
    assert (pruned.code, pruned.outcome) == (0, "ok")
    for place in lab:
        assert place.releases == sorted(ids[2:]) == manifests(place)
        assert place.incoming == []
        data = found(pruned, place.name)
        assert data["removed"] == sorted(ids[:2])
        assert data["kept"] == sorted(ids[2:])
        assert data["artifacts"] == 1
        assert place.live == f"releases/{ids[3]}"
    lab.assert_idle()
    assert found(prune(lab), "h01")["removed"] == []


def test_an_aborted_release_goes_and_counts_for_nothing(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2, release={"keep": 2})
    good = push_several(lab, site, 2)
    for number in range(3):
        make_site(site, f"bad {number}")
        lab["h02"].gate("activate.mv")
        assert lab.push(site).code == 21
        lab["h02"].mend()
    assert len(lab["h01"].releases) == 5
    assert prune(lab).code == 0
    for place in lab:
        assert place.releases == sorted(good)
        assert place.live == f"releases/{good[1]}"


def test_what_was_staged_within_the_week_waits(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"keep": 1})
    make_site(site, "waiting")
    staged = lab.push(site, "--no-activate").release
    ids = push_several(lab, site, 3)
    assert prune(lab).code == 0
    assert lab["h01"].releases == sorted([staged, *ids[-2:]])
    history = lab["h01"].root / ".deployctl/history.jsonl"
    records = [json.loads(line) for line in history.read_text().splitlines()]
    for record in records:
        if record["event"] == "stage":
            assert record["release"] == staged
            record["ts"] = "2020-01-01T00:00:00.000Z"
    history.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert prune(lab).code == 0
    assert lab["h01"].releases == sorted(ids[-2:])


def test_a_staged_release_survives_a_week_and_is_made_live(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"keep": 1})
    push_several(lab, site, 2)
    make_site(site, "waiting")
    staged = lab.push(site, "--no-activate").release
    assert prune(lab).code == 0
    assert lab.activate(staged).code == 0
    assert lab["h01"].live == f"releases/{staged}"


def test_links_and_what_is_not_ours_are_left(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    lab = make_lab(1, release={"keep": 1})
    ids = push_several(lab, site, 2)
    place = lab["h01"]
    outside = make_site(tmp_path / "outside", "precious")
    link, bare = "20200101T000000Z-0123abcd", "20200102T000000Z-0123abcd"
    (place.root / "releases" / link).symlink_to(outside)
    (place.root / ".deployctl/manifests" / link).write_text("")
    make_site(place.root / "releases" / bare, "no manifest of ours")
    make_site(place.root / "releases" / FOREIGN, "of Capistrano")
    (place.root / "releases/notes.txt").write_text("mine")
    assert prune(lab).code == 0
    assert place.releases == sorted([*ids, link, bare, FOREIGN, "notes.txt"])
    assert (outside / "index.html").is_file()
    assert push_several(lab, site, 1)
    assert (outside / "index.html").is_file()
    assert set(place.releases) >= {link, bare, FOREIGN, "notes.txt", ids[1]}
    assert ids[0] not in place.releases


def test_links_inside_a_release_are_not_followed(make_lab: MakeLab, site: Path, tmp_path: Path) -> None:
    lab = make_lab(1, release={"keep": 1, "shared": {"dirs": ["storage"]}})
    push_several(lab, site, 1)
    stored = lab["h01"].root / "shared/storage/kept"
    stored.write_text("outlives releases")
    outside = make_site(tmp_path / "outside", "precious")
    (lab["h01"].root / "current/out").symlink_to(outside)
    ids = push_several(lab, site, 2)
    assert lab["h01"].releases == sorted(ids)
    assert stored.read_text() == "outlives releases"
    assert (outside / "index.html").is_file()


@pytest.mark.parametrize("name", ["releases", ".deployctl/manifests"])
def test_nothing_behind_a_linked_directory_is_removed(
    make_lab: MakeLab, site: Path, tmp_path: Path, name: str
) -> None:
    lab = make_lab(1, release={"keep": 1})
    ids = push_several(lab, site, 2)
    elsewhere = tmp_path / "elsewhere"
    (lab["h01"].root / name).rename(elsewhere)
    (lab["h01"].root / name).symlink_to(elsewhere)
    before = names_in(elsewhere)
    make_site(site, "three")
    pushed = lab.push(site)
    assert (pushed.code, pushed.failure("h01")[1]) == (20, 32)
    pruned = prune(lab)
    assert (pruned.code, pruned.failure("h01")[1]) == (20, 32)
    assert names_in(elsewhere) == before
    assert {*before} >= {*ids}


def test_the_live_one_stays_however_current_is_written(make_lab: MakeLab, site: Path) -> None:
    """A link of another hand: absolute, or deeper into the release."""
    lab = make_lab(1, release={"keep": 1})
    ids = push_several(lab, site, 3)
    place = lab["h01"]
    for text in (f"{place.root}/releases/{ids[1]}", f"./releases//{ids[1]}/app/"):
        (place.root / "current").unlink()
        place.link(text)
        assert prune(lab).code == 0
        assert ids[1] in place.releases
        assert place.live == text


def test_a_lost_history_costs_no_release(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"keep": 3})
    ids = push_several(lab, site, 3)
    (lab["h01"].root / ".deployctl/history.jsonl").unlink()
    assert prune(lab).code == 0
    assert lab["h01"].releases == sorted(ids)
    keep(lab, 2)
    # The new history is to begin later than what was released before: ids have seconds, and can be some ahead of the clock.
    wait_until(lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}" > max(ids).partition("-")[0])
    [last] = push_several(lab, site, 1)
    assert lab["h01"].releases == sorted([ids[2], last])


def test_directories_without_write_permission_go_too(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"keep": 1})
    (site / "locked/deep").mkdir(parents=True)
    (site / "locked/deep/file").write_text("x")
    (site / "locked/deep").chmod(0o555)
    (site / "locked").chmod(0o555)
    try:
        ids = push_several(lab, site, 3)
        (lab["h01"].root / "releases" / ids[1]).chmod(0o555)
        (lab["h01"].root / "releases" / ids[1] / "app").chmod(0)
        ids += push_several(lab, site, 1)
        assert lab["h01"].releases == sorted(ids[2:])
        assert lab["h01"].incoming == []
    finally:
        (site / "locked").chmod(0o755)
        (site / "locked/deep").chmod(0o755)


def test_a_failing_prune_is_a_warning_at_the_end_of_a_push(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2, release={"keep": 1})
    ids = push_several(lab, site, 2)
    lab["h02"].gate("prune.mv", "echo no >&2; exit 1")
    make_site(site, "three")
    pushed = lab.push(site)
    assert (pushed.code, pushed.outcome) == (0, "released")
    assert "deployctl: warning: h02: could not prune" in pushed.stderr
    assert set(pushed.states.values()) == {"ok"}
    assert lab["h01"].releases == sorted([ids[1], pushed.release])
    assert lab["h02"].releases == sorted([*ids, pushed.release])
    assert lab.live == lab.serves(pushed.release)
    failed = prune(lab)
    assert (failed.code, failed.outcome) == (20, "failed")
    assert failed.states == {"h01": "ok", "h02": "failed"}
    lab["h02"].mend()
    assert prune(lab).code == 0
    assert lab["h02"].releases == sorted([ids[1], pushed.release])


def test_a_prune_killed_half_way_leaves_no_half_release(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"keep": 9})
    ids = push_several(lab, site, 4)
    keep(lab, 1)
    place = lab["h01"]
    place.hold("prune.rm")
    running = lab.start("prune")
    wait_until(lambda: len(place.releases) < 4, what="a release to leave")
    running.signal(signal.SIGKILL)
    running.process.wait()
    lab.assert_idle()
    place.mend()
    for release in place.releases:
        assert (place.root / "releases" / release / "index.html").is_file()
        assert release in manifests(place)
    assert prune(lab).code == 0
    assert place.releases == sorted(ids[2:]) == manifests(place)
    assert place.incoming == []


def test_prune_waits_for_no_other_run(lab: Lab, site: Path) -> None:
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    refused = prune(lab)
    assert (refused.code, refused.outcome) == (12, "refused")
    sign.unlink()
    assert running.finish().code == 0


def test_an_unreachable_host_keeps_no_other_from_being_pruned(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(2, release={"keep": 9})
    ids = push_several(lab, site, 3)
    keep(lab, 1)
    lab.servers[1].stop()
    pruned = prune(lab)
    assert (pruned.code, pruned.outcome) == (20, "failed")
    assert pruned.states == {"h01": "ok", "h02": "failed"}
    assert lab["h01"].releases == sorted(ids[1:])
    assert lab["h02"].releases == sorted(ids)


def test_a_host_without_a_deploy_root_stays_without(lab: Lab) -> None:
    for place in lab:
        place.root.rmdir()
    pruned = prune(lab)
    assert (pruned.code, pruned.outcome) == (0, "ok")
    assert not any(os.path.lexists(place.root) for place in lab)
