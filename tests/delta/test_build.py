"""Random trees made of random trees: what the host builds is the new tree, and the old one is as it was.

The remote command runs here, without a connection, in each of the shells and userlands that are there.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from deployctl.artifact.delta import compare, pack_delta
from deployctl.artifact.manifest import Manifest, shape_digest, sizes_digest, unescape
from deployctl.artifact.pack import link_texts, read_manifest
from deployctl.artifact.transcode import transcode
from deployctl.artifact.walk import Walked, walk
from deployctl.host.layout import artifact_name, delta_stem
from deployctl.host.plan import Action, Plan
from deployctl.host.script import Answer, Script
from deployctl.model import Shared
from tests.life.kit import busybox_tools
from tests.release.trees import listing
from tests.release.trees import walk as look
from tests.support.wide import some

NAMES = ("a", "b", "c d", "e\\f", "g\nh", "-i", " j ", "ü", "k", "./l"[2:])
PLAIN_NAMES = ("a", "b", "c d", "-i", " j ", "k", "$(l)", "'m")
MODES = (0o644, 0o644, 0o755, 0o600)
OLD, NEW = "20200101T000000Z-00000000", "20200102T000000Z-11111111"


def grow(root: Path, chance: random.Random, depth: int = 0, *, plain: bool = False) -> None:
    """Fill a directory with files that share contents, links, and directories; `plain`: each its own content, no links."""
    root.mkdir(exist_ok=True)
    for name in chance.sample(PLAIN_NAMES if plain else NAMES, chance.randint(1, 6)):
        path = root / name
        if path.is_symlink() or path.exists():
            continue
        kind = chance.random()
        if kind < 0.55 or depth == 3:
            size = chance.choice((0, 1, 3000))
            path.write_bytes(chance.randbytes(size * 5) if plain else b"%d" % chance.randint(0, 5) * size)
            path.chmod(chance.choice(MODES))
            os.utime(path, (1_600_000_000 + chance.randint(0, 3),) * 2)
        elif kind < 0.7 and not plain:
            path.symlink_to("x" * chance.randint(1, 3))
        else:
            grow(path, chance, depth + 1, plain=plain)


def change(root: Path, chance: random.Random, *, plain: bool = False) -> None:
    """Remove, rename and swap some entries, change modes, and grow more; `plain`: change content instead of names and modes."""
    entries = sorted((p for p in root.rglob("*")), key=os.fsencode)
    for path in chance.sample(entries, min(len(entries), chance.randint(0, 6))):
        if not (path.is_symlink() or path.exists()):
            continue
        deed = chance.random()
        if deed < 0.3:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        elif plain:
            if path.is_file():
                path.unlink()
                path.write_bytes(chance.randbytes(50))
        elif deed < 0.6:
            target = path.with_name(chance.choice(NAMES))
            if not (target.exists() or target.is_symlink()):
                path.rename(target)
        elif not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else chance.choice(MODES))
    grow(root, chance, plain=plain)


def run(script: Script, path: str, shell: list[str]) -> Answer:
    """Run a remote command as a login would: its standard input stays open until it has ended."""
    answer = Answer(script.nonce)
    with subprocess.Popen(
        shell,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={"PATH": path},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(script.text.encode())
        process.stdin.flush()
        while answer.status is None and (line := process.stdout.readline()):
            answer.feed(line)
        os.killpg(process.pid, signal.SIGKILL)
    return answer


class Host:
    """A deploy root with the release OLD in it, and what builds NEW there."""

    def __init__(self, root: Path, shell: list[str], path: str) -> None:
        self.root, self._shell, self._path = root, shell, path
        self.whole = self.at_once = False
        for name in (
            "releases",
            "shared",
            ".deployctl/manifests",
            ".deployctl/stats",
            ".deployctl/incoming/run",
        ):
            (root / name).mkdir(parents=True)

    def hold(self, tree: Path, manifest: Manifest, *, recorded: bool) -> None:
        old = self.root / "releases" / OLD
        subprocess.run(["cp", "-a", tree, old], check=True)
        (self.root / ".deployctl/manifests" / OLD).write_bytes(manifest.to_bytes())
        if recorded:
            listed = subprocess.run(
                ["find", ".", "-type", "f", "-printf", "%m %i %s %T@ %C@ %p\\0"],
                cwd=old,
                check=True,
                capture_output=True,
            ).stdout
            lines = sorted(listed.replace(b"\n", b"\1").split(b"\0")[:-1])
            record = b"".join([line + b"\n" for line in lines])
            (self.root / ".deployctl/stats" / OLD).write_bytes(record)

    def unusable(self) -> list[str]:
        script = Script.build("probe", {"SCAN": "1"}, run="run", root=str(self.root))
        answer = run(script, self._path, self._shell)
        answer.raise_failure()
        assert answer.one("base") == OLD
        self.whole = "whole" in answer.all("scan")
        return answer.all("unusable")

    def build(
        self, walked: Walked, old: Manifest, new: Manifest, lost: list[str], *, hard: bool, out: Path
    ) -> Answer:
        delta = compare(old, new, lost)
        assert all(unescape(name) for name in delta.unusable)
        packed = pack_delta(walked, delta, delta_stem(new.digest, old.digest, lost), out)
        artifact = transcode(packed, "gzip", out)
        name = artifact_name(delta_stem(new.digest, old.digest, lost), "gzip")
        assert artifact.path.name == name
        shutil.copy(artifact.path, self.root / ".deployctl/incoming" / name)
        links = link_texts(walked)
        shape = shape_digest(new, link_texts=links)
        modes = " ".join(sorted({f"{e.type}:{e.mode:o}" for e in new.entries if e.type != "l"}))
        plan = Plan(
            Action.DELTA, NEW, new.digest, shape, shape, sizes_digest(new, link_texts=links), modes, 0, 0, name, "", 0, "",
            base=OLD, base_tree=old.digest, links="hard" if hard else "copy", odd=new.odd, away=delta.away_names,
        )  # fmt: skip
        self.at_once = plan.away is not None
        values = {**plan.values(), "WHOLE": "1" if self.whole else ""}
        return run(Script.build("stage", values, run="run", root=str(self.root)), self._path, self._shell)


@pytest.mark.parametrize("links", ["copy", "hard"])
@pytest.mark.parametrize("userland", ["sh", "bash", "busybox"])
@pytest.mark.parametrize("kind", ["any", "plain"])
@pytest.mark.parametrize("seed", some("01", "0123456789"))
def test_random_trees(tmp_path: Path, seed: str, kind: str, userland: str, links: str) -> None:
    chance, plain = random.Random(f"{seed} {userland} {links}"), kind == "plain"
    found = shutil.which(userland)
    if found is None:
        pytest.skip(f"{userland} is missing")
    path, shell = os.defpath, [found, "-s"]
    if userland == "busybox":
        path, shell = str(busybox_tools(tmp_path / "tools")), [found, "sh", "-s"]
    tree, hand = tmp_path / "tree", chance.random() < 0.5
    grow(tree, chance, plain=plain)
    old = read_manifest(walk(tree, exclude=[], shared=Shared(), allow_empty=True))
    host = Host(tmp_path / "r\\to o't", shell, path)
    host.hold(tree, old, recorded=chance.random() < 0.8)
    place = host.root / "releases" / OLD
    if hand:  # somebody was here
        change(place, chance, plain=plain and chance.random() < 0.5)
    before = look(place), {name: entry[:3] for name, entry in listing(place).items()}
    change(tree, chance, plain=plain)
    walked = walk(tree, exclude=[], shared=Shared(), allow_empty=True)
    new = read_manifest(walked)
    answer = host.build(walked, old, new, host.unusable(), hard=links == "hard", out=tmp_path)
    turned = {e.path for e in old.entries if e.type == "d"} & {e.path for e in new.entries if e.type != "d"}
    assert host.at_once or turned or not plain or hand
    if answer.status == 0:
        built = host.root / "releases" / NEW
        assert look(built) == look(tree)
        inodes = [entry[0] for entry in listing(built).values()]
        assert len(inodes) == len(set(inodes))
        times = {
            p: int((tree / p).lstat().st_mtime) for p in map(os.fsdecode, look(tree)) if (tree / p).is_file()
        }
        kept = {e.path for e in set(old.entries) & set(new.entries)}
        contents = {e.sha256 for e in old.entries}
        fresh = {
            e.path for e in new.entries if e.type == "f" and e.path not in kept and e.sha256 not in contents
        }
        assert all(int((built / p).stat().st_mtime) == times[p] for p in map(os.fsdecode, fresh))
    else:
        assert hand, (answer.fields, answer.noise)
        assert str(answer.one("fail")).startswith("33 "), answer.fields
        assert not (host.root / "releases" / NEW).exists()
    assert (look(place), {name: entry[:3] for name, entry in listing(place).items()}) == before


def test_a_newline_in_a_name_is_never_a_second_name(tmp_path: Path) -> None:
    """What goes is told as lines, and each is removed: `x`, newline, `/victim/file` would be two."""
    tree = tmp_path / "tree"
    odd = tree / "x\n" / str(tmp_path)[1:] / "victim"
    odd.parent.mkdir(parents=True)
    odd.write_text("x")
    old = read_manifest(walk(tree, exclude=[], shared=Shared(), allow_empty=True))
    shutil.rmtree(tree / "x\n")
    (tree / "new").write_text("new")
    new = read_manifest(walk(tree, exclude=[], shared=Shared(), allow_empty=True))
    assert compare(old, new).away_names is None


@pytest.mark.parametrize("links", ["copy", "hard"])
@pytest.mark.parametrize("tar", ["tar", "busybox"])
def test_nothing_is_unpacked_through_a_link_that_somebody_put_there(
    tmp_path: Path, tar: str, links: str
) -> None:
    if (found := shutil.which(tar)) is None:
        pytest.skip(f"{tar} is missing")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/tar").symlink_to(found)
    host = Host(tmp_path / "root", ["sh", "-s"], f"{tmp_path / 'tools'}:{os.defpath}")
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "s").mkdir(parents=True)
    outside.mkdir()
    for number in range(20):
        (tree / f"s/{number}").write_bytes(os.urandom(2000))
    old = read_manifest(walk(tree, exclude=[], shared=Shared(), allow_empty=True))
    host.hold(tree, old, recorded=True)
    (host.root / "releases" / OLD / "s/up").symlink_to(outside)
    (tree / "s/up").mkdir()
    (tree / "s/up/f").write_text("new")
    walked = walk(tree, exclude=[], shared=Shared(), allow_empty=True)
    answer = host.build(
        walked, old, read_manifest(walked), host.unusable(), hard=links == "hard", out=tmp_path
    )
    assert host.at_once
    assert list(outside.iterdir()) == []
    assert answer.status == 0, answer.fields
    assert look(host.root / "releases" / NEW) == look(tree)


@pytest.mark.parametrize("lost", ["sums", "check"])
def test_a_list_that_an_awk_cut_short_proves_nothing(tmp_path: Path, lost: str) -> None:
    """As busybox's does on a full disk, with status 0."""
    tools, real = tmp_path / "tools", shutil.which("awk")
    tools.mkdir()
    (tools / "awk").write_text(
        f'#!/bin/sh\n{real} "$@"\nstatus=$?\nfor file in {lost} "${{D_LISTS-.}}/{lost}"; do\n'
        '  [ ! -s "$file" ] || { head -n 1 "$file" >"$file.1" && mv "$file.1" "$file"; }\ndone\nexit $status\n'
    )
    (tools / "awk").chmod(0o755)
    host = Host(tmp_path / "root", ["sh", "-s"], f"{tools}:{os.defpath}")
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"f{number}").write_bytes(os.urandom(2000))
    old = read_manifest(walk(tree, exclude=[], shared=Shared(), allow_empty=True))
    host.hold(tree, old, recorded=True)
    for number in range(3):
        (tree / f"f{number}").write_bytes(os.urandom(2000))
    walked = walk(tree, exclude=[], shared=Shared(), allow_empty=True)
    answer = host.build(walked, old, read_manifest(walked), host.unusable(), hard=False, out=tmp_path)
    assert (answer.one("fail") or "").startswith("31 cannot write a list"), answer.fields
    assert not (host.root / "releases" / NEW).exists()


