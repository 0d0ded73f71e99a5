"""`WorkerPool`: the process manager on its own, for any task.

    from deployctl import WorkerPool

    with WorkerPool(workers=4) as pool:
        for number in (27, 6, 35):
            pool.submit("factorials", math.factorial, n=number)
        results = pool.wait("factorials")      # [{"code": 0, "message": "success", "data": 10888869450418352160768000000}, …]

Owns queueing by key, results in order and the meaning of a failure; the processes are the crew's.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from deployctl.engine.child import Line
from deployctl.engine.crew import Crew
from deployctl.errors import Code, TaskFailed, UsageError

Result = dict[str, Any]


class UnknownKeyError(UsageError, KeyError):
    """`wait` was asked for a key under which nothing was submitted, or whose results were collected already."""

    def __str__(self) -> str:
        return self.message


@dataclass(slots=True)
class _Batch:
    """Everything submitted under one key; `results` by the task's place in it."""

    size: int = 0
    results: dict[int, Result] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Work:
    key: str
    place: int
    task: str
    arguments: Mapping[str, Any]


class WorkerPool:
    """A pool of forked worker processes for any importable callable with JSON arguments; a context manager.

    `workers` processes are forked on entry, named `name` in `ps`. A worker that dies costs the task it held and is
    replaced. Use it from one thread, and enter it before you start others.
    """

    def __init__(self, workers: int = 4, name: str = "deployctl") -> None:
        if workers < 1:
            raise UsageError(f"a pool needs one worker or more, not {workers}")
        self._count = workers
        self._crew = Crew(serve_tasks, name=name)
        self._queue: deque[_Work] = deque()
        self._held: dict[int, _Work] = {}
        self._batches: dict[str, _Batch] = {}
        self._entered = False

    def __enter__(self) -> Self:
        self._crew.hire_up_to(self._count)
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self._queue.clear()
        self._crew.stop(grace_s=0.5)  # a task that still runs won't hear the message: TERM soon
        self._held.clear()
        self._batches.clear()

    def submit(self, key: str, task: Callable[..., Any], **arguments: Any) -> None:
        """Queue `task(**arguments)` under `key`; UsageError when it is not importable or the arguments not JSON."""
        if not self._entered:
            raise UsageError("the pool is closed: use it in a with statement")
        name = task_name(task)
        check_json(arguments)
        batch = self._batches.setdefault(key, _Batch())
        self._queue.append(_Work(key, batch.size, name, arguments))
        batch.size += 1
        self._pump(0)

    def wait(self, key: str, interrupt: bool = True) -> list[Result]:
        """Return the results under `key` in the order submitted, each `{"code", "message", "data"}`, and forget them.

        With `interrupt` the first failure raises TaskFailed, after the rest under this key was stopped for good:
        what was queued never runs, what was running is killed. UnknownKeyError for a key with nothing under it.
        """
        batch = self._batches.get(key)
        if batch is None:
            raise UnknownKeyError(f"nothing was submitted under {key!r}")
        while True:
            failed = next((result for result in batch.results.values() if result["code"]), None)
            if interrupt and failed is not None:
                self._abandon(key)
                raise TaskFailed(key, failed)
            if len(batch.results) == batch.size:
                del self._batches[key]
                return [batch.results[place] for place in range(batch.size)]
            self._pump(1.0)

    def _pump(self, timeout_s: float) -> None:
        """Give work to idle workers, then take in what has arrived."""
        for worker in self._crew.workers:
            if self._queue and worker not in self._held:
                work = self._held[worker] = self._queue.popleft()
                self._crew.send(worker, {"task": work.task, "arguments": dict(work.arguments)})
        for arrival in self._crew.poll(timeout_s):
            work_done = self._held.pop(arrival.worker, None)
            if arrival.died is not None:
                result = failure(Code.WORKER_DIED, f"worker {arrival.worker} {arrival.died}")
                self._replace()
            else:
                result = arrival.message
            if work_done is not None and (batch := self._batches.get(work_done.key)):
                batch.results[work_done.place] = result

    def _replace(self) -> None:
        """Fork a worker for a dead one; where the system has no room the pool goes on with what is left."""
        try:
            self._crew.hire()
        except OSError:
            if not self._crew.workers:
                raise

    def _abandon(self, key: str) -> None:
        """Stop everything under `key`; return once no worker is left that ran any of it."""
        del self._batches[key]
        self._queue = deque(work for work in self._queue if work.key != key)
        doomed = {worker for worker, work in self._held.items() if work.key == key}
        for worker in doomed:
            self._crew.kill(worker, "was stopped")
        while doomed & set(self._crew.workers):
            self._pump(1.0)


def task_name(task: Callable[..., Any]) -> str:
    """Return `module:qualname`; UsageError when that would not lead back to `task`."""
    name = f"{getattr(task, '__module__', None)}:{getattr(task, '__qualname__', None)}"
    try:
        found = find_task(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not task:
        raise UsageError(
            f"{task!r} is not an importable callable",
            hint="use a function of a module, not a lambda or method",
        )
    return name


def find_task(name: str) -> Callable[..., Any]:
    """Return the callable that `module:qualname` names; ImportError or AttributeError when there is none."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def check_json(arguments: Mapping[str, Any]) -> None:
    try:
        json.dumps(arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"arguments of a task must be JSON: {error}") from None


def failure(code: int, message: str) -> Result:
    return {"code": int(code), "message": message, "data": None}


def serve_tasks(line: Line) -> None:
    """Run one task at a time until told to stop."""
    while (work := line.receive()) is not None:
        result = run_task(work["task"], work["arguments"])
        try:
            line.send(result)
        except (TypeError, ValueError) as error:
            line.send(failure(Code.UNEXPECTED, f"{work['task']} returned what is not JSON: {error}"))


def run_task(name: str, arguments: Mapping[str, Any]) -> Result:
    """Call the task that `name` names and turn what it returns or raises into a result."""
    try:
        return {"code": 0, "message": "success", "data": find_task(name)(**arguments)}
    except BaseException as error:  # noqa: BLE001 - SystemExit of a task must not end the worker either
        code = getattr(error, "code", None)
        if isinstance(code, int) and not isinstance(code, bool) and code > 0:
            return failure(code, str(error) or type(error).__name__)
        return failure(
            Code.UNEXPECTED, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        )
