"""Verify: every changed, missing and extra file of the live release, found on the hosts' disks."""

from __future__ import annotations

import hashlib
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


@pytest.mark.hosts(3)
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


MADE = r"""
mkdir -p 'emp ty' && chmod 700 'emp ty' && chmod 640 index.html && ln -s 'to "a"' 'li nk' && ln -sfn elsewhere link
odd=$(printf 'o\\dd\nna\377me'); mkdir "$odd" && ln -s "$odd" "$odd/link" && echo x >"$odd/file" && chmod 604 "$odd/file"
rm -r "$(printf 'oddnew\nline')" && chmod 600 app/run.sh
"""


def test_modes_links_and_directories_that_staged_hooks_made_count_as_released(fleet: Story) -> None:
    add_odd_names(fleet.tree("one"))
    fleet.configure(hooks={"staged": [MADE]}, shared={"dirs": ["var/log"]})
    [one] = fleet.releases("one")
    read = fleet.run("verify")
    assert read.code == 0, facts(read, "verify")
    for each in facts(read, "verify").values():
        assert (each["changed"], each["missing"], each["extra"]) == ({}, {}, {})
    assert fleet.push("one").outcome == "unchanged"

    top = fleet.lab["h01"].root / "releases" / one
    odd = os.fsencode(top) + b"/o\\dd\nna\xffme"
    (top / "emp ty").chmod(0o755)
    (top / "index.html").chmod(0o644)
    os.chmod(odd + b"/file", 0o600)  # noqa: PTH101 - bytes
    for link in (os.fsencode(top / "li nk"), os.fsencode(top / "link"), odd + b"/link"):
        os.unlink(link)  # noqa: PTH108
        os.symlink(b"away", link)  # noqa: PTH211
    read = fleet.run("verify")
    assert read.code == 22
    name = r"o\x5cdd\x0ana\xffme"
    assert facts(read, "verify")["h01"]["changed"] == {
        "emp ty": "mode is not 0700 but 0755",
        "index.html": "mode is not 0640 but 0644",
        f"{name}/file": "mode is not 0604 but 0600",
        "li nk": "link text",
        "link": "link text",
        f"{name}/link": "link text",
    }
    (top / "emp ty").rmdir()
    assert facts(fleet.run("verify"), "verify")["h01"]["missing"] == {"emp ty": "directory"}


def test_a_mode_of_an_odd_name_that_was_changed_by_hand_is_mended_by_the_next_push(story: Story) -> None:
    site = story.tree("one")
    for name in (b"back\\slash", b"new\nline", b"\xff\xfe"):
        with open(os.fsencode(site) + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(name)
    [one] = story.releases("one")
    file_there = os.fsencode(story.lab["h01"].root / "releases" / one) + b"/new\nline"
    os.chmod(file_there, 0o600)  # noqa: PTH101 - bytes
    read = story.run("verify")
    assert facts(read, "verify")["h01"]["changed"] == {r"new\x0aline": "mode is not 0644 but 0600"}
    again = story.push("one")
    assert (again.code, again.outcome) == (0, "released")
    assert (
        r"h01: the live release is not as it was released (new\x0aline (mode is not 0644 but 0600))"
        in again.stderr
    )
    assert story.run("verify").code == 0


def test_what_came_to_be_shared_since_is_not_missing(fleet: Story) -> None:
    [one] = fleet.releases("one")
    fleet.configure(shared={"dirs": ["storage"]})
    read = fleet.run("verify")
    assert read.code == 0, facts(read, "verify")
    [two] = fleet.releases("two")
    fleet.configure(
        shared={"dirs": ["var/log"]}
    )  # what is linked stays so, whatever the inventory says by now
    read = fleet.run("verify")
    assert (read.code, facts(read, "verify")["h01"]["extra"]) == (0, {})
    (fleet.lab["h01"].root / "releases" / two / "storage").unlink()
    read = fleet.run("verify")
    assert (read.code, facts(read, "verify")["h01"]["missing"]) == (22, {"storage": "link into shared"})
    assert fleet.rollback().release == one
    read = fleet.run("verify")
    assert (read.code, facts(read, "verify")["h01"]["extra"]) == (0, {})
    (fleet.lab["h02"].root / "releases" / one / "var/log").unlink()
    assert facts(fleet.run("verify"), "verify")["h02"]["missing"] == {"var/log": "link into shared"}


def test_what_an_older_deployctl_recorded_of_hooks_is_still_expected(story: Story) -> None:
    story.configure(shared={"dirs": ["storage"]})
    [one] = story.releases("one")
    for place in story.lab:
        top = place.root / "releases" / one
        (top / "index.html").write_text("by a hook")
        (top / "app/run.sh").unlink()
        (top / "ca che").mkdir()
        (top / "ca che/ma\\de").write_text("made")
        sums = [hashlib.sha256(text).hexdigest() for text in (b"by a hook", b"made")]
        (place.root / f".deployctl/manifests/{one}.settled").write_text(
            f"{sums[0]}  ./index.html\n\\{sums[1]}  ./ca che/ma\\\\de\n-  ./app/run.sh\n"
        )
    read = story.run("verify")
    assert (read.code, facts(read, "verify")["h01"]["extra"]) == (0, {}), facts(read, "verify")
    assert story.push("one").outcome == "unchanged"
    (story.lab["h01"].root / "releases" / one / "index.html").write_text("by hand")
    (story.lab["h01"].root / "releases" / one / "storage").unlink()
    found = facts(story.run("verify"), "verify")["h01"]
    assert (found["changed"], found["missing"]) == (
        {"index.html": "content"},
        {"storage": "link into shared"},
    )


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


@pytest.mark.hosts(3)  # most serve the one release
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
