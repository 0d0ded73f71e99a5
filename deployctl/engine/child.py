"""What happens inside a worker: cut the ties to the parent's state, then serve until told to stop.

Owns signals, inherited descriptors, heartbeats and the worker's end of the two pipes; refuses to know what is
served.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import queue
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from setproctitle import setproctitle

Message = dict[str, Any]
Servant = Callable[["Line"], None]
"""Runs in a worker's main thread from fork to end; takes commands from the line and sends statuses to it."""

PR_SET_PDEATHSIG = 1
# Ctrl-C, a closed terminal and output to a terminal that is not ours are the parent's affair.
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU)


class Line:
    """A worker's line to its parent; `send` and `receive` may be called from any thread."""

    def __init__(self, inbox: int, outbox: int, *, parent_pid: int, beat_s: float) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._parent_pid = parent_pid
        self._beat_s = beat_s
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.stopping = threading.Event()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one JSON object; TypeError, ValueError or RecursionError when it is not JSON, before a byte is written."""
        data = json.dumps(message, allow_nan=False).encode() + b"\n"
        with self._lock:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._outbox, view) :]
            except OSError:
                end_with_group()  # nobody is left to hear anything

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """Return the next command, or None once the parent said stop; queue.Empty when `timeout_s` passed."""
        return self._queue.get(timeout=timeout_s)

    def listen(self) -> None:
        """Start the reader and the heartbeat."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def end_if_orphaned(self) -> None:
        if os.getppid() != self._parent_pid:
            end_with_group()

    def _read(self) -> None:
        try:
            with os.fdopen(self._inbox, "rb", closefd=False) as lines:
                for raw in lines:
                    message: Message = json.loads(raw)
                    if message.get("command") == "stop":
                        break
                    self._queue.put(message)
                else:
                    end_with_group()  # end of file without a stop: the parent is dead
        except OSError:
            end_with_group()  # a task closed what it did not open
        self.stopping.set()
        self._queue.put(None)

    def _beat(self) -> None:
        while not self.stopping.wait(self._beat_s):
            self.end_if_orphaned()
            self.send({"event": "alive"})


def child_main(
    servant: Servant,
    title: str,
    inbox: int,
    outbox: int,
    *,
    cut: Callable[[], None],
    parent_pid: int,
    beat_s: float,
) -> None:
    """Be a worker: run `servant` and leave without running any of the parent's exit handlers.

    `cut` closes what belongs to the parent. The parent holds the signals back while it forks, so that none of its handlers runs in here.
    """
    status = 1
    try:
        with contextlib.suppress(OSError):  # the parent did it already
            os.setpgid(0, 0)
        cut()
        _leave_stdin()
        gc.freeze()  # what the parent has made is never garbage here, and to look at it would copy its pages
        line = Line(inbox, outbox, parent_pid=parent_pid, beat_s=beat_s)
        _own_signals(line)
        _die_with_parent(line)
        random.seed()
        setproctitle(title)
        try:
            line.listen()
            servant(line)
            status = 0
        except Exception as error:  # noqa: BLE001 - the last place that can tell the parent
            said = {
                "message": describe(error),
                "starved": starved(error),
                "traceback": traceback.format_exc(),
            }
            line.send({"event": "crashed", **said})
    finally:
        flush_streams()
        os._exit(status)


def end_with_group() -> NoReturn:
    """Leave at once, and take along everything that was started in here."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def flush_streams() -> None:
    """Write out what was printed; a stream that is closed or broken is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def starved(error: BaseException) -> bool:
    """Whether it means that this machine gave no memory, or no thread: no defect of ours, and nobody's but its own."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOMEM, errno.EAGAIN}
    no_thread = isinstance(error, RuntimeError) and str(error) == "can't start new thread"
    return isinstance(error, MemoryError) or no_thread


def describe(error: BaseException) -> str:
    """Return `Type: text`, whatever the error's own `__str__` does."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - foreign code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _leave_stdin() -> None:
    """What a task starts must not eat the parent's input."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)


def _die_with_parent(line: Line) -> None:
    """See to it that the parent's death ends this process and what it started.

    The end of file on the inbox tells at once, unless a process that the parent forked by other means holds a copy of
    its end. Hence on Linux a signal as well: CONT, since it reaches a worker that is stopped, and leaves the time to
    take the group along, as KILL would not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
    line.end_if_orphaned()  # it died before the line above took effect


def _own_signals(line: Line) -> None:
    """The parent decides when a worker ends: only a TERM after its stop does."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)

    def on_term(_number: int, _frame: object) -> None:
        if line.stopping.is_set():
            os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGCONT, lambda _number, _frame: line.end_if_orphaned())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
