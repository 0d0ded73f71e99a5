"""Sources that change, refuse or trick: refused before any host is changed, or carried as they are; never a bit else."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.artifact.trees import make_nasty_tree
from tests.faults.conftest import MakeScene
from tests.faults.kernel import compile_shim, in_namespace, injecting, need_root
from tests.faults.kit import Scene, check_invariants
from tests.release.running import Pushed
from tests.release.trees import walk

pytestmark = pytest.mark.sshd


@pytest.fixture
def one(make_scene: MakeScene) -> Scene:
    """One host that serves a release: what is wrong here is the tree."""
    return make_scene(1)


def assert_refused(scene: Scene, ended: Pushed, *words: str) -> None:
    """SOURCE cannot be packed, and that is all that happened."""
    assert (ended.code, ended.outcome) == (11, "refused"), ended.stderr
    for word in words:
        assert word in ended.stderr, (word, ended.stderr)
    assert set(ended.states.values()) <= {"cancelled", "skipped"}
    check_invariants(scene, ended)


@contextmanager
def busy(script: str, *arguments: str | Path) -> Iterator[None]:
    """A program that changes the tree all the while."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", script, *map(str, arguments)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


GROWS = """
import sys
with open(sys.argv[1], "ab", buffering=0) as file:
    print("ready", flush=True)
    while file.tell() < 1 << 30:
        file.write(b"x")
"""
SHRINKS = """
import os, sys
print("ready", flush=True)
for size in range(8_000_000, 0, -1):
    os.truncate(sys.argv[1], size)
"""


def test_file_grows(one: Scene) -> None:
    with busy(GROWS, one.tree / "log"):
        ended = one.push()
    assert_refused(one, ended, "log", "changed while")
    (one.tree / "log").unlink()
    one.converge()


def test_file_shrinks(one: Scene) -> None:
    (one.tree / "log").write_bytes(os.urandom(8_000_000))
    with busy(SHRINKS, one.tree / "log"):
        ended = one.push()
    assert_refused(one, ended, "log", "changed while")


SHORT_READS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
ssize_t read(int fd, void *to, size_t size) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "read");
  return real(fd, to, size > 1000 ? 1000 : size);
}
"""


def test_short_reads(one: Scene, tmp_path: Path) -> None:
    """A read may give less than was asked for, of files and of pipes; nothing is lost or sent twice."""
    (one.tree / "random").write_bytes(os.urandom(100_000))
    shim = compile_shim(SHORT_READS, tmp_path)
    done = one.push(env={"LD_PRELOAD": str(shim)})
    assert done.code == 0, done.stderr
    check_invariants(one, done)


FLICKERS = """
import os, sys
print("ready", flush=True)
while True:
    open(sys.argv[1], "w").close()
    os.unlink(sys.argv[1])
