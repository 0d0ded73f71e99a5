"""Large files that changed a little: what is sent of them, what is on the hosts' disks then, and what becomes of it where something is not as it should be."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from deployctl.artifact.kept import LARGE_BYTES
from deployctl.artifact.patch import COPY_BYTES, SEGMENT_BYTES
from tests.delta.conftest import MakeWith
from tests.delta.kit import Site, arrived, flipped, forge, release_of, way, ways
from tests.release.lab import Lab, tool_directory
from tests.release.running import Pushed
from tests.support.wide import some

pytestmark = pytest.mark.sshd

LINKS = ("copy", "hard")
SIZE = 3 * LARGE_BYTES + 12345
LITTLE = 300_000  # bytes sent where a patch was


def contents() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "deployctl/contents"


def patched(pushed: Pushed, host: str = "h01") -> int:
    """How many files came as patches, the last time something was sent to the host."""
    return int(
        [e["data"] for e in pushed.of(host) if e["phase"] == "upload" and e["state"] == "ok"][-1].get(
            "patched", 0
        )
    )


def overwritten(data: bytes) -> bytes:
    edited = bytearray(data)
    for at in (0, 70_001, 1_500_000, len(data) - 9):
        edited[at : at + 9] = b"nine more"
    return bytes(edited)


def begun_with_more(data: bytes) -> bytes:
    return random.Random(1).randbytes(100_003) + data


def cut(data: bytes) -> bytes:
    return data[: len(data) - 1_000_001]


def continued(data: bytes) -> bytes:
    return data + random.Random(2).randbytes(100_000)


def turned_round(data: bytes) -> bytes:
    half = len(data) // 2
    return data[half:] + data[:half]


def twice(data: bytes) -> bytes:
    """More than a segment."""
    new = data + b"between" + data
    assert len(new) > SEGMENT_BYTES
    return new


EDITS: dict[str, Callable[[bytes], bytes]] = {
    each.__name__: each for each in (overwritten, begun_with_more, cut, continued, turned_round, twice)
}
KINDS = [f"{edit} {links}" for edit in EDITS for links in LINKS]


@pytest.mark.parametrize(
    "kind",
    some(
        [
            "overwritten hard",
            "begun_with_more copy",
            "begun_with_more hard",
            "cut copy",
            "continued hard",
            "twice copy",
        ],
        KINDS,
    ),
)
def test_little_is_sent(make_with: MakeWith, tree: Site, kind: str) -> None:
    edit, links = kind.split()
    lab = make_with(links=links)
    [place] = lab
    image = tree.fill("image", SIZE)
    first = lab.push(tree.root)
    before = image.read_bytes()
    image.write_bytes(EDITS[edit](before))
    image.chmod(0o750)
    os.utime(image, (1_700_000_000, 1_700_000_000))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert (way(done), patched(done)) == ("delta", 1)
    assert 0 < (done.sent("h01") or 0) < LITTLE
    assert done.bytes_sent == done.sent("h01")
    new, old = release_of(place, done) / "image", release_of(place, first) / "image"
    assert old.read_bytes() == before
    assert (new.stat().st_ino, new.stat().st_nlink) != (old.stat().st_ino, 2)
    assert (int(new.stat().st_mtime), stat.S_IMODE(new.stat().st_mode)) == (1_700_000_000, 0o750)
    assert lab.start("verify").finish().code == 0


@pytest.mark.parametrize("kind", ["begin copy", "begin hard", "middle copy", "middle hard"])
def test_a_long_range_that_moved(make_with: MakeWith, tree: Site, kind: str) -> None:
    place, links = kind.split()
    lab = make_with(links=links)
    image = tree.fill("image", 3 * COPY_BYTES)
    lab.push(tree.root)
    data = image.read_bytes()
    at = COPY_BYTES + 5 if place == "middle" else 0
    image.write_bytes(data[:at] + b"more" + data[at:])
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert patched(done) == 1
    assert (done.sent("h01") or 0) < LITTLE


@pytest.mark.parametrize("what", ["tail", "head"])
def test_a_range_that_is_not_copied(make_with: MakeWith, tree: Site, what: str) -> None:
    lab = make_with()
    image = tree.fill("image", 2 * COPY_BYTES)
    lab.push(tree.root)
    image.write_bytes(b"more" + image.read_bytes())
    lab["h01"].gate(f"stage.{what}", "case $* in '-c '*) exit 1;; esac")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta", "upload"]


@pytest.mark.parametrize("links", LINKS)
def test_what_it_was_goes_on_under_other_names(make_with: MakeWith, tree: Site, links: str) -> None:
    """Moved, or copied with another mode: the file that is written over is not theirs."""
    lab = make_with(links=links)
    one, two = tree.fill("one", SIZE), tree.fill("two", SIZE)
    lab.push(tree.root)
    shutil.copy2(one, tree.root / "moved")
    shutil.copy2(two, tree.root / "copied")
    (tree.root / "copied").chmod(0o600)
    for path in (one, two):
        path.write_bytes(overwritten(path.read_bytes()))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert patched(done) == 2
    assert (done.sent("h01") or 0) < LITTLE


def test_content_that_several_files_have(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    one = tree.fill("one", SIZE)
    lab.push(tree.root)
    one.write_bytes(overwritten(one.read_bytes()))
    shutil.copy2(one, tree.root / "twin")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)


NAMES = [b"a b 'c' \"d\" $HOME `e` \\n", b"-n", b"line\nbreak", b"\xff\xfe", b"%s \\0101"]


def test_any_name(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    root = os.fsencode(tree.root)
    paths = [Path(os.fsdecode(root + b"/d0/" + name)) for name in NAMES]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(LARGE_BYTES))
    lab.push(tree.root)
    for path in paths:
        path.write_bytes(begun_with_more(path.read_bytes())[100_000:])
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert patched(done) == len(NAMES)


@pytest.mark.parametrize("links", LINKS)
def test_a_file_that_nobody_may_write(make_with: MakeWith, tree: Site, links: str) -> None:
    lab = make_with(links=links)
    image = tree.fill("image", SIZE)
    image.chmod(0o444)
    lab.push(tree.root)
    data = image.read_bytes()
    image.unlink()
    image.write_bytes(overwritten(data))
    image.chmod(0o444)
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert patched(done) == 1


def test_several_in_a_row(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=2, links="hard")
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    for edit in (overwritten, cut, begun_with_more, continued):
        image.write_bytes(edit(image.read_bytes()))
        done = lab.push(tree.root)
        arrived(lab, done, tree.root)
        assert [(way(done, name), patched(done, name)) for name in lab.names] == [("delta", 1)] * 2


# ---- hosts that differ


def test_a_host_without_zstd_beside_one_that_has_it(make_with: MakeWith, tree: Site, tmp_path: Path) -> None:
    lab = make_with(count=2)
    tools = tool_directory(tmp_path / "without", without=("zstd",))
    lab["h02"].program("sh", f'#!/bin/sh\nPATH={tools} exec /bin/sh "$@"\n')
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    image.write_bytes(overwritten(image.read_bytes()))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert (ways(done, "h01"), patched(done, "h01")) == (["delta"], 1)
    assert (ways(done, "h02"), patched(done, "h02")) == (["upload"], 0)
    assert (done.sent("h01") or 0) < LITTLE < SIZE < (done.sent("h02") or 0)


@pytest.mark.parametrize("edit", ["overwritten", "begun_with_more", "cut"])
def test_busybox_beside_zstd(make_with: MakeWith, tree: Site, tmp_path: Path, edit: str) -> None:
    lab = make_with("busybox")
    (tmp_path / "tools/zstd").symlink_to(shutil.which("zstd") or "/usr/bin/zstd")
    image = tree.fill("image", 2 * COPY_BYTES)
    lab.push(tree.root)
    image.write_bytes(EDITS[edit](image.read_bytes()))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert (ways(done), patched(done)) == (["delta"], 1)


def test_edited_by_hand_on_one_host(make_with: MakeWith, tree: Site) -> None:
    lab = make_with(count=2)
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    there = lab["h02"].root / "current/image"
    forge(there, flipped(there))
    image.write_bytes(overwritten(image.read_bytes()))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert [patched(done, name) for name in lab.names] == [1, 0]
    assert (done.sent("h02") or 0) > SIZE


def test_edited_by_hand_while_the_release_is_made(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    [place] = lab
    image = tree.fill("image", SIZE)
    first = lab.push(tree.root)
    image.write_bytes(begun_with_more(image.read_bytes()))
    there = release_of(place, first) / "image"
    place.gate(
        "stage.zstd",
        f"case $* in *-D*) printf x >>{there}; printf x | dd of={there} conv=notrunc 2>/dev/null;; esac",
    )
    place.gate(
        "stage.dd", f"case $* in if=*) printf x | command -p dd of={there} conv=notrunc 2>/dev/null;; esac"
    )
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["delta", "upload"]


@pytest.mark.parametrize("what", ["zstd fails", "zstd cannot", "dd fails", "other bytes", "fewer bytes"])
def test_what_fails_on_a_host(make_with: MakeWith, tree: Site, what: str) -> None:
    lab = make_with(count=2)
    place = lab["h02"]
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    image.write_bytes(overwritten(image.read_bytes()))
    match what:
        case "zstd fails":
            place.gate("stage.zstd", "case $* in *-D*) exit 1;; esac")
        case "zstd cannot":
            place.gate("stage.zstd", "case $* in *-D*) echo Incorrect parameters >&2; exit 1;; esac")
        case "dd fails":
            place.gate("stage.dd", "case $* in *conv=notrunc*) exit 1;; esac")
        case "other bytes":
            place.gate("stage.dd", "case $* in of=*) exec </dev/zero;; esac")
        case _:
            place.gate("stage.dd", "case $* in of=*) exec </dev/null;; esac")
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done, "h01") == ["delta"]
    assert ways(done, "h02") == ["delta", "upload"]
    assert "h02: cannot build upon release" in done.stderr
    place.mend()
    image.write_bytes(cut(image.read_bytes()))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert [patched(done, name) for name in lab.names] == [1, 1]


def test_one_that_arrived_is_not_sent_again(make_with: MakeWith, tree: Site) -> None:
    """Nor is it taken for one without patches."""
    lab = make_with()
    [place] = lab
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    image.write_bytes(overwritten(image.read_bytes()))
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    lab.push(tree.root)
    assert [name.endswith("-p.tar.zst") for name in place.incoming] == [True]
    place.mend()
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert (ways(done), done.sent("h01")) == (["delta"], 0)


# ---- what is kept here


@pytest.mark.parametrize("state", ["missing", "cut", "altered", "unreadable", "a directory"])
def test_kept_content_that_is_not_what_it_was(make_with: MakeWith, tree: Site, state: str) -> None:
    lab = make_with()
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    [kept] = contents().iterdir()
    match state:
        case "missing":
            kept.unlink()
        case "cut":
            kept.write_bytes(kept.read_bytes()[:-1])
        case "altered":
            forge(kept, flipped(kept))
        case "unreadable":
            kept.unlink()
            kept.symlink_to("nowhere")
        case _:
            kept.unlink()
            kept.mkdir()
    image.write_bytes(overwritten(image.read_bytes()))
    done = lab.push(tree.root)
    arrived(lab, done, tree.root)
    assert ways(done) == ["upload"]
    assert (done.sent("h01") or 0) > SIZE
    if state == "altered":
        assert not kept.exists()
    image.write_bytes(cut(image.read_bytes()))
    assert patched(lab.push(tree.root)) == 1


def test_nowhere_to_keep_it(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    image = tree.fill("image", SIZE)
    contents().parent.mkdir(parents=True)
    contents().write_text("in the way")
    for _ in range(2):
        done = lab.push(tree.root)
        arrived(lab, done, tree.root)
        assert ways(done) == ["upload"]
        image.write_bytes(overwritten(image.read_bytes()))


def test_who_may_read_it(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    tree.fill("image", SIZE).chmod(0o644)
    lab.push(tree.root)
    [kept] = contents().iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(contents().stat().st_mode) == 0o700


def test_a_dry_run_tells_what_a_patch_takes(make_with: MakeWith, tree: Site) -> None:
    lab = make_with()
    image = tree.fill("image", SIZE)
    lab.push(tree.root)
    before = sorted(contents().iterdir())
    image.write_bytes(overwritten(image.read_bytes()))
    dry = lab.push(tree.root, "--dry-run")
    [told] = [e["data"] for e in dry.of("h01") if "action" in e["data"]]
    assert (told["action"], told["files_to_send"]) == ("delta", 1)
    assert sorted(contents().iterdir()) == before
    assert lab.push(tree.root).sent("h01") == told["bytes_to_send"]


def test_small_files_are_not_kept(make_with: MakeWith, tree: Site) -> None:
    lab: Lab = make_with()
    lab.push(tree.root)
    assert not contents().exists()
