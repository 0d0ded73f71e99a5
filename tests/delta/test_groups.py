"""Which delta goes to whom, what is packed for it, and what becomes of it when a run ends early."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.delta.conftest import MakeWith
from tests.delta.kit import FILE_BYTES, Site, arrived, files_sent, way, ways
from tests.release.lab import HALF_A_FILE
from tests.release.running import Pushed
from tests.support.proc import wait_until
from tests.support.wide import some

pytestmark = pytest.mark.sshd

LINKS = ("copy", "hard")


def shelf() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "deployctl/manifests"


def planned(pushed: Pushed, host: str) -> dict[str, object]:
    [data] = [e["data"] for e in pushed.of(host) if "action" in e["data"]]
    return dict(data)


def test_hosts_with_different_bases_and_one_without(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=4)
    lab.push(tree.root, "--limit", "h01,h02")
    tree.fill("d0/f00")
    lab.push(tree.root, "--limit", "h02,h03")
    tree.fill("d1/f01")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert {name: way(done, name) for name in lab.names} == {
        "h01": "delta",
        "h02": "delta",
        "h03": "delta",
        "h04": "upload",
    }
    assert [files_sent(done, name) for name in ("h01", "h02", "h03")] == [2, 1, 1]
    assert done.sent("h02") == done.sent("h03")
    assert done.bytes_sent == sum(done.sent(name) or 0 for name in lab.names)


def test_two_userlands_get_one_delta_in_two_codecs(make_with: MakeWith, tree: Site, tmp_path: Path) -> None:
    from tests.release.lab import tool_directory

    lab = make_with(count=2)
    tools = tool_directory(tmp_path / "without", without=("zstd",))
    lab["h02"].program("sh", f'#!/bin/sh\nPATH={tools} exec /bin/sh "$@"\n')
    lab.push(tree.root)
    tree.fill("d0/f00")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done, "h01") == ways(done, "h02") == ["delta"]
    assert done.sent("h01") != done.sent("h02")


def test_a_foreign_live_release_and_one_of_ours_beside_it(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    [place] = lab
    lab.push(tree.root)
    (place.root / "releases/20200101000000").mkdir()
    (place.root / "current").unlink()
    place.link("releases/20200101000000")
    tree.fill("d0/f00")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta"]


@pytest.mark.parametrize("state", ["gone", "corrupt", "a directory", "unreadable"])
def test_a_cache_that_is_none(make_with: MakeWith, tree: Site, state: str) -> None:
    """Then the manifest comes from one of the hosts, and is kept."""
    lab = make_with(count=2)
    lab.push(tree.root)
    [kept] = shelf().iterdir()
    if state == "corrupt":
        kept.write_text("corrupt")
    else:
        kept.unlink()
    if state == "a directory":
        kept.mkdir()
    if state == "unreadable":
        kept.symlink_to("nowhere")
    for place in lab:
        place.gate("manifest", f"echo asked >>{tree.root.parent}/asked")
    tree.fill("d0/f00")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done, "h01") == ways(done, "h02") == ["delta"]
    assert (tree.root.parent / "asked").read_text() == "asked\n"
    tree.fill("d0/f00")
    lab.push(tree.root)
    assert (tree.root.parent / "asked").read_text() == "asked\n"


def test_a_host_that_lies_about_its_manifest_gets_the_whole(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    [place] = lab
    lab.push(tree.root)
    for path in shelf().iterdir():
        path.unlink()
    place.gate("manifest.sed", "case $* in *entry*) echo; exit;; esac")
    tree.fill("d0/f00")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["upload"]


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    from deployctl.artifact.shelf import KEPT, Shelf

    held = Shelf(tmp_path / "shelf")
    for number in range(KEPT + 5):
        held.put(b"%d" % number)
    assert len(list((tmp_path / "shelf").iterdir())) == KEPT


def test_the_whole_is_not_packed_when_no_host_needs_it(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    work = tree.root.parent / "work"
    work.mkdir()
    lab.push(tree.root)
    tree.fill("d0/f00")
    [place] = lab
    sign = place.hold("stage")
    running = lab.start("push", tree.root, env={"TMPDIR": str(work)})
    running.wait_for_host("h01", "stage")
    packed = [path.name for path in work.glob(".work-*/*.tar.*")]
    sign.unlink()
    arrived(lab, running.finish(), tree.root)
    assert [name.count("-") for name in packed] == [1]


def test_a_dry_run_tells_what_would_be_sent(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=2)
    first = lab.push(tree.root, "--limit", "h01")
    tree.fill("d0/f00")
    dry = lab.push(tree.root, "--dry-run")
    assert dry.outcome == "planned"
    told = planned(dry, "h01")
    assert (told["action"], told["base"], told["files_to_send"]) == ("delta", first.release, 1)
    assert told["changed"] == 1
    other = planned(dry, "h02")
    assert (other["action"], other["files_to_send"]) == ("upload", 61)
    done = lab.push(tree.root)
    assert [done.sent("h01"), done.sent("h02")] == [told["bytes_to_send"], other["bytes_to_send"]]


KILLED = [
    f"{point} {links}"
    for point in ("stage.cp", "stage.tar", "stage.awk", "stage.xargs", "stage.mv")
    for links in LINKS
]


@pytest.mark.parametrize(
    "kind", some(["stage.cp hard", "stage.tar copy", "stage.awk hard", "stage.mv copy"], KILLED)
)
def test_killed_in_the_middle(make_with: MakeWith, tree: Site, kind: str) -> None:
    point, links = kind.split()
    lab = make_with(links=links)
    [place] = lab
    first = lab.push(tree.root)
    tree.fill("d1/f01")
    place.hold(point)
    running = lab.start("push", tree.root)
    running.wait_for_host("h01", "stage")
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 5, "the end of the workers")
    place.mend()
    lab.assert_idle()
    assert lab.live == lab.serves(first.release)
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert way(done) == "delta"
    assert lab.start("verify").finish().code == 0


def test_a_delta_that_arrived_is_not_sent_again(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=2)
    lab.push(tree.root)
    tree.fill("d1/f01")
    lab["h02"].gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    failed = lab.push(tree.root)
    assert failed.failure("h02")[0] == "stage"
    assert [name.count("-") for name in lab["h02"].incoming] == [1]
    lab["h02"].mend()
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done, "h02") == ["delta"]
    assert done.sent("h02") == 0


def test_a_delta_that_was_damaged_there_later(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    [place] = lab
    lab.push(tree.root)
    tree.fill("d1/f01")
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    lab.push(tree.root)
    [name] = place.incoming
    path = place.root / ".deployctl/incoming" / name
    path.write_bytes(path.read_bytes()[:-2000])
    place.mend()
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta", "upload"]


def test_a_broken_upload_of_a_delta_leaves_nothing(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=2)
    first = lab.push(tree.root)
    tree.fill("d1/f01")
    lab["h02"].gate("none.scp", HALF_A_FILE)
    failed = lab.push(tree.root)
    assert (failed.code, failed.failure("h02")[0]) == (20, "upload")
    assert lab["h02"].incoming == []
    assert lab.live == lab.serves(first.release)
    lab["h02"].mend()
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert FILE_BYTES < (done.sent("h02") or 0) < FILE_BYTES + 2000


@pytest.mark.parametrize("links", LINKS)
def test_many_redeploys_in_a_row(make_with: MakeWith, tree: Site, links: str) -> None:
    lab = make_with(links=links, count=2)
    lab.push(tree.root)
    for number in range(5):
        tree.fill(f"d{number % 3}/f{number:02}")
        (tree.root / f"d0/f{10 + number * 3 - (10 + number * 3) % 3:02}").unlink(missing_ok=True)
        done = lab.push(tree.root)
        arrived(lab, done, tree.root)
        assert [ways(done, name) for name in lab.names] == [["delta"]] * 2