@pytest.mark.parametrize("links", ["copy", "hard"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("userland", ["sh", "busybox"])
def test_a_directory_that_became_a_link_loses_nothing_elsewhere(
    tmp_path: Path, userland: str, plain: bool, links: str
) -> None:
    """Somebody moved a directory of the live release to another place and left a link: what is there is theirs."""
    path, shell = os.defpath, ["sh", "-s"]
    if userland == "busybox":
        path, shell = str(busybox_tools(tmp_path / "tools")), [shutil.which("busybox") or "", "sh", "-s"]
    host, tree, outside = Host(tmp_path / "root", shell, path), tmp_path / "tree", tmp_path / "outside"
    (tree / "up").mkdir(parents=True)
    for number in range(5):
        (tree / f"up/{number}").write_bytes(os.urandom(2000))
    if not plain:
        (tree / "link").symlink_to("up")
    old = read_manifest(walk(tree, exclude=[], shared=Shared(), allow_empty=True))
    host.hold(tree, old, recorded=True)
    place = host.root / "releases" / OLD / "up"
    place.rename(outside)
    place.symlink_to(outside)
    before = look(outside)
    (tree / "up/1").write_bytes(b"new")
    (tree / "up/2").unlink()
    walked = walk(tree, exclude=[], shared=Shared(), allow_empty=True)
    new = read_manifest(walked)
    for lost in (host.unusable(), []):  # as the probe saw it, and as if it had been done after the probe
        host.build(walked, old, new, lost, hard=links == "hard", out=tmp_path)
        assert look(outside) == before
        shutil.rmtree(host.root / "releases" / NEW, ignore_errors=True)