"""


def test_file_vanishes_and_appears(one: Scene) -> None:
    """Seen by the walk and gone when read, or new when it ends: refused. What never was in sight is no matter."""
    without = walk(one.tree)
    with busy(FLICKERS, one.tree / "flicker"):
        running = one.start()
        ended = running.finish()
    (one.tree / "flicker").unlink(missing_ok=True)
    with_it = {
        **without,
        b"flicker": ("f", 0o644, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    }
    if ended.code == 11:
        assert_refused(one, ended, "while")
        return
    assert ended.code == 0, ended.stderr
    assert walk(one.lab["h01"].root / "current") in (without, with_it)


@pytest.mark.parametrize("call", ["read", "openat"])
def test_read_error(one: Scene, call: str) -> None:
    """The disk here gives an error for one file: it is named, and nobody is contacted for nothing."""
    broken = one.tree / "index.html"
    ended = one.push(prefix=injecting(call, "error=EIO", more=["-P", str(broken)]))
    assert_refused(one, ended, "index.html", "Input/output error")


def test_unreadable(one: Scene, tmp_path: Path) -> None:
    """Every file and directory that may not be read is listed, in one go."""
    for name in ("secret-file", "other-file"):
        (one.tree / name).write_text("x")
    paths = [word for name in ("secret-file", "other-file") for word in ("-P", str(one.tree / name))]
    prefix = injecting("?access,faccessat,?faccessat2,openat", "error=EACCES", more=paths)
    ended = one.push(prefix=prefix)
    assert_refused(one, ended, "secret-file", "other-file")


def test_links(one: Scene) -> None:
    """Loops, links to nothing and to the outside: the first two are carried as they are, the last refused, all at once."""
    (one.tree / "loop").symlink_to("loop")
    (one.tree / "dangling").symlink_to("nowhere")
    (one.tree / "absolute").symlink_to("/etc/passwd")
    (one.tree / "escaping").symlink_to("../../outside")
    ended = one.push()
    assert_refused(one, ended, "absolute", "/etc/passwd", "escaping", "../../outside")
    assert "dangling" not in ended.stderr
    (one.tree / "absolute").unlink()
    (one.tree / "escaping").unlink()
    one.converge()
    assert str((one.lab["h01"].root / "current/loop").readlink()) == "loop"


def test_special_files(one: Scene) -> None:
    """Named, never opened (a FIFO would wait for ever), never left out in silence."""
    os.mkfifo(one.tree / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(one.tree, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{directory}/socket")  # a path that is short enough
        finally:
            os.close(directory)
    words = ["fifo: is a named pipe", "socket: is a socket"]
    if os.getuid() == 0:
        os.mknod(one.tree / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        words.append("device: is a character device")
    assert_refused(one, one.push(), *words)


def test_hard_links(one: Scene) -> None:
    """Arrive as files of their own with the same bytes."""
    (one.tree / "a").write_text("the same")
    os.link(one.tree / "a", one.tree / "b")
    one.converge()
    current = one.lab["h01"].root / "current"
    assert (current / "b").read_text() == "the same"
    assert (current / "a").stat().st_ino != (current / "b").stat().st_ino


def test_odd_names(one: Scene, tmp_path: Path) -> None:
    """Byte for byte, on two pushes; shown escaped; never run."""
    one.tree = make_nasty_tree(tmp_path / "nasty")
    one.converge()
    (one.tree / "one more $(touch pwned-too)").write_text("x")
    one.converge()
    assert not list(tmp_path.rglob("pwned*"))


def test_zero_files(one: Scene, tmp_path: Path) -> None:
    one.tree = tmp_path / "empty"
    one.tree.mkdir()
    assert_refused(one, one.push(), "empty", "--allow-empty")
    one.converge("--allow-empty")


def test_setuid_and_foreign_owner(one: Scene) -> None:
    """No setuid or setgid file travels; a file of somebody else arrives as the login user's, with its mode."""
    for name, mode in (("suid", 0o4755), ("sgid", 0o2755)):
        (one.tree / name).write_text("x")
        (one.tree / name).chmod(mode)
    assert_refused(one, one.push(), "suid: is setuid", "sgid: is set")
    (one.tree / "suid").unlink()
    (one.tree / "sgid").unlink()
    (one.tree / "open").write_text("x")
    (one.tree / "open").chmod(0o666)
    if os.getuid() == 0:
        os.chown(one.tree / "open", 1234, 1234)
    done = one.converge()
    assert "open" in done.stderr
    arrived = (one.lab["h01"].root / "current/open").stat()
    assert (arrived.st_mode & 0o7777, arrived.st_uid) == (0o666, os.getuid())


@pytest.mark.parametrize("what", ["no space", "read-only", "gone"])
def test_no_place_here(one: Scene, tmp_path: Path, what: str) -> None:
    """Nowhere to put the packed tree: told as this machine's fault, and nothing is left."""
    need_root()
    cache = tmp_path / "small"
    cache.mkdir()
    (one.tree / "random").write_bytes(os.urandom(600_000))
    env = {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(cache)}
    mount = f"mount -t tmpfs -o size=256k none {cache}"
    if what == "read-only":
        mount += f" && mount -o remount,ro {cache}"
    elif what == "gone":
        env = {"XDG_CACHE_HOME": "/proc/nowhere", "TMPDIR": "/proc/nowhere"}
        mount = "true"
    ended = one.push(prefix=in_namespace("--mount", mount), env=env)
    assert ended.code in {2, 11}, ended.stderr
    assert set(ended.states.values()) <= {"cancelled", "skipped"}
    assert str(cache) in ended.stderr or "nowhere" in ended.stderr
    check_invariants(one, ended)


def test_secrets_in_the_tree(one: Scene) -> None:
    """A warning with the list; the release is the user's affair."""
    (one.tree / ".env").write_text("PASSWORD=x")
    (one.tree / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    done = one.converge()
    assert "id_ed25519" in done.stderr


def test_two_packs_of_the_same_tree(one: Scene) -> None:
    """Other times make no other release."""
    first = one.converge()
    for path in one.tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
    again = one.push()
    assert (again.code, again.outcome, again.release, again.bytes_sent) == (0, "unchanged", first.release, 0)
    check_invariants(one, again)
