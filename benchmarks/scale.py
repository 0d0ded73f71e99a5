"""What a push costs with more hosts, more files, more bytes: wall time, processor time and memory on this side.

    python -m benchmarks.scale [--write DIRECTORY] [--short]

Prints a table for each of the three; `--write` keeps the figures as scale.json, which benchmarks/plot.py draws.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from benchmarks import trees
from benchmarks.farm import COMPILED, Farm, farm_of, machine, push_command
from benchmarks.measure import run

LOOK_S = 0.05


@dataclass(frozen=True)
class Point:
    """One push; memory is the unique set size of the largest process of a kind, at its largest."""

    at: int
    wall_s: float
    cpu_s: float
    parent_mib: float
    worker_mib: float
    packer_mib: float


@dataclass(frozen=True)
class Series:
    name: str
    title: str
    unit: str
    points: Sequence[int]
    hosts: Callable[[int], int]
    make: Callable[[Path, int], object]


def small_site(root: Path, _at: int) -> object:
    return trees.web_tree(root, 200)


SERIES = (
    Series("hosts", "200 files to more and more hosts", "hosts", (1, 10, 25, 50, 100, 200), lambda at: at, small_site),
    Series("files", "more and more files of 100 bytes to 2 hosts", "files", (1000, 10_000, 25_000, 50_000, 100_000),
           lambda _at: 2, trees.tiny_files),
    Series("bytes", "a larger and larger file to 2 hosts", "MiB", (16, 64, 128, 256, 512),
           lambda _at: 2, lambda root, at: trees.big_file(root, at << 20)),
)  # fmt: skip


class Watcher:
    """Looks at the processes of a push, over and over, and keeps what each kind had at most."""

    def __init__(self) -> None:
        self.most_mib = {"parent": 0.0, "worker": 0.0, "packer": 0.0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            for kind, pid in processes():
                self.most_mib[kind] = max(self.most_mib[kind], unique_mib(pid))


def processes() -> Iterator[tuple[str, int]]:
    """Yield the parent, the workers and the packer of the push that this process started."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has gone
                command = (entry / "cmdline").read_bytes()
                parent_pid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(entry.name)] = (parent_pid, command)
    ours = {
        pid for pid, (above, command) in found.items() if above == os.getpid() and b"deployctl" in command
    }
    yield from (("parent", pid) for pid in ours)
    for pid, (above, command) in found.items():
        if above in ours and (kind := re.match(rb"deployctl: (worker|packer)", command)):
            yield kind[1].decode(), pid


def unique_mib(pid: int) -> float:
    """What would be free if this process were not there."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(kib) for kib in re.findall(r"(?m)^Private_(?:Clean|Dirty): +(\d+)", text)) / 1024


def push(farm: Farm, tree: Path) -> tuple[float, float, Watcher]:
    farm.empty()
    environ = {"XDG_CACHE_HOME": str(farm.base / "cache"), **COMPILED}
    with Watcher() as watcher:
        figures = run(push_command(tree, farm.inventory()), environ)
    return figures.wall_s, figures.cpu_s, watcher


def measure(series: Series, points: Sequence[int]) -> list[Point]:
    found = []
    for at in points:
        memory = Path("/dev/shm")
        with (
            tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name,
            farm_of(series.hosts(at)) as farm,
        ):
            series.make(Path(name) / "tree", at)
            try:
                wall_s, cpu_s, watcher = push(farm, Path(name) / "tree")
            except subprocess.CalledProcessError as error:
                sys.exit(f"deployctl failed: {(error.output or b'')[-500:]!r}")
        most = watcher.most_mib
        found.append(Point(at, wall_s, cpu_s, most["parent"], most["worker"], most["packer"]))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def table(series: Series, points: Sequence[Point]) -> Iterator[str]:
    yield f"## {series.title[0].upper()}{series.title[1:]}"
    yield ""
    yield f"| {series.unit} | wall s | client CPU s | parent MiB | largest worker MiB | packer MiB |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for each in points:
        yield (
            f"| {each.at:,} | {each.wall_s:.2f} | {each.cpu_s:.2f} | {each.parent_mib:.0f} | {each.worker_mib:.0f} "
            f"| {each.packer_mib:.0f} |"
        )
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--write", type=Path)
    parser.add_argument("--short", action="store_true", help="the first three points of each alone")
    arguments = parser.parse_args()
    raw: dict[str, object] = {"machine": machine()}
    lines: list[str] = []
    for series in SERIES:
        points = measure(series, series.points[:3] if arguments.short else series.points)
        said = list(table(series, points))
        print(*said, sep="\n", flush=True)
        lines += said
        raw[series.name] = {
            "title": series.title,
            "unit": series.unit,
            "points": [asdict(each) for each in points],
        }
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "scale.json").write_text(json.dumps(raw, indent=1) + "\n")
        (arguments.write / "scale.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
