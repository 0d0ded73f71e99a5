"""`WorkerPool`: the process manager on its own, for any task.

    import os.path

    from deployctl import TaskFailed, WorkerPool

    with WorkerPool(workers=2, name="sizes") as pool:
        for path in ("/etc/passwd", "/etc/group"):
            pool.submit("sizes", os.path.getsize, filename=path)
        results = pool.wait("sizes")  # [{"code": 0, "message": "success", "data": 1234}, …], in this order

        pool.submit("missing", os.path.getsize, filename="/no/such/file")
        try:
            pool.wait("missing")
        except TaskFailed as error:
            error.result  # {"code": 61, "message": "FileNotFoundError: …", "data": None}

Owns queueing by key, results in order and the meaning of a failure; the processes are the crew's.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from deployctl.engine.child import Line, describe, flush_streams
from deployctl.engine.crew import SILENCE_S, Crew
from deployctl.engine.worker import ForkError, signals_held
from deployctl.errors import Code, DeployctlError, TaskFailed, UsageError

Result = dict[str, Any]

TURN_S = 1.0
GRACE_S = 0.5  # a task that still runs when the pool ends won't hear the message: TERM soon
HANDED_MOST = 3  # so many workers may die before they begin a task; then it is taken for the cause


class UnknownKeyError(UsageError, KeyError):
    """`wait` was asked for a key under which nothing was submitted, or whose results were collected already."""

    def __str__(self) -> str:
        return self.message


@dataclass(slots=True)
class _Batch:
    """Everything submitted under one key; `results` by the task's place in it."""

    size: int = 0
    results: dict[int, Result] = field(default_factory=dict)


@dataclass(slots=True)
class _Work:
    """One task: where its result belongs, what to call, and how far it got."""

    key: str
    place: int
    task: str
    arguments: Mapping[str, Any]
    handed: int = 0
    begun: bool = False


class WorkerPool:
    """A pool of forked worker processes for any importable callable with JSON arguments; a context manager.

    `workers` processes are forked on entry, named `name` in `ps`; where the system gives fewer, the pool works with those,
    and ForkError says that there is none. A worker that dies costs the task it had begun and is replaced; so is one that
    is silent for `silence_s` seconds without using the processor, as a stopped one. Use it from one thread of the process
    that entered it, and enter it before other threads start. On leaving, what was not waited for is stopped.
    """

    def __init__(self, workers: int = 4, name: str = "deployctl", *, silence_s: float = SILENCE_S) -> None:
        if workers < 1:
            raise UsageError(f"a pool needs one worker or more, not {workers}")
        self._count = workers
        self._crew = Crew(serve_tasks, name=name, silence_s=silence_s)
        self._queue: deque[_Work] = deque()
        self._held: dict[int, _Work] = {}
        self._batches: dict[str, _Batch] = {}
        self._unfit: dict[int, str] = {}
        self._owner_pid: int | None = None

    def __enter__(self) -> Self:
        if self._owner_pid is not None:
            raise UsageError("the pool is open already", hint="enter a second WorkerPool instead")
        try:
            self._crew.hire_up_to(self._count)
        except BaseException:
            self._crew.stop(GRACE_S)
            raise
        self._owner_pid = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner_pid != os.getpid():
            return  # a fork of ours leaves the block: the workers are not its own
        self._owner_pid = None
        self._queue.clear()
        self._held.clear()
        self._batches.clear()
        self._crew.stop(GRACE_S)

    def submit(self, key: str, task: Callable[..., Any], **arguments: Any) -> None:
        """Queue `task(**arguments)` under `key`; UsageError when it is not importable or the arguments not JSON.

        Arguments and results arrive as JSON has them: a tuple as a list, the keys of a dict as text.
        """
        self._refuse_if_not_ours()
        name = task_name(task)
        check_json(arguments)
        with signals_held():
            batch = self._batches.setdefault(key, _Batch())
            self._queue.append(_Work(key, batch.size, name, arguments))
            batch.size += 1
        self._pump()

    def wait(self, key: str, interrupt: bool = True) -> list[Result]:
        """Return the results under `key` in the order submitted, each `{"code", "message", "data"}`, and forget them.

        With `interrupt` the first failure raises TaskFailed, after the rest under this key was stopped for good:
        what was queued never runs, what was running is killed. UnknownKeyError for a key with nothing under it.
        """
        self._refuse_if_not_ours()
        batch = self._batches.get(key)
        if batch is None:
            raise UnknownKeyError(f"nothing was submitted under {key!r}")
        while True:
            self._take_in()
            failed = next((result for result in batch.results.values() if result["code"]), None)
            if interrupt and failed is not None:
                self._abandon(key)
                raise TaskFailed(key, failed)
            if len(batch.results) == batch.size:
                del self._batches[key]
                return [batch.results[place] for place in range(batch.size)]
            self._feed()  # only now: after a failure nothing more may begin
            self._crew.rest(TURN_S)

    def _refuse_if_not_ours(self) -> None:
        if self._owner_pid is None:
            raise UsageError("the pool is closed", hint="use it in a with statement")
        if self._owner_pid != os.getpid():
            raise UsageError(
                "the pool belongs to another process",
                hint="a task can't submit to the pool that runs it: return what is to be done next, or open another pool",
            )

    def _pump(self) -> None:
        """Take in what has arrived, deaths included, then give work to idle workers."""
        self._take_in()
        self._feed()

    def _feed(self) -> None:
        with signals_held():
            for worker in self._crew.workers:
                if self._queue and worker not in self._held:
                    self._hand_out(worker, self._queue.popleft())

    def _hand_out(self, worker: int, work: _Work) -> None:
        self._held[worker] = work
        work.handed += 1
        self._crew.send(worker, {"task": work.task, "arguments": dict(work.arguments)})

    def _take_in(self) -> None:
        """Record what has arrived and replace the dead; a signal that raises loses nothing of it."""
        with signals_held():
            deaths = 0
            for arrival in self._crew.poll(0):
                event, work = arrival.message.get("event"), self._held.get(arrival.worker)
                if arrival.died is not None:
                    deaths += self._lose(arrival.worker, arrival.died)
                elif event == "crashed":
                    self._unfit[arrival.worker] = arrival.message["message"]
                elif event == "begun" and work:
                    work.begun = True
                elif event == "done" and work:
                    del self._held[arrival.worker]
                    self._record(work, arrival.message["result"])
            for _ in range(deaths):
                self._replace()

    def _lose(self, worker: int, how: str) -> bool:
        """Take a worker's death in and return whether to replace it.

        The task it had begun has failed; one that it never began goes to another. A worker that could not even start,
        as where the system gives no thread, is not replaced.
        """
        unfit = self._unfit.pop(worker, None)
        if work := self._held.pop(worker, None):
            if work.begun or (work.handed >= HANDED_MOST and not unfit):
                self._record(work, failure(Code.WORKER_DIED, f"worker {worker} {how}"))
            elif work.key in self._batches:
                self._queue.appendleft(work)
        if unfit and not self._crew.workers:
            raise DeployctlError(
                f"no worker can run here: {unfit}", hint="see `ulimit -a`, and ask for fewer workers"
            )
        return unfit is None

    def _record(self, work: _Work, result: Result) -> None:
        if batch := self._batches.get(work.key):
            batch.results[work.place] = result

    def _replace(self) -> None:
        """Fork a worker for a dead one; where the system has no room the pool goes on with what is left."""
        try:
            self._crew.hire()
        except ForkError:
            if not self._crew.workers:
                raise

    def _abandon(self, key: str) -> None:
        """Stop everything under `key`; return once no worker is left that ran any of it."""
        with signals_held():
            del self._batches[key]
            self._queue = deque(work for work in self._queue if work.key != key)
            doomed = [worker for worker, work in self._held.items() if work.key == key]
            for worker in doomed:
                self._crew.kill(worker, "was stopped")
        while any(worker in self._crew for worker in doomed):
            self._crew.rest(TURN_S)
            self._pump()


