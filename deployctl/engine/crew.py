"""The parent's side of a set of workers: fork, send, hear, notice deaths, stop, reap.

Owns processes and pipes; refuses to know what the messages mean. Single-threaded by design, so that a replacement
can be forked safely at any time.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_any
from multiprocessing.process import BaseProcess
from typing import Any

from deployctl.engine.child import Message, Servant, child_main

READ_BYTES = 1 << 18
SILENCE_S = 30.0  # a worker that sent no heartbeat for so long is stopped or frozen
GRACE_S = 2.0  # each step of a stop: message, TERM, KILL


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of a worker, or its death when `died` says how; a death comes after its last whole message."""

    worker: int
    message: Message = field(default_factory=dict)
    died: str | None = None


class _Worker:
    """One forked process and its two pipes, seen from the parent."""

    def __init__(self, process: BaseProcess, inbox: int, results: int) -> None:
        self.process = process
        self.inbox = inbox
        self.results = results
        self.unread = bytearray()
        self.unsent = bytearray()
        self.heard_at = time.monotonic()
        self.doom: str | None = None  # why we killed it

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
        """Return whole messages and whether the pipe has ended; half a line at the end is dropped."""
        ended = False
        while True:
            try:
                data = os.read(self.results, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                ended = True
                break
            self.unread += data
        *lines, rest = self.unread.split(b"\n")
        self.unread = bytearray(rest)
        return [json.loads(raw) for raw in lines], ended

    def close(self) -> None:
        os.close(self.inbox)
        os.close(self.results)
        self.process.close()


class Crew:
    """A set of forked workers that run one servant; used by one thread only.

    `name` is what `ps` shows, followed by the worker's number. Numbers are never used twice.
    """

    def __init__(self, servant: Servant, *, name: str, silence_s: float = SILENCE_S) -> None:
        self._servant = servant
        self._name = name
        self._silence_s = silence_s
        self._workers: dict[int, _Worker] = {}
        self._next = 1
        self._polled_at = time.monotonic()
        self._context = multiprocessing.get_context("fork")

    @property
    def workers(self) -> tuple[int, ...]:
        return tuple(self._workers)

    def pid(self, worker: int) -> int:
        pid = self._workers[worker].process.pid
        if pid is None:
            raise RuntimeError(f"worker {worker} was never started")
        return pid

    def hire(self, servant: Servant | None = None, role: str = "worker") -> int:
        """Fork one worker, for the crew's servant or another, and return its number.

        OSError when the system gives no process or descriptor.
        """
        number = self._next
        inbox_r, inbox_w = os.pipe()
        results_r, results_w = os.pipe()
        ours = [fd for worker in self._workers.values() for fd in (worker.inbox, worker.results)]
        process = self._context.Process(
            target=child_main,
            args=(servant or self._servant, f"{self._name}: {role} {number}", inbox_r, results_w),
            kwargs={
                "close": (*ours, inbox_w, results_r),
                "parent_pid": os.getpid(),
                "beat_s": self._silence_s / 6,
            },
            name=f"{self._name}-{number}",
            daemon=True,
        )
        try:
            _start(process)
        except BaseException:
            os.close(inbox_w)
            os.close(results_r)
            raise
        finally:
            os.close(inbox_r)
            os.close(results_w)
        os.set_blocking(inbox_w, False)
        os.set_blocking(results_r, False)
        self._workers[number] = _Worker(process, inbox_w, results_r)
        self._next += 1
        return number

    def hire_up_to(self, count: int) -> None:
        """Fork `count` workers, or as many as the system gives; OSError when it gives none."""
        raise_descriptor_limit()
        for _ in range(count):
            try:
                self.hire()
            except OSError:
                if not self._workers:
                    raise
                break

    def send(self, worker: int, message: Mapping[str, Any]) -> None:
        """Queue one command; a worker that is already dead is ignored, since its death is reported by `poll`."""
        if handle := self._workers.get(worker):
            handle.unsent += json.dumps(message).encode() + b"\n"
            handle.flush()

    def poll(self, timeout_s: float, also: Iterable[int] = ()) -> list[Arrival]:
        """Wait until something arrives, a worker dies or a descriptor in `also` is readable, at most `timeout_s`."""
        sources: dict[object, int] = {}
        for number, worker in self._workers.items():
            worker.flush()
            sources[worker.results] = number
            sources[worker.process.sentinel] = number
        backlog = any(worker.unsent for worker in self._workers.values())
        ready = wait_any([*sources, *also], min(timeout_s, 0.05) if backlog else timeout_s)  # type: ignore[list-item]
        arrivals: list[Arrival] = []
        for number in dict.fromkeys(sources[source] for source in ready if source in sources):
            arrivals += self._hear(number)
        self._kill_silent()
        return arrivals

    def _hear(self, number: int) -> list[Arrival]:
        worker = self._workers[number]
        messages, ended = worker.read()
        worker.heard_at = time.monotonic()
        arrivals = [Arrival(number, message) for message in messages if message.get("event") != "alive"]
        if ended or wait_any([worker.process.sentinel], 0):
            messages, _ = worker.read()
            arrivals += [Arrival(number, message) for message in messages if message.get("event") != "alive"]
            arrivals.append(Arrival(number, died=self._bury(number)))
        return arrivals

    def _bury(self, number: int) -> str:
        worker = self._workers.pop(number)
        worker.process.join(GRACE_S)
        if (
            worker.process.exitcode is None
        ):  # its pipe ended but it lives: nothing it does can be heard any more
            worker.process.kill()
            worker.process.join()
        text = worker.doom or _cause(worker.process.exitcode)
        worker.close()
        return text

    def kill(self, worker: int, why: str) -> None:
        """Kill one worker now; `poll` reports the death as `why`."""
        if (handle := self._workers.get(worker)) and handle.doom is None:
            handle.doom = why
            handle.process.kill()

    def _kill_silent(self) -> None:
        now = time.monotonic()
        if now - self._polled_at > self._silence_s / 3:
            # We were stopped or busy ourselves (Ctrl-Z, a suspended laptop): nobody's silence counts.
            for worker in self._workers.values():
                worker.heard_at = now
        self._polled_at = now
        for number, worker in self._workers.items():
            if now - worker.heard_at > self._silence_s:
                self.kill(number, f"stopped answering for {self._silence_s:.0f} s and was killed")

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End every worker: stop message, TERM, KILL, `grace_s` seconds each at most; all are reaped on return."""
        for number in self.workers:
            self.send(number, {"command": "stop"})
        for step in (None, signal.SIGTERM, signal.SIGKILL):
            if step is not None:
                for worker in self._workers.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.process.pid or 0, step)
            self._drain(time.monotonic() + grace_s if step is not signal.SIGKILL else None)
            if not self._workers:
                return

    def _drain(self, deadline: float | None) -> None:
        """Let workers end; what they still say is read and dropped, so none blocks on a full pipe."""
        while self._workers:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            sentinels = {worker.process.sentinel: number for number, worker in self._workers.items()}
            ready = wait_any(list(sentinels), 0.05 if left_s is None else min(left_s, 0.05))
            for worker in self._workers.values():
                worker.flush()
                worker.read()
            for sentinel in ready:
                self._bury(sentinels[sentinel])  # type: ignore[index]


def _start(process: BaseProcess) -> None:
    try:
        process.start()
    except OSError:
        # multiprocessing flushes our streams before it forks; a broken one must not stop the run.
        if _flushes(sys.stdout) and _flushes(sys.stderr):
            raise
        process.start()


def _flushes(stream: Any) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory?)" if -exitcode == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"
    return f"exited with status {exitcode} without a result"


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard limit and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS reports a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
