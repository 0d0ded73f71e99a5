"""Verify: every changed, missing and extra file of the live release, found on the hosts' disks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.life.kit import Story
from tests.life.test_status import facts, plain
from tests.release.conftest import MakeLab
from tests.release.trees import listing

pytestmark = pytest.mark.sshd

ODD = [
    b"new\nline",
    b"back\\slash",
    b"\xff\xfe",
    "ünï".encode(),
    b" lead",
    b"tab\there",
    b"qu'o\"te",
    b"cr\rcr",
    b"-n",
]


@pytest.fixture(params=["this machine's", "busybox"])
def fleet(request: pytest.FixtureRequest, make_lab: MakeLab, tmp_path: Path) -> Story:
    """Two hosts, with this machine's tools and with busybox's."""
    path = request.getfixturevalue("busybox") if request.param == "busybox" else None
    return Story(make_lab(2, path=path), tmp_path / "site")


def add_odd_names(site: Path) -> None:
    for name in ODD:
        top = os.fsencode(site) + b"/odd" + name
        os.makedirs(top, exist_ok=True)  # noqa: PTH103 - bytes
        with open(top + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(name)
        if not os.path.islink(top + b"/link"):  # noqa: PTH114
            os.symlink(name, top + b"/link")  # noqa: PTH211


def test_a_release_that_was_not_touched_is_as_released(fleet: Story) -> None:
    add_odd_names(fleet.tree("one"))
    fleet.configure(shared={"dirs": ["var/log", "storage"]})
    [one] = fleet.releases("one")
    disks = [listing(place.root) for place in fleet.lab]
    read = fleet.run("verify")
    assert (read.code, read.outcome) == (0, "ok"), facts(read, "verify")
    for each in facts(read, "verify").values():
        assert each["live"] == one
        assert (each["changed"], each["missing"], each["extra"]) == ({}, {}, {})
    assert [listing(place.root) for place in fleet.lab] == disks
    assert plain(fleet, "verify") == f"h[01-02]: {one}: as released\n"


def test_every_difference_is_found_and_named(fleet: Story) -> None:
    add_odd_names(fleet.tree("one"))
    fleet.configure(shared={"dirs": ["var/log", "storage"]})
    [one] = fleet.releases("one")
    top = fleet.lab["h02"].root / "releases" / one
    for damage in ("byte", "mode", "link"):
        fleet.alter("h02", one, damage)
    raw = os.fsencode(top)
    with open(raw + b"/oddnew\nline/new\nline", "ab") as file:  # noqa: PTH123
        file.write(b"more")
    os.unlink(raw + b"/oddback\\slash/back\\slash")  # noqa: PTH108
    with open(raw + b"/odd\xff\xfe/ex\ntra \xff", "wb"):  # noqa: PTH123
        pass
    (top / "app/empty").rmdir()
    (top / "app/empty").write_text("a file now")
    (top / "storage").unlink()
    (top / "extra/deep").mkdir(parents=True)
    (top / "extra/deep/link").symlink_to("nowhere")
    read = fleet.run("verify")
    assert (read.code, read.outcome) == (22, "failed")
    found = facts(read, "verify")
    assert not found["h01"]["altered"]
    assert found["h02"]["changed"] == {
        "index.html": "content",
        "app/run.sh": found["h02"]["changed"]["app/run.sh"],
        "link": "link text",
        r"oddnew\x0aline/new\x0aline": "content",
        "app/empty": "is a file, not a directory",
    }
    assert found["h02"]["changed"]["app/run.sh"].startswith("mode is not 0755")
    assert found["h02"]["missing"] == {
        r"oddback\x5cslash/back\x5cslash": "file",
        "storage": "link into shared",
    }
    assert found["h02"]["extra"] == {
        r"odd\xff\xfe/ex\x0atra \xff": "file",
        "extra": "directory",
        "extra/deep": "directory",
        "extra/deep/link": "link",
    }
    assert found["h02"]["counts"] == {"changed": 5, "missing": 2, "extra": 4}
    shown = plain(fleet, "verify")
    assert f"h01: {one}: as released" in shown
    assert f"h02: {one}: 5 changed, 2 missing, 4 extra" in shown
    assert r"  missing  oddback\x5cslash/back\x5cslash (file)" in shown


def test_files_that_came_in_addition_are_only_reported(story: Story) -> None:
    [one] = story.releases("one")
    story.alter("h03", one, "extra")
    read = story.run("verify")
    assert (read.code, read.outcome) == (0, "ok")
    assert facts(read, "verify")["h03"]["extra"] == {"extra": "file"}


def test_what_staged_hooks_did_counts_as_released(fleet: Story) -> None:
    hook = "rm -r app; mkdir -p 'ca che' && echo made >'ca che/ma\\de' && echo changed >>index.html && chmod 600 index.html"
    fleet.configure(hooks={"staged": [hook]})
    [one] = fleet.releases("one")
    read = fleet.run("verify")
    assert read.code == 0, facts(read, "verify")
    assert facts(read, "verify")["h01"]["extra"] == {}
    (fleet.lab["h01"].root / "releases" / one / "index.html").write_text("edited afterwards")
    (fleet.lab["h01"].root / "releases" / one / "ca che/ma\\de").unlink()
    read = fleet.run("verify")
    assert read.code == 22
    assert facts(read, "verify")["h01"]["changed"] == {"index.html": "content"}
    assert facts(read, "verify")["h01"]["missing"] == {r"ca che/ma\x5cde": "file"}


def test_many_differences_are_bounded_and_counted(story: Story) -> None:
    site = story.tree("one")
    for number in range(300):
        (site / f"f{number:03}").write_text(str(number))
    [one] = story.releases("one")
    for number in range(300):
        (story.lab["h01"].root / "releases" / one / f"f{number:03}").write_text("x")
    found = facts(story.run("verify"), "verify")["h01"]
    assert (len(found["changed"]), found["counts"]["changed"]) == (200, 300)
    assert "  changed  … and 280 more" in plain(story, "verify")


def test_an_altered_manifest_and_hosts_that_differ_are_not_as_released(story: Story) -> None:
    [one] = story.releases("one")
    story.alter("h02", one, "manifest")
    read = story.run("verify")
    assert read.code == 22
    assert facts(read, "verify")["h02"]["told"] == "its manifest is not there, or was altered"
    story.push("two")
    assert story.run("verify").code == 0
    story.rollback(one, "-l", "h01")
    read = story.run("verify")
    assert (read.code, read.last["lagging"]) == (22, ["h01"])
