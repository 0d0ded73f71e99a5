"""Workers that die, freeze, fork and vanish: no hang, no result of another lost, a replacement for each."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from deployctl import WorkerPool
from deployctl.engine import worker as engine_worker
from tests.engine import tasks
from tests.support import proc
from tests.support.proc import wait_until

SILENCE_S = 0.4


def pids(pool: WorkerPool) -> list[int]:
    return [pool._crew.pid(number) for number in pool._crew.workers]


def is_zombie(pid: int) -> bool:
    found = proc.read(pid)
    return found is None or found.state == "Z"


def number_in(path: Path) -> int:
    wait_until(path.exists)
    return int(path.read_text())


def test_an_idle_worker_that_was_killed_costs_no_task() -> None:
    with WorkerPool(2) as pool:
        for pid in pids(pool):
            os.kill(pid, signal.SIGKILL)
        for number in range(6):  # dead or dying, whichever it is by now
            pool.submit("k", tasks.echo, value=number)
        assert [result["data"] for result in pool.wait("k")] == list(range(6))
        assert len(pids(pool)) == 2


def test_an_idle_worker_that_is_stopped_costs_no_task() -> None:
    with WorkerPool(1, silence_s=SILENCE_S) as pool:
        [pid] = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        pool.submit("k", tasks.echo, value=1)
        assert pool.wait("k")[0]["data"] == 1
        assert pids(pool) != [pid]


def test_a_worker_stopped_at_work_is_killed_after_a_silence(tmp_path: Path) -> None:
    with WorkerPool(2, silence_s=SILENCE_S) as pool:
        pool.submit("k", tasks.stop_myself)
        pool.submit("k", tasks.echo, value=1)
        lost, sound = pool.wait("k", interrupt=False)
    assert sound["data"] == 1
    assert lost["code"] == 60
    assert lost["message"] == "worker 1 stopped answering for 0.4 s and was killed"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell")
def test_a_task_deep_in_c_code_is_not_taken_for_frozen() -> None:
    with WorkerPool(1, silence_s=SILENCE_S) as pool:
        pool.submit("k", tasks.hog, seconds=2.5 * SILENCE_S)
        assert pool.wait("k", interrupt=False)[0] == {"code": 0, "message": "success", "data": "done"}


def test_where_nobody_tells_a_process_shows_no_sign_of_life() -> None:
    assert engine_worker.look_at(0) == (False, 0.0)
    runs, used_s = engine_worker.look_at(os.getpid())
    assert runs
    assert used_s > 0


def test_a_parent_that_was_busy_for_long_does_not_blame_its_workers(tmp_path: Path) -> None:
    with WorkerPool(1, silence_s=SILENCE_S) as pool:
        before = pids(pool)
        pool.submit("k", tasks.echo)
        busy_until = time.monotonic() + 3 * SILENCE_S
        wait_until(lambda: time.monotonic() > busy_until)
        pool.wait("k")
        assert pids(pool) == before


@pytest.mark.parametrize("workers", [1, 5])
def test_workers_killed_at_random_moments(workers: int) -> None:
    chance = random.Random(workers)
    kills = 0
    count = 300
    with WorkerPool(workers) as pool:
        for number in range(count):
            pool.submit("k", tasks.echo, value=number)
            if chance.random() < 0.15:
                with contextlib.suppress(ProcessLookupError):  # it died of the last one
                    os.kill(chance.choice(pids(pool)), signal.SIGKILL)
                kills += 1
        results = pool.wait("k", interrupt=False)
        assert len(pids(pool)) == workers
    assert len(results) == count
    assert kills > 20
    lost = [result for result in results if result["code"]]
    assert len(lost) <= kills
    for number, result in enumerate(results):
        if result["code"]:
            assert result["code"] == 60
            assert "was killed by SIGKILL" in result["message"]
        else:
            assert result["data"] == number


def test_a_task_whose_worker_was_killed_is_not_run_again(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.announce_and_hang, path=str(file))
        os.kill(number_in(file), signal.SIGKILL)
        [result] = pool.wait("k", interrupt=False)
    assert result == {"code": 60, "message": "worker 1 was killed by SIGKILL (out of memory?)", "data": None}


def test_a_child_that_a_task_forked_cannot_hide_its_workers_death(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.fork_and_die, path=str(file))
        pool.submit("k", tasks.echo, value=1)
        died, sound = pool.wait("k", interrupt=False)
    assert died["code"] == 60
    assert "SIGKILL" in died["message"]
    assert sound["data"] == 1
    assert number_in(file)  # the fixture waits for its end: it went with the worker


def test_a_task_that_forgets_that_fork_returns_twice_has_one_result() -> None:
    with WorkerPool(1) as pool:
        for number in range(3):
            pool.submit("k", tasks.fork_and_return, value=number)
        assert [result["data"] for result in pool.wait("k")] == [0, 1, 2]


def test_a_task_that_closes_what_it_did_not_open_is_a_dead_worker() -> None:
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.close_everything)
        pool.submit("k", tasks.echo, value=1)
        dead, sound = pool.wait("k", interrupt=False)
    assert dead["code"] == 60
    assert sound["data"] == 1


def test_what_a_dead_worker_had_started_goes_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.start_and_leave, path=str(file))
        pool.wait("k")
        started = proc.read(number_in(file))
        assert started
        assert started.alive()
        os.kill(pids(pool)[0], signal.SIGKILL)
        pool.submit("k", tasks.echo)
        pool.wait("k")
        wait_until(lambda: not started.alive())


def test_what_was_left_running_on_purpose_outlives_a_pool_that_ends_well(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.start_and_leave, path=str(file))
        pool.wait("k")
    started = proc.read(number_in(file))
    assert started
    assert started.alive()
    started.signal(signal.SIGKILL)
    wait_until(lambda: not started.alive())


def test_term_to_a_worker_alone_changes_nothing(tmp_path: Path) -> None:
    gate, file = tmp_path / "gate", tmp_path / "file"
    with WorkerPool(1) as pool:
        before = pids(pool)
        pool.submit("k", tasks.touch_after, gate=str(gate), path=str(file))
        wait_until(tmp_path.joinpath("file.begun").exists)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCONT):
            os.kill(before[0], number)
        gate.touch()
        assert pool.wait("k")[0]["code"] == 0
        assert pids(pool) == before
