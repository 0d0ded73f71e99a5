"""What only root can do to this machine: network and mount namespaces of one test, injected system calls."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def need_root(*programs: str) -> None:
    """Skip, with the reason that test_index.py knows, where the kernel will not be broken for us."""
    if os.getuid() != 0:
        pytest.skip("needs root: namespaces, mounts")
    for program in programs:
        need(program)


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@contextmanager
def own_network() -> Iterator[None]:
    """A network namespace for this process and whatever it starts from here on, with nothing but a loopback."""
    need_root("ip")
    with Path("/proc/self/ns/net").open() as home:
        if _LIBC.unshare(CLONE_NEWNET) != 0:
            pytest.skip("network namespaces are not allowed here")
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            assert _LIBC.setns(home.fileno(), CLONE_NEWNET) == 0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


def in_namespace(flag: str, setup: str) -> list[str]:
    """Words to put before a command that is to run in a namespace of its own (`--net`, `--mount`), behind sh text."""
    need_root("unshare")
    script = f'{setup} || exit 99; exec "$@"'
    return ["unshare", flag, "sh", "-c", script, "sh"]


def injecting(call: str, action: str, *, more: Sequence[str] = ()) -> list[str]:
    """Words to put before a command one of whose system calls is to fail: K7."""
    return [
        need("strace"),
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:{action}",
        *more,
    ]


def compile_shim(source: str, directory: Path) -> Path:
    """Make a library for LD_PRELOAD: K9."""
    compiler = need("cc")
    text, library = directory / "shim.c", directory / "shim.so"
    text.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, text, "-ldl"], check=True, timeout=60)
    return library
