"""Trees to release, and what is on a disk, read by means that share no code with what is tested."""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH115, PTH123

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

Entry = tuple[str, int, str]


def make_site(root: Path, text: str) -> Path:
    """A handful of files, one of them saying `text`; bring new text into a tree that is there."""
    (root / "app/empty").mkdir(parents=True, exist_ok=True)
    (root / "index.html").write_text(f"<p>{text}</p>\n")
    (root / "app/run.sh").write_text("#!/bin/sh\necho run\n")
    (root / "app/run.sh").chmod(0o755)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("app/run.sh")
    return root


def make_heavy(root: Path, kilobytes: int) -> Path:
    """A tree that does not get smaller by packing, without a file that would travel as it is."""
    make_site(root, "heavy")
    for number, start in enumerate(range(0, kilobytes, 20_000)):
        size_bytes = min(kilobytes - start, 20_000) * 1000
        (root / f"random{number or ''}").write_bytes(os.urandom(size_bytes))
    return root


def walk(top: Path) -> dict[bytes, Entry]:
    """Type, mode and content (or link text) of everything below `top`, by path."""
    found: dict[bytes, Entry] = {}
    start = os.fsencode(top)
    for directory, names, files in os.walk(start):
        for name in names + files:
            place = directory + b"/" + name
            status = os.lstat(place)
            if stat.S_ISLNK(status.st_mode):
                entry: Entry = ("l", 0o777, os.readlink(place).decode("latin-1"))
            elif stat.S_ISDIR(status.st_mode):
                entry = ("d", stat.S_IMODE(status.st_mode), "")
            elif not stat.S_ISREG(status.st_mode):
                entry = ("?", stat.S_IMODE(status.st_mode), "")
            else:
                with open(place, "rb") as file:
                    entry = ("f", stat.S_IMODE(status.st_mode), hashlib.sha256(file.read()).hexdigest())
            found[place[len(start) + 1 :]] = entry
    return found


def listing(top: Path) -> dict[bytes, tuple[int, int, int, int]]:
    """Inode, mode, size and time of change of everything below `top`, and of `top`."""
    start = os.fsencode(top)
    paths = [start]
    for directory, names, files in os.walk(start):
        paths += [directory + b"/" + name for name in names + files]
    return {path: (s.st_ino, s.st_mode, s.st_size, s.st_ctime_ns) for path in paths for s in [os.lstat(path)]}
