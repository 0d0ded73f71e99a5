"""What happens inside a worker: cut the ties to the parent's state, then serve until told to stop.

Owns signals, inherited descriptors, heartbeats and the worker's end of the two pipes; refuses to know what is
served.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from setproctitle import setproctitle

Message = dict[str, Any]
Servant = Callable[["Line"], None]
"""Runs in a worker's main thread from fork to end; takes commands from the line and sends statuses to it."""

PR_SET_PDEATHSIG = 1


class Line:
    """A worker's line to its parent; `send` and `receive` may be called from any thread."""

    def __init__(self, inbox: int, outbox: int, *, beat_s: float) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._beat_s = beat_s
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.stopping = threading.Event()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one JSON object; TypeError or ValueError when it is not JSON, before a byte is written."""
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._outbox, view) :]
            except OSError:
                os._exit(1)  # nobody is left to hear anything

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """Return the next command, or None once the parent said stop; queue.Empty when `timeout_s` passed."""
        return self._queue.get(timeout=timeout_s)

    def listen(self) -> None:
        """Start the reader and the heartbeat."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _read(self) -> None:
        with os.fdopen(self._inbox, "rb", closefd=False) as lines:
            for raw in lines:
                message: Message = json.loads(raw)
                if message.get("command") == "stop":
                    break
                self._queue.put(message)
            else:
                os._exit(1)  # end of file without a stop: the parent is dead
        self.stopping.set()
        self._queue.put(None)

    def _beat(self) -> None:
        while not self.stopping.wait(self._beat_s):
            self.send({"event": "alive"})


def child_main(
    servant: Servant,
    title: str,
    inbox: int,
    outbox: int,
    *,
    close: Iterable[int],
    parent_pid: int,
    beat_s: float,
) -> None:
    """Be a worker: run `servant` and leave without running any of the parent's exit handlers."""
    status = 1
    try:
        _die_with_parent(parent_pid)
        for descriptor in close:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        line = Line(inbox, outbox, beat_s=beat_s)
        _own_signals(line)
        random.seed()
        setproctitle(title)
        line.listen()
        try:
            servant(line)
            status = 0
        except Exception as error:  # noqa: BLE001 - the last place that can tell the parent
            line.send({"event": "crashed", "message": _describe(error), "traceback": traceback.format_exc()})
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _die_with_parent(parent_pid: int) -> None:
    """Linux kills us with the parent; elsewhere the end of file on the inbox does, a little later."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above took effect
        os._exit(1)


def _own_signals(line: Line) -> None:
    """Ctrl-C and a group's TERM reach the parent too, which decides; only a TERM after its stop ends us."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)

    def on_term(_number: int, _frame: object) -> None:
        if line.stopping.is_set():
            os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
