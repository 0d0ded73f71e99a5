"""The workers as processes: their names, their descriptors, their signals, and the rules of using a pool."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployctl import TaskFailed, WorkerPool
from deployctl.errors import UsageError
from tests.engine import tasks
from tests.support.proc import wait_until


def pids(pool: WorkerPool) -> list[int]:
    return [pool._crew.pid(number) for number in pool._crew.workers]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_ps_shows_the_names() -> None:
    def shown() -> list[str]:
        return [Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ") for pid in pids(pool)]

    with WorkerPool(2, name="my pool") as pool:
        wait_until(lambda: shown() == ["my pool: worker 1", "my pool: worker 2"])
        pool.submit("k", tasks.title)
        assert pool.wait("k")[0]["data"] in shown()


def test_workers_are_forked_on_entry_and_gone_on_exit() -> None:
    pool = WorkerPool(3)
    assert pids(pool) == []
    with pool as entered:
        assert entered is pool
        assert len(set(pids(pool))) == 3
        for pid in pids(pool):
            assert os.getpgid(pid) == pid
        held = pids(pool)
    for pid in held:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_worker_holds_its_own_pipe_ends_and_no_others() -> None:
    before = pipes_in(os.getpid())

    def fresh(pid: int) -> list[str]:
        return [pipe for pipe in pipes_in(pid) if pipe not in before]

    def has_four(pid: int) -> bool:
        return len(fresh(pid)) == 4

    with WorkerPool(2) as first, WorkerPool(20) as second:
        os.kill(pids(first)[0], signal.SIGKILL)  # a replacement is forked when all others are there
        first.submit("k", tasks.echo)
        first.wait("k")
        ours = set(pipes_in(os.getpid()))
        for pid in (*pids(first), *pids(second)):
            wait_until(functools.partial(has_four, pid))  # inbox, results, and multiprocessing's two
            assert len(set(fresh(pid))) == 4
            assert set(fresh(pid)) <= ours


def pipes_in(pid: int) -> list[str]:
    ends = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    return [end for end in ends if end.startswith("pipe:")]


def test_the_parents_handlers_and_mask_do_not_reach_a_worker() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        with WorkerPool(1) as pool:
            [pid] = pids(pool)
            pool.submit("k", tasks.signal_state)
            state = pool.wait("k")[0]["data"]
    finally:
        signal.signal(signal.SIGUSR1, before)
        assert signal.pthread_sigmask(signal.SIG_SETMASK, mask) >= {signal.SIGUSR2}
    assert state == {"blocked": [], "chld": True, "usr1": True, "group": pid, "session": os.getsid(0)}


def test_a_task_cannot_eat_the_parents_input() -> None:
    readable, writable = os.pipe()
    saved = os.dup(0)
    os.dup2(readable, 0)
    try:
        os.write(writable, b"for the parent")
        with WorkerPool(1) as pool:
            pool.submit("k", tasks.read_stdin)
            assert pool.wait("k")[0]["data"] == ""
        assert os.read(0, 100) == b"for the parent"
    finally:
        os.dup2(saved, 0)
        for descriptor in (saved, readable, writable):
            os.close(descriptor)


# ---- rules of use


def test_a_pool_that_is_not_open_takes_nothing() -> None:
    pool = WorkerPool(1)
    for _ in range(2):
        with pytest.raises(UsageError, match="the pool is closed"):
            pool.submit("k", tasks.echo)
        with pytest.raises(UsageError, match="the pool is closed"):
            pool.wait("k")
        with pool:
            pass


def test_an_open_pool_cannot_be_entered_again() -> None:
    with WorkerPool(1) as pool:
        before = pids(pool)
        with pytest.raises(UsageError, match="open already"), pool:
            pass
        assert pids(pool) == before
        pool.submit("k", tasks.echo, value=1)
        assert pool.wait("k")[0]["data"] == 1


def test_a_pool_can_be_used_again_and_has_forgotten_everything() -> None:
    pool = WorkerPool(2)
    with pool:
        pool.submit("left", tasks.echo, value=1)
        first = pids(pool)
    with pool:
        assert not set(pids(pool)) & set(first)
        with pytest.raises(UsageError, match="nothing was submitted under 'left'"):
            pool.wait("left")
        pool.submit("k", tasks.echo, value=2)
        assert pool.wait("k")[0]["data"] == 2


def test_two_pools_at_a_time() -> None:
    with WorkerPool(2) as one, WorkerPool(2) as other:
        one.submit("k", tasks.echo, value=1)
        other.submit("k", tasks.echo, value=2)
        assert other.wait("k")[0]["data"] == 2
        assert one.wait("k")[0]["data"] == 1


def test_a_pool_inside_a_task() -> None:
    with WorkerPool(2) as pool:
        for start in (0, 10):
            pool.submit("k", tasks.nested, numbers=list(range(start, start + 5)))
        assert [result["data"] for result in pool.wait("k")] == [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]]


def test_a_pool_inside_a_task_ends_with_that_task(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with WorkerPool(2) as pool:
        pool.submit("k", tasks.nested_hang, path=str(file))
        wait_until(file.exists)
        pool.submit("k", tasks.fail)
        with pytest.raises(TaskFailed):
            pool.wait("k")
        inner = int(file.read_text())
        wait_until(lambda: not Path(f"/proc/{inner}").exists())


@pytest.fixture
def reachable_from_tasks() -> Iterator[list[WorkerPool]]:
    yield tasks.outer
    tasks.outer.clear()


def test_a_task_cannot_use_the_pool_that_runs_it(reachable_from_tasks: list[WorkerPool]) -> None:
    pool = WorkerPool(1)
    reachable_from_tasks.append(pool)
    with pool:
        pool._owner_pid, owner = os.getpid(), pool._owner_pid
        assert owner == os.getpid()
        pool.submit("k", tasks.submit_from_within)
        pool.submit("k", tasks.wait_from_within)
        for result in pool.wait("k", interrupt=False):
            assert result["code"] == 61
            assert "the pool" in result["message"]


def test_a_fork_of_the_parent_that_leaves_the_block_stops_nobody() -> None:
    with WorkerPool(1) as pool:
        child = os.fork()
        if child == 0:
            try:
                pool.__exit__(None, None, None)
                pool._crew._leave()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        pool.submit("k", tasks.echo, value=1)
        assert pool.wait("k")[0]["data"] == 1
        with pytest.raises(UsageError, match="belongs to another process"):
            _as_another_process(pool)


def _as_another_process(pool: WorkerPool) -> None:
    pool._owner_pid = os.getppid()
    try:
        pool.submit("k", tasks.echo)
    finally:
        pool._owner_pid = os.getpid()


def test_leaving_by_an_exception_stops_what_runs_in_bounded_time(tmp_path: Path) -> None:
    def leave() -> None:
        with WorkerPool(3) as pool:
            for file in files:
                pool.submit("k", tasks.announce_and_hang, path=str(file))
            wait_until(lambda: all(file.exists() for file in files))
            raise ZeroDivisionError

    began = time.monotonic()
    files = [tmp_path / f"{number}" for number in range(3)]
    with pytest.raises(ZeroDivisionError):
        leave()
    assert time.monotonic() - began < 5


def test_leaving_stops_even_a_worker_that_is_frozen(tmp_path: Path) -> None:
    began = time.monotonic()
    with WorkerPool(2) as pool:
        for pid in pids(pool):
            os.kill(pid, signal.SIGSTOP)
    assert time.monotonic() - began < 5


def test_no_thread_is_ever_started_here() -> None:
    before = threading.enumerate()
    with WorkerPool(2) as pool:
        assert threading.enumerate() == before
        pool.submit("k", tasks.echo)
        assert threading.enumerate() == before
        pool.wait("k")
        assert threading.enumerate() == before