def task_name(task: Callable[..., Any]) -> str:
    """Return `module:qualname`; UsageError when that would not lead back to `task`."""
    name = f"{getattr(task, '__module__', None)}:{getattr(task, '__qualname__', None)}"
    try:
        found = find_task(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not task or not callable(task):
        raise UsageError(
            f"{task!r} is not an importable callable",
            hint="use a function of a module, not a lambda, a method or a function made inside another",
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
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"arguments of a task must be JSON: {error}") from None


def failure(code: int, message: str) -> Result:
    return {"code": int(code), "message": message, "data": None}


def serve_tasks(line: Line) -> None:
    """Run one task at a time until told to stop."""
    pid = os.getpid()
    while (work := line.receive()) is not None:
        line.send({"event": "begun"})
        result = run_task(work["task"], work["arguments"])
        if os.getpid() != pid:
            os._exit(0)  # a process that the task forked came back from it as well
        flush_streams()  # what a task prints is out before its result
        try:
            line.send({"event": "done", "result": result})
        except (TypeError, ValueError, RecursionError) as error:
            said = failure(Code.UNEXPECTED, f"{work['task']} returned what is not JSON: {error}")
            line.send({"event": "done", "result": said})


def run_task(name: str, arguments: Mapping[str, Any]) -> Result:
    """Call the task that `name` names and turn what it returns or raises into a result."""
    try:
        return {"code": 0, "message": "success", "data": find_task(name)(**arguments)}
    except BaseException as error:  # noqa: BLE001 - SystemExit of a task must not end the worker either
        return failure(own_code(error) or Code.UNEXPECTED, told(error))


def own_code(error: BaseException) -> int | None:
    """Return the error's own `code` if that is an integer above 0."""
    try:
        code = getattr(error, "code", None)
    except Exception:  # noqa: BLE001 - foreign code
        return None
    return code if isinstance(code, int) and not isinstance(code, bool) and code > 0 else None


def told(error: BaseException) -> str:
    """Return our own errors' text as it is, and that of others with their type."""
    return error.message if isinstance(error, DeployctlError) else describe(error)
