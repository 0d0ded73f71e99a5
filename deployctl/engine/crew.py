"""The parent's side of a set of workers: fork, send, hear, notice deaths, stop, reap.

Owns which workers there are; refuses to know what the messages mean. Single-threaded by design, so that a replacement
can be forked safely at any time.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import selectors
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deployctl.engine.child import Message, Servant
from deployctl.engine.worker import ForkError, Worker, fork_worker, signals_held

SILENCE_S = 30.0  # a worker that sent no heartbeat for so long, and does nothing, is stopped or frozen
GRACE_S = 2.0  # each step of a stop: message, TERM, KILL
LOOK_S = 0.05  # while workers end: a child of one can keep its sentinel from telling


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of a worker, or its death when `died` says how; a death comes after its last whole message."""

    worker: int
    message: Message = field(default_factory=dict)
    died: str | None = None


class Crew:
    """A set of forked workers that run one servant; used by one thread only.

    `name` is what `ps` shows, followed by the worker's number. Numbers are never used twice. A worker that sends no
    heartbeat for `silence_s` seconds and uses no processor time is killed.
    """

    def __init__(self, servant: Servant | None = None, *, name: str, silence_s: float = SILENCE_S) -> None:
        self.servant = servant  # can be given later, before the first that is hired for it
        self._name = name
        self._silence_s = silence_s
        self._workers: dict[int, Worker] = {}
        self._next = 1
        self._polled_at = time.monotonic()
        self._owner_pid = 0

    @property
    def workers(self) -> tuple[int, ...]:
        """The workers that can be given work; one that is being killed is none."""
        return tuple(number for number, worker in self._workers.items() if worker.doom is None)

    def __contains__(self, worker: int) -> bool:
        """Whether a worker's death has not been reported yet."""
        return worker in self._workers

    def pid(self, worker: int) -> int:
        return self._workers[worker].pid

    def hire(self, servant: Servant | None = None, role: str = "worker") -> int:
        """Fork one worker, for the crew's servant or another, and return its number.

        ForkError when the system gives no process or descriptor.
        """
        servant = servant or self.servant
        if servant is None:
            raise ValueError("nothing to serve")
        if self._owner_pid != os.getpid():
            self._own()
        number = self._next
        with signals_held():
            try:
                self._workers[number] = fork_worker(
                    servant,
                    f"{self._name}: {role} {number}",
                    name=f"{self._name}-{number}",
                    beat_s=self._silence_s / 6,
                )
            except OSError as error:
                raise ForkError(error) from error
            self._next += 1
        return number

    def _own(self) -> None:
        """The workers are this process's; one that a fork has copied belongs to the process it came from."""
        self._workers.clear()
        self._owner_pid = os.getpid()
        atexit.register(self._leave)

    def _leave(self) -> None:
        """Somebody let the program end without `stop`."""
        if self._owner_pid == os.getpid():
            self._kill_all()

    def hire_up_to(self, count: int) -> None:
        """Fork `count` workers, or as many as the system gives; ForkError when it gives none."""
        raise_descriptor_limit()
        for number in range(count):
            try:
                self.hire()
            except ForkError:
                if not number:
                    raise
                break

    def send(self, worker: int, message: Mapping[str, object]) -> None:
        """Queue one command; a worker that is already dead is ignored, since its death is reported by `poll`."""
        if handle := self._workers.get(worker):
            handle.unsent += json.dumps(message).encode() + b"\n"
            handle.flush()

    def rest(self, timeout_s: float, also: Iterable[int] = ()) -> None:
        """Wait until there is something to poll or a descriptor in `also` is readable, at most `timeout_s`."""
        with selectors.PollSelector() as selector:
            for descriptor in also:
                selector.register(descriptor, selectors.EVENT_READ)
            for worker in self._workers.values():
                selector.register(worker.results, selectors.EVENT_READ)
                selector.register(worker.sentinel, selectors.EVENT_READ)
                if worker.unsent:
                    selector.register(worker.inbox, selectors.EVENT_WRITE)
            selector.select(min(timeout_s, self._silence_s / 4))

    def poll(self, timeout_s: float, also: Iterable[int] = ()) -> list[Arrival]:
        """Wait until something arrives, a worker dies or a descriptor in `also` is readable, at most `timeout_s`."""
        self.rest(timeout_s, also)
        arrivals: list[Arrival] = []
        with signals_held():
            for number in tuple(self._workers):
                arrivals += self._hear(number)
            self._kill_silent()
        return arrivals

    def _hear(self, number: int) -> list[Arrival]:
        worker = self._workers[number]
        worker.flush()
        messages, ended = worker.read()
        if ended or worker.gone():
            messages += worker.read()[0]
            died = [Arrival(number, died=self._bury(number))]
        else:
            died = []
        return [*(Arrival(number, message) for message in messages), *died]

    def _bury(self, number: int) -> str:
        """Take a dead worker off; what it has started goes with it."""
        return self._workers.pop(number).bury(with_group=True)

    def kill(self, worker: int, why: str) -> None:
        """Kill one worker and what it started, now; `poll` reports the death as `why`."""
        if handle := self._workers.get(worker):
            handle.kill(why)

    def _kill_silent(self) -> None:
        now = time.monotonic()
        if now - self._polled_at > self._silence_s / 3:
            # We were stopped or busy ourselves (Ctrl-Z, a suspended laptop): nobody's silence counts.
            for worker in self._workers.values():
                worker.heard_at = now
        self._polled_at = now
        for worker in self._workers.values():
            if worker.silent(now, self._silence_s):
                worker.kill(f"stopped answering for {self._silence_s:g} s and was killed")

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End every worker: stop message, TERM, KILL, `grace_s` seconds each at most; all are reaped on return.

        Also on the way out of an exception, Ctrl-C during the stop included. What a worker started and left running
        in the background when it ended of itself is left alone.
        """
        if self._owner_pid != os.getpid():
            return
        try:
            for number in tuple(self._workers):
                self.send(number, {"command": "stop"})
            self._drain(grace_s, clean=True)
            for worker in self._workers.values():
                worker.terminate()
            self._drain(grace_s)
        finally:
            self._kill_all()
            atexit.unregister(self._leave)
            self._owner_pid = 0

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            worker.kill_group()
        self._drain(GRACE_S)
        while self._workers:  # in the kernel's hands, as on a disk that hangs: it dies there
            self._workers.popitem()[1].forget()

    def _drain(self, grace_s: float, *, clean: bool = False) -> None:
        """Let workers end; what they still say is read and dropped, so none blocks on a full pipe."""
        deadline = time.monotonic() + grace_s
        while self._workers and (left_s := deadline - time.monotonic()) > 0:
            self.rest(min(left_s, LOOK_S))
            for number, worker in tuple(self._workers.items()):
                worker.flush()
                worker.read()
                if worker.gone():
                    self._workers.pop(number).bury(with_group=not clean)


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard limit and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS reports a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
