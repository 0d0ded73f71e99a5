"""Trees to pack, and ways to look at them that share no code with what is tested."""

# Paths are bytes here, since names need not be text.
# ruff: noqa: PTH101, PTH102, PTH103, PTH114, PTH115, PTH123, PTH211

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from deployctl.artifact.walk import Walked, walk
from deployctl.model import Shared

NOBODY = 65534


def nasty_names() -> list[bytes]:
    """Names that have broken other tools."""
    return [
        b"plain.txt",
        b"with space",
        b" leading and trailing ",
        b"new\nline",
        b"car\rriage",
        b"tab\tbell\x07",
        b"-rf",
        b"--help",
        b"'single'",
        b'"double"',
        b"$(touch pwned)",
        b"`touch pwned`",
        b"back\\slash",
        b"\\x41",
        b"*",
        b"semi;colon&pipe|",
        b"~",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"latin1-\xe9\xff",
        b"\x01\x02\x7f",
        b"n" * 255,
        b"a",
        b"a-b",
        b"a.b",
        b"\xf0\x9f\x9a\x80",
    ]


def make_nasty_tree(root: Path) -> Path:
    """Every nasty name as a file in a directory, as a directory, and as a link's text; modes, times, long paths."""
    top = os.fsencode(root)
    os.mkdir(top)
    for number, name in enumerate(nasty_names()):
        os.makedirs(top + b"/dirs/" + name)
        write(top + b"/dirs/" + name + b"/inside", name * 3)
        write(top + b"/" + name, b"content of %d\n" % number)
        os.makedirs(top + b"/links", exist_ok=True)
        os.symlink(b"../" + name, top + b"/links/" + name)
    deep = b"deep/" + b"/".join([b"d" * 40] * 9)
    os.makedirs(top + b"/" + deep)
    write(top + b"/" + deep + b"/long path", b"far down")
    os.symlink(b"../" * 5 + b"x" * 200, top + b"/" + deep + b"/long link")
    for length in (
        94,
        95,
        96,
        99,
        100,
        101,
    ):  # around the 100 bytes of a tar header, with and without `tree/`
        write(top + b"/" + b"l" * length, b"%d" % length)
        os.mkdir(top + b"/" + b"m" * length)
        os.symlink(b"t" * length, top + b"/k%d" % length)
    for mode in (0o600, 0o755, 0o444, 0o640, 0o666, 0o400):
        write(top + b"/mode-%o" % mode, b"", mode=mode)
    os.makedirs(top + b"/empty/dir")
    os.symlink(b"nowhere", top + b"/dangling")
    os.symlink(b"loop", top + b"/loop")
    os.symlink(b".", top + b"/dot")
    for size in (0, 1, 511, 512, 513, 1024):
        write(top + b"/size-%d" % size, bytes(range(256)) * 4, size=size)
    write(top + b"/old", b"1", mtime_s=1)
    write(top + b"/ancient", b"1", mtime_s=-86400)
    write(top + b"/future", b"1", mtime_s=2**33 + 5)
    os.mkdir(top + b"/locked")
    write(top + b"/locked/file", b"in a directory that may not be written")
    os.mkdir(top + b"/locked/inner")
    write(top + b"/locked/inner/file", b"and one more")
    os.chmod(top + b"/locked/inner", 0o555)
    os.chmod(top + b"/locked", 0o555)
    return root


def write(
    path: bytes | Path,
    content: bytes,
    *,
    mode: int = 0o644,
    size: int | None = None,
    mtime_s: int | None = None,
) -> None:
    with open(path, "wb") as file:
        file.write(content if size is None else content[:size])
    os.chmod(path, mode)
    if mtime_s is not None:
        os.utime(path, (mtime_s, mtime_s))


def make_tree(root: Path, files: dict[str, bytes | str]) -> Path:
    """Files by path; a text starting with `->` is a link, one ending in a slash as its path a directory."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif isinstance(content, str) and content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def simple_manifest(root: Path) -> bytes:
    """The manifest of a directory by other means: os.walk, hashlib and a regular loop over bytes."""
    top = os.fsencode(root)
    lines: list[tuple[bytes, bytes]] = []
    for directory, names, files in os.walk(top):
        for name in names + files:
            place = directory + b"/" + name
            path = place[len(top) + 1 :]
            status = os.lstat(place)
            if stat.S_ISLNK(status.st_mode):
                data = os.readlink(place)
                facts = b"l 0777 %d %s" % (len(data), hashlib.sha256(data).hexdigest().encode())
            elif stat.S_ISDIR(status.st_mode):
                facts = b"d 0%03o 0 -" % (status.st_mode & 0o777)
            else:
                with open(place, "rb") as file:
                    data = file.read()
                facts = b"f 0%03o %d %s" % (
                    status.st_mode & 0o777,
                    len(data),
                    hashlib.sha256(data).hexdigest().encode(),
                )
            shown = b"".join(b"\\x%02x" % c if c < 32 or c > 126 or c == 92 else bytes([c]) for c in path)
            lines.append((path, facts + b" " + shown + b"\n"))
    return b"".join(line for _, line in sorted(lines))


def file_times(root: Path) -> dict[bytes, int]:
    """Whole seconds of every file's time."""
    top = os.fsencode(root)
    return {
        (directory + b"/" + name)[len(top) :]: int(os.lstat(directory + b"/" + name).st_mtime_ns // 10**9)
        for directory, _, files in os.walk(top)
        for name in files
        if not os.path.islink(directory + b"/" + name)
    }


def walked(root: Path, *exclude: str, shared: Shared | None = None, allow_empty: bool = False) -> Walked:
    return walk(root, exclude=exclude, shared=shared or Shared(), allow_empty=allow_empty)


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, on CI it fails."""
    found = shutil.which(name)
    if found is None:
        _missing(f"{name} is not installed")
    return found


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def as_nobody(task: Callable[[], None]) -> None:
    """Run the task in a child without root's rights (as we are, if we aren't root); its failure is the test's."""

    def without_rights() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        task()

    in_child(without_rights)


def in_child(task: Callable[[], None]) -> None:
    """Run the task in a forked child, for at most a minute; its failure is the test's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where the test runner has threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            task()
            code = 0
        except BaseException:  # noqa: BLE001 - shown, then the child is gone
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def run(*command: str | Path, cwd: Path | None = None, stdin: bytes | None = None, umask: int = -1) -> bytes:
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, check=False, umask=umask)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
