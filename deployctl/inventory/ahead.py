"""Reads the inventory in a process of its own while this one loads what it takes to connect.

pydantic with our models takes 0.2 s to load and is needed for nothing else; paramiko and the rest take as long. Owns that process;
whatever goes wrong in it, the inventory is read here, which says why.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator

from deployctl.inventory.config import Inventory

READER = "deployctl.inventory.load"
CHUNK_BYTES = 1 << 20
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def read_inventory(path: str, needed: Callable[[], object]) -> Inventory:
    """Return the inventory in the file; `needed` loads what comes next, meanwhile. InventoryError."""
    with _reading(path) as take:
        needed()
        inventory = take()
    return _load(path) if inventory is None else inventory


def _load(path: str) -> Inventory:
    from deployctl.inventory.load import load_inventory  # noqa: PLC0415 - what this is about

    return load_inventory(path)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[Callable[[], Inventory | None]]:
    """Fork the process, and see to its end; what it found is None where there is no process or it could not read the file."""
    pid = results = 0
    if READER not in sys.modules:
        with contextlib.suppress(OSError):
            results, end = os.pipe()
            # What hears these is ours, and not for that process.
            held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            try:
                pid = os.fork()
                if pid == 0:
                    _read_and_tell(path, end, held)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)
                os.close(end)
    try:
        yield lambda: _take(results) if pid else None
    finally:
        if results:
            os.close(results)
        if pid:
            with contextlib.suppress(OSError):  # it may have been reaped for us
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _read_and_tell(path: str, end: int, held: Iterable[int]) -> None:
    """The process: end without a word where the inventory is not as it should be."""
    try:
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        data = pickle.dumps(_load(path))
        with os.fdopen(end, "wb", closefd=False) as pipe:
            pipe.write(len(data).to_bytes(8, "big") + data)
    finally:
        os._exit(0)


def _take(results: int) -> Inventory | None:
    data = b""
    while chunk := os.read(results, CHUNK_BYTES):
        data += chunk
    if len(data) < 8 or int.from_bytes(data[:8], "big") != len(data) - 8:
        return None
    found: Inventory = pickle.loads(data[8:])  # noqa: S301 - our own process wrote it
    return found
