"""Bytes that change on a host behind our back: noticed before anything is live."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.lab import Lab, Place
from tests.release.running import Running
from tests.release.trees import make_heavy, make_site, walk

pytestmark = pytest.mark.sshd


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_an_artifact_damaged_on_the_way_is_not_unpacked(lab: Lab, tmp_path: Path) -> None:
    heavy = make_heavy(tmp_path / "heavy", 500)
    place = lab["h02"]
    place.gate(
        "stage",
        f'for p in {place.root}/.deployctl/incoming/*/part; do printf X | dd of="$p" bs=1 seek=1000 conv=notrunc 2>/dev/null; done',
    )
    failed = lab.push(heavy)
    assert (failed.code, failed.failure("h02")[:2]) == (20, ("stage", 33))
    assert lab.live == lab.everywhere(None)
    assert place.incoming == []
    assert place.releases == []
    place.mend()
    done = lab.push(heavy)
    assert (done.code, done.sent("h01")) == (0, 0)
    assert done.sent("h02") == done.bytes_sent > 500_000


def test_a_proven_artifact_damaged_later_is_sent_anew(lab: Lab, tmp_path: Path) -> None:
    heavy = make_heavy(tmp_path / "heavy", 500)
    place = lab["h02"]
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    lab.push(heavy)
    [artifact] = place.incoming
    flip(place.root / ".deployctl/incoming" / artifact)
    place.mend()
    done = lab.push(heavy)
    assert done.code == 0
    assert walk(place.root / "current/") == walk(heavy)


def test_a_staged_release_damaged_later_is_staged_anew(lab: Lab, site: Path) -> None:
    staged = lab.push(site, "--no-activate")
    place = lab["h02"]
    flip(place.root / "releases" / staged.release / "index.html")
    done = lab.push(site)
    assert (done.code, done.release) == (0, staged.release)
    assert all(walk(p.root / "current/") == walk(site) for p in lab)


@pytest.mark.parametrize("edit", ["content", "mode", "link", "manifest"])
def test_a_staged_release_damaged_before_it_is_activated(lab: Lab, site: Path, edit: str) -> None:
    one = lab.push(site)
    make_site(site, "two")
    two = lab.push(site, "--no-activate")
    damage(lab["h02"], two.release, edit)
    refused = lab.activate(two.release)
    assert refused.code == 20
    assert refused.hosts["h02"]["code"] == 33
    if edit != "manifest":
        assert f"release {two.release} was altered there since it was staged: " in refused.failure("h02")[2]
        assert "push the same tree again" in refused.stderr
    assert lab.live == lab.serves(one.release)
    assert all(place.runs_left == [] for place in lab)


def damage(place: Place, release: str, edit: str) -> None:
    tree = place.root / "releases" / release
    if edit == "content":
        flip(tree / "index.html")
    elif edit == "mode":
        (tree / "app/run.sh").chmod(0o644)
    elif edit == "link":
        (tree / "link").unlink()
        (tree / "link").symlink_to("elsewhere")
    else:
        flip(place.root / ".deployctl/manifests" / release)


@pytest.mark.hosts(3)
@pytest.mark.parametrize("edit", ["content", "manifest"])
def test_a_release_damaged_between_stage_and_switch_goes_live_nowhere(
    lab: Lab, site: Path, edit: str
) -> None:
    one = lab.push(site)
    make_site(site, "two")
    sign = lab["h03"].hold("stage.tar")
    running: Running = lab.start("push", site)
    release = running.wait_for_host("h02", "stage", "ok")["release"]
    running.wait_for_host("h03", "stage")
    damage(lab["h02"], release, edit)
    sign.unlink()
    failed = running.finish()
    assert failed.failure("h02")[:2] == ("activate", 33)
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert lab.live == lab.serves(one.release)


def test_a_live_manifest_that_was_damaged_is_no_reason_to_believe_it(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    flip(lab["h02"].root / ".deployctl/manifests" / one.release)
    done = lab.push(site)
    assert done.code == 0
    assert len({place.live for place in lab}) == 1
    assert all(walk(place.root / "current/") == walk(site) for place in lab)
    assert lab.push(site).outcome == "unchanged"
