"""Trees that the benchmarks release: generated ones of fixed seeds, and releases of a real package."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

BIG_BYTES = 256 << 20
PACKAGE, BEFORE, AFTER = "django", "5.0.6", "5.0.7"


def web_tree(root: Path, files: int, seed: int = 7) -> int:
    """Write a web-like tree, a third of it incompressible, about 7.5 kB a file; return its bytes."""
    chance = random.Random(seed)
    words = [f"{chance.getrandbits(32):x}" for _ in range(3000)]
    total = 0
    for number in range(files):
        directory = root / f"d{number % 97:02}" / f"e{number % 13}"
        directory.mkdir(parents=True, exist_ok=True)
        size = int(chance.expovariate(1 / 7500))
        if number % 3:
            content = " ".join(chance.choices(words, k=size // 9 + 1)).encode()[:size]
        else:
            content = chance.randbytes(size)
        (directory / f"f{number:05}.{'js' if number % 3 else 'png'}").write_bytes(content)
        total += size
    return total


def tiny_files(root: Path, files: int, seed: int = 11) -> None:
    chance = random.Random(seed)
    for number in range(files):
        directory = root / f"d{number // 500:03}"
        if number % 500 == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number}").write_bytes(chance.randbytes(100))


def with_changes(old: Path, new: Path, share: float, seed: int = 8) -> list[str]:
    """Copy `old` to `new`, times and all, and give that share of its files new content; return their paths."""
    shutil.copytree(old, new, symlinks=True)
    chance = random.Random(seed)
    files = sorted(path for path in new.rglob("*") if path.is_file())
    changed = chance.sample(files, max(1, round(len(files) * share)))
    for path in changed:
        path.write_bytes(chance.randbytes(max(1, path.stat().st_size)))
        _later(path)
    return sorted(str(path.relative_to(new)) for path in changed)


def big_file(root: Path, size_bytes: int = BIG_BYTES, seed: int = 9) -> int:
    root.mkdir()
    chance = random.Random(seed)
    with (root / "image.bin").open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(chance.randbytes(1 << 20))
    return size_bytes


def with_changed_bytes(old: Path, new: Path, share: float, seed: int = 10) -> None:
    """Copy the one big file, with that share of its bytes overwritten in runs of 64 KiB."""
    shutil.copytree(old, new)
    chance = random.Random(seed)
    size = (new / "image.bin").stat().st_size
    with (new / "image.bin").open("r+b") as file:
        for _ in range(round(size * share / 65536)):
            file.seek(chance.randrange(0, size - 65536))
            file.write(chance.randbytes(65536))
    _later(new / "image.bin")


def _later(path: Path) -> None:
    """Give a file another time than it had before: rsync passes over what has the same size and second."""
    time_s = int(path.stat().st_mtime) + 60
    os.utime(path, (time_s, time_s))


def package(root: Path, version: str, scratch: Path) -> bool:
    """Unpack that version of a real package from PyPI; False when it can't be had."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(scratch)]
    command += ["--only-binary", ":all:", f"{PACKAGE}=={version}"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return False
    wheel = next(path for path in scratch.glob("*.whl") if f"-{version}-" in path.name)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root)
    return True
