"""One worker as its parent sees it: how it is forked, what goes through its two pipes, how it died.

Owns a process and its descriptors; refuses to know who else works. Single-threaded by design, as the crew is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import multiprocessing.popen_fork  # now, not at the first fork, when a descriptor or a right may be missing
import multiprocessing.util  # its exit handler waits for every child, and must be in place before the crew's
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deployctl.engine.child import Message, Servant, child_main
from deployctl.errors import DeployctlError, Exit

READ_BYTES = 1 << 18
REAP_S = 2.0
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# The parent's ends of the pipes to every worker of this process, whichever crew has it. A worker closes them first of
# all: as long as it held one, another worker would not see the parent die.
_parent_ends: set[int] = set()


class ForkError(DeployctlError, OSError):
    """The system gives no process or no descriptor for even one worker."""

    exit_code = Exit.ABORTED

    def __init__(self, cause: OSError) -> None:
        limit = (
            "open files, see `ulimit -n`"
            if cause.errno in {errno.EMFILE, errno.ENFILE}
            else "processes or memory, see `ulimit -u`"
        )
        super().__init__(
            f"cannot fork a worker: {cause.strerror or cause}",
            hint=f"this machine is out of {limit}; close other programs, or ask for fewer workers",
        )
        self.errno = cause.errno

    def __str__(self) -> str:
        return self.message


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C, TERM and HUP wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Worker:
    """One forked process and its two pipes. Made by `fork_worker`."""

    def __init__(self, process: BaseProcess, inbox: int, results: int) -> None:
        self._process = process
        self._ends = {inbox, results, *_kept_by_multiprocessing(process)}
        _parent_ends.update(self._ends)
        self._parts: list[bytes] = []  # of a line whose end has not come yet
        self._cpu_s: float | None = None  # seen half-way through a silence
        self.pid = process.pid or 0
        self.inbox = inbox
        self.results = results
        self.sentinel = process.sentinel
        self.unsent = bytearray()
        self.heard_at = time.monotonic()
        self.doom: str | None = None  # why we killed it, or what it said before it died

    def flush(self) -> None:
        """Write what the pipe takes; the rest goes out with the next poll, so a frozen worker can't block us."""
        try:
            while self.unsent:
                del self.unsent[: os.write(self.inbox, self.unsent)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.unsent.clear()  # it is dead; its sentinel says so

    def read(self) -> tuple[list[Message], bool]:
        """Return whole messages, heartbeats left out, and whether the pipe has ended; half a line at the end is dropped."""
        messages: list[Message] = []
        while True:
            try:
                data = os.read(self.results, READ_BYTES)
            except BlockingIOError:
                return messages, False
            if not data:
                return messages, True
            self.heard_at = time.monotonic()
            self._cpu_s = None
            head, newline, rest = data.rpartition(b"\n")
            if not newline:
                self._parts.append(data)
                continue
            lines = b"".join([*self._parts, head]).split(b"\n")
            self._parts = [rest]
            for line in lines:
                messages += self._understand(line)

    def _understand(self, line: bytes) -> list[Message]:
        try:
            message: Message = json.loads(line)
            kind = message.get("event")
        except (ValueError, RecursionError, AttributeError):
            self.kill("sent what is not JSON and was killed")
            return []
        if kind == "crashed":
            self.doom = self.doom or f"crashed: {message.get('message')}"
        return [] if kind == "alive" else [message]

    def gone(self) -> bool:
        """Whether the process has ended.

        Both are asked: a child that a task forked keeps the sentinel open, and a program that ignores SIGCHLD
        never learns a status.
        """
        if self._process.exitcode is not None:
            return True
        poll = select.poll()
        poll.register(self.sentinel, select.POLLIN)
        return bool(poll.poll(0))

    def silent(self, now: float, limit_s: float) -> bool:
        """Whether it said nothing for `limit_s` and does nothing either.

        A task deep in one long call of C code keeps the heartbeat from running; where the system tells (Linux), that it
        computes, or waits for a processor, counts as a sign of life.
        """
        silence_s = now - self.heard_at
        if silence_s <= limit_s / 2:
            return False
        runs, used_s = look_at(self.pid)
        if self._cpu_s is None:
            self._cpu_s = used_s
        if silence_s <= limit_s:
            return False
        if runs or used_s > self._cpu_s:
            self.heard_at, self._cpu_s = now, used_s
            return False
        return True

    def kill(self, why: str) -> None:
        """Kill it now, with everything it has started."""
        if self.doom is None:
            self.doom = why
            self.kill_group()

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def bury(self, *, with_group: bool) -> str:
        """Reap the process, close its pipes, and return how it died; `with_group` ends what it has started."""
        if not self._reaped():
            # Its pipe has ended but it lives: nothing it does can be heard any more.
            self.kill("closed its line to the parent and was killed")
            self._reaped()
        exitcode = self._process.exitcode
        if with_group:
            self.kill_group()
        self.forget()
        return self.doom or cause(exitcode)

    def _reaped(self) -> bool:
        """Wait until it is reaped, here or elsewhere; between the end of its pipes and that lie microseconds."""
        deadline = time.monotonic() + REAP_S
        while self._process.exitcode is None and exists(self.pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0002)
        return True

    def forget(self) -> None:
        """Close what belongs to it here."""
        _parent_ends.difference_update(self._ends)
        os.close(self.inbox)
        os.close(self.results)
        with contextlib.suppress(ValueError):  # somebody else has reaped it
            self._process.close()


def fork_worker(servant: Servant, title: str, *, name: str, beat_s: float) -> Worker:
    """Fork one worker that runs `servant` and is `title` in `ps`; OSError when the system refuses."""
    _fill_standard_descriptors()
    with contextlib.ExitStack() as on_failure:
        inbox_r, inbox_w = _pipe(on_failure)
        results_r, results_w = _pipe(on_failure)
        process = multiprocessing.get_context("fork").Process(
            target=child_main,
            args=(servant, title, inbox_r, results_w),
            kwargs={
                "cut": lambda: _close_parent_ends(inbox_w, results_r),
                "parent_pid": os.getpid(),
                "beat_s": beat_s,
            },
            name=name,
            daemon=False,  # a daemon could have no workers of its own: no pool, and no push, in a task
        )
        with signals_held():
            _start(process)
            if process.pid:
                with contextlib.suppress(OSError):  # it did it already
                    os.setpgid(process.pid, process.pid)
            on_failure.pop_all()
            os.close(inbox_r)
            os.close(results_w)
            os.set_blocking(inbox_w, False)
            os.set_blocking(results_r, False)
            return Worker(process, inbox_w, results_r)


def _close_parent_ends(*new: int) -> None:
    """In a worker: those of all workers before it, and its own."""
    for descriptor in (*_parent_ends, *new):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _parent_ends.clear()


def _pipe(on_failure: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        on_failure.callback(os.close, end)
    return ends


def _start(process: BaseProcess) -> None:
    """Start it without the flush of our streams that multiprocessing does first, when one of them is broken."""
    with contextlib.ExitStack() as muted:
        if not _flushes(sys.stdout):
            muted.enter_context(contextlib.redirect_stdout(None))
        if not _flushes(sys.stderr):
            muted.enter_context(contextlib.redirect_stderr(None))
        process.start()


def _flushes(stream: Any) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _fill_standard_descriptors() -> None:
    """Keep 0, 1 and 2 from becoming a pipe of ours: a worker points them elsewhere."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:  # those that were closed stay open to nothing
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def _kept_by_multiprocessing(process: BaseProcess) -> set[int]:
    """Both descriptors that multiprocessing keeps open here for one child; only one of them is public."""
    finalizer = getattr(getattr(process, "_popen", None), "finalizer", None)
    kept = getattr(finalizer, "_args", None) or ()
    return {process.sentinel, *(fd for fd in kept if isinstance(fd, int))}


def cause(exitcode: int | None) -> str:
    """Say how a process ended whose `exitcode` is multiprocessing's."""
    if exitcode is None:
        return "ended, and its status was taken by another part of this program"
    if exitcode >= 0:
        return f"exited with status {exitcode} without a result"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = " (out of memory?)" if -exitcode == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def look_at(pid: int) -> tuple[bool, float]:
    """Return whether a process runs or could run, and the processor time it has used; False and 0 where nothing tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return False, 0.0
