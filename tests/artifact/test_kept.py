"""Contents kept for patches: what is there, what goes when there is no room, and that nothing of it is ever a push's problem."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deployctl.artifact import kept as module
from deployctl.artifact.kept import LARGE_BYTES, Kept
from deployctl.artifact.manifest import Entry
from deployctl.artifact.pack import read_manifest
from deployctl.artifact.walk import Walked, walk
from deployctl.model import Shared

SIZE = LARGE_BYTES + 1


class Tree(NamedTuple):
    walked: Walked
    entries: Sequence[Entry]

    def digests(self) -> list[str]:
        return [entry.sha256 for entry in self.entries if entry.type == "f"]


def tree(root: Path, *fills: bytes, size: int = SIZE) -> Tree:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for number, fill in enumerate(fills):
        (root / f"f{number}").write_bytes(fill * size)
    walked = walk(root, exclude=(), shared=Shared(), name="tree", allow_empty=True)
    return Tree(walked, read_manifest(walked).entries)


def keep(kept: Kept, made: Tree) -> None:
    for _ in kept.keep(made.walked, made.entries):
        pass


def held(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def age(directory: Path, *digests: str) -> None:
    """As if these had been used long ago, the first one longest."""
    for number, digest in enumerate(digests, 1):
        os.utime(directory / digest, (number, number))


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    made = tree(tmp_path / "tree", b"a", b"b", b"a")
    keep(kept, made)
    digest = hashlib.sha256(b"a" * SIZE).hexdigest()
    path = kept.find(digest, SIZE)
    assert path is not None
    assert path.read_bytes() == b"a" * SIZE
    assert held(tmp_path / "kept") == set(made.digests())
    assert kept.find(digest, SIZE + 1) is None
    assert kept.find("0" * 64, SIZE) is None


def test_small_files_are_not(tmp_path: Path) -> None:
    keep(Kept(tmp_path / "kept"), tree(tmp_path / "tree", b"a", size=LARGE_BYTES - 1))
    assert not (tmp_path / "kept").exists()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", limit_bytes=3 * SIZE)
    first = tree(tmp_path / "tree", b"a", b"b", b"c")
    keep(kept, first)
    a, b, c = first.digests()
    age(tmp_path / "kept", c, a, b)
    assert kept.find(c, SIZE)
    second = tree(tmp_path / "tree", b"d", b"b")
    keep(kept, second)
    assert held(tmp_path / "kept") == {b, c, second.digests()[0]}


def test_a_tree_that_does_not_fit_pushes_nothing_of_itself_out(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", limit_bytes=2 * SIZE + 10)
    made = tree(tmp_path / "tree", b"a", b"b", b"c")
    for _ in range(2):
        keep(kept, made)
        assert held(tmp_path / "kept") == set(made.digests()[:2])


def test_a_file_larger_than_all_that_may_be_kept(tmp_path: Path) -> None:
    keep(Kept(tmp_path / "kept", limit_bytes=SIZE - 1), tree(tmp_path / "tree", b"a"))
    assert held(tmp_path / "kept") == set()


def test_no_more_than_a_share_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * SIZE + 10))
    made = tree(tmp_path / "tree", b"a", b"b")
    keep(Kept(tmp_path / "kept"), made)
    assert held(tmp_path / "kept") == {made.digests()[0]}


def refuse(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "no space")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(os, "pwrite", refuse)
    keep(Kept(tmp_path / "kept"), tree(tmp_path / "tree", b"a"))
    assert held(tmp_path / "kept") == set()


def test_without_a_call_that_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    made = tree(tmp_path / "tree", b"a")
    keep(Kept(tmp_path / "kept"), made)
    assert (tmp_path / "kept" / made.digests()[0]).read_bytes() == b"a" * SIZE


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("in the way")
    kept = Kept(tmp_path / "kept")
    keep(kept, tree(tmp_path / "tree", b"a"))
    assert kept.find("0" * 64, 1) is None
    kept.drop("0" * 64)


def test_a_file_that_changed_or_went_is_passed_over(tmp_path: Path) -> None:
    made = tree(tmp_path / "tree", b"a", b"b", b"c")
    (tmp_path / "tree/f0").write_bytes(b"x" * 5)
    (tmp_path / "tree/f1").unlink()
    keep(Kept(tmp_path / "kept"), made)
    assert held(tmp_path / "kept") == {made.digests()[2]}


def test_one_that_was_cut_is_replaced(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    made = tree(tmp_path / "tree", b"a")
    keep(kept, made)
    [digest] = made.digests()
    (tmp_path / "kept" / digest).write_bytes(b"cut")
    keep(kept, made)
    assert (tmp_path / "kept" / digest).read_bytes() == b"a" * SIZE


def test_left_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_clone", lambda *_: False)
    steps = Kept(tmp_path / "kept").keep(*tree(tmp_path / "tree", b"a"))
    next(steps)
    next(steps)
    assert [name[:5] for name in held(tmp_path / "kept")] == [".new-"]
    steps.close()  # type: ignore[attr-defined]
    assert held(tmp_path / "kept") == set()


def test_two_at_once(tmp_path: Path) -> None:
    made = tree(tmp_path / "tree", b"a", b"b")
    both = [Kept(tmp_path / "kept").keep(made.walked, made.entries) for _ in range(2)]
    while both:
        both = [steps for steps in both if next(steps, both) is not both]
    assert held(tmp_path / "kept") == set(made.digests())


def test_what_a_dead_run_left_goes(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    dead, alive = tmp_path / "kept/.new-dead", tmp_path / "kept/.new-alive"
    dead.touch()
    alive.touch()
    os.utime(dead, (1, 1))
    made = tree(tmp_path / "tree", b"a")
    keep(Kept(tmp_path / "kept"), made)
    assert held(tmp_path / "kept") == {alive.name, *made.digests()}
