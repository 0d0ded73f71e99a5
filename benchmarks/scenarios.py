"""The releases that are compared, and what deployctl wants to reach in each, as a share of the others' time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import trees
from benchmarks.tools import Case


@dataclass(frozen=True)
class Scenario:
    """`make` writes the trees and returns the case, or None where they can't be had."""

    name: str
    title: str
    hosts: int
    make: Callable[[Path], Case | None]
    wanted: dict[str, float] = field(default_factory=dict)  # our time over that tool's, at most
    tools: Sequence[str] | None = None  # None: all


def first_push(base: Path) -> Case:
    trees.web_tree(base / "new", 10_000)
    return Case(None, base / "new")


def one_big(base: Path) -> Case:
    trees.big_file(base / "new")
    return Case(None, base / "new")


def one_percent(links: str) -> Callable[[Path], Case]:
    def make(base: Path) -> Case:
        trees.web_tree(base / "old", 10_000)
        changed = trees.with_changes(base / "old", base / "new", 0.01)
        return Case(base / "old", base / "new", changed, links)

    return make


def unchanged(base: Path) -> Case:
    trees.web_tree(base / "old", 10_000)
    return Case(base / "old", base / "old")


def big_changed(base: Path) -> Case:
    trees.big_file(base / "old")
    trees.with_changed_bytes(base / "old", base / "new", 0.01)
    return Case(base / "old", base / "new", ["image.bin"])


def small_change(base: Path) -> Case:
    (base / "old").mkdir()
    for number in range(50):
        (base / "old" / f"f{number}").write_bytes(bytes([number]) * 20_000)
    changed = trees.with_changes(base / "old", base / "new", 0.01)
    return Case(base / "old", base / "new", changed)


def real_package(base: Path) -> Case | None:
    scratch = base / "wheels"
    scratch.mkdir()
    for name, version in (("old", trees.BEFORE), ("new", trees.AFTER)):
        if not trees.package(base / name, version, scratch):
            return None
    old, new = base / "old", base / "new"
    changed = [
        str(path.relative_to(new))
        for path in sorted(new.rglob("*"))
        if path.is_file()
        and (not (was := old / path.relative_to(new)).is_file() or was.read_bytes() != path.read_bytes())
    ]
    return Case(old, new, changed)


RSYNC = "rsync in parallel"
FLOOR = "ssh + tar"

ALL: Sequence[Scenario] = (
    Scenario(
        "first",
        "first push of 10,000 files",
        10,
        first_push,
        {
            FLOOR: 1.0,
            RSYNC: 1 / 1.7,
            "rsync -z in parallel": 1 / 1.7,
            "tar and scp in turn": 1 / 4,
            "clush": 1 / 8,
        },
    ),
    Scenario("big", "one file of 256 MiB", 10, one_big, {"scp in parallel": 0.85}),
    Scenario(
        "hard",
        "1 % of 10,000 files changed, links: hard",
        10,
        one_percent("hard"),
        {FLOOR: 1.0, RSYNC: 1 / 3},
    ),
    Scenario(
        "copy",
        "1 % of 10,000 files changed, links: copy",
        10,
        one_percent("copy"),
        {FLOOR: 1.0, RSYNC: 1 / 2},
    ),
    Scenario("unchanged", "nothing changed in 10,000 files", 10, unchanged, {RSYNC: 0.5}),
    Scenario(
        "patch", "1 % of the bytes of one file of 256 MiB changed", 10, big_changed, {"rsync in place": 0.5}
    ),
    Scenario(
        "many",
        "one small change",
        200,
        small_change,
        {"clush": 1 / 4, "parallel-scp": 1 / 4, "ansible": 1 / 20},
    ),
    Scenario("package", f"{trees.PACKAGE} {trees.BEFORE} to {trees.AFTER}", 10, real_package, {RSYNC: 1.0}),
)
