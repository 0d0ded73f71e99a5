"""What becomes of a pool when its parent is killed, interrupted, or lacks a terminal, a descriptor or a process."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from tests.engine.program import nobody, program
from tests.support.proc import wait_until

HANG_AND_START = """
with WorkerPool(3) as pool:
    pool.submit("k", tasks.announce_and_hang, path=sys.argv[1] + "/hangs")
    pool.submit("k", tasks.shell_after, gate=sys.argv[1] + "/gate", path=sys.argv[1] + "/file")
    while not os.path.exists(sys.argv[1] + "/hangs") or not os.path.exists(sys.argv[1] + "/file.begun"):
        time.sleep(0.005)
    say(*(pool._crew.pid(number) for number in pool._crew.workers))
    {then}
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_killed_parent_takes_everything_along(tmp_path: Path, frozen: bool) -> None:
    with program(HANG_AND_START.format(then='pool.wait("k")'), tmp_path) as parent:
        workers = [int(word) for word in parent.line().split()]
        assert len(parent.family()) >= 5  # parent, three workers, the shell
        if frozen:
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
        parent.process.kill()
        wait_until(nobody(parent.family), what="the end of all")
    (tmp_path / "gate").touch()
    assert not (tmp_path / "file").exists()


def test_a_parent_killed_while_a_fork_of_its_own_lives_on(tmp_path: Path) -> None:
    """That process holds copies of the pipes, so that no worker sees them end."""
    script = """
with WorkerPool(2) as pool:
    pool.submit("k", tasks.announce_and_hang, path=sys.argv[1])
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.005)
    other = os.fork()
    if other == 0:
        signal.pause()
    say(other)
    pool.wait("k")
"""
    with program(script, tmp_path / "pid") as parent:
        other = int(parent.line())
        parent.process.kill()
        wait_until(lambda: [process.pid for process in parent.family()] == [other], what="the workers' end")


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("raise ZeroDivisionError", 1),
        ("sys.exit(3)", 3),
        ("os._exit(4)", 4),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_a_parent_that_leaves_the_block_early_leaves_nothing(tmp_path: Path, then: str, code: int) -> None:
    with program(HANG_AND_START.format(then=then), tmp_path) as parent:
        parent.line()
        assert parent.end() == code
        wait_until(nobody(parent.family), what="the end of all")
    (tmp_path / "gate").touch()
    assert not (tmp_path / "file").exists()


def test_a_program_that_never_leaves_the_block_ends_all_the_same(tmp_path: Path) -> None:
    script = """
pool = WorkerPool(2)
pool.__enter__()
pool.submit("k", tasks.announce_and_hang, path=sys.argv[1])
while not os.path.exists(sys.argv[1]):
    time.sleep(0.005)
"""
    with program(script, tmp_path / "pid") as parent:
        assert parent.end(10) == 0
        wait_until(nobody(parent.family), what="the end of all")


def test_ctrl_c_reaches_the_parent_alone_and_it_may_go_on(tmp_path: Path) -> None:
    script = """
with WorkerPool(2) as pool:
    for number in range(2):
        pool.submit("k", tasks.touch_after, gate=sys.argv[1] + "/gate", path=f"{sys.argv[1]}/{number}")
    try:
        say("waiting")
        pool.wait("k")
    except KeyboardInterrupt:
        say("interrupted")
    open(sys.argv[1] + "/gate", "w").close()
    say([result["code"] for result in pool.wait("k")])
"""
    with program(script, tmp_path) as parent:
        assert parent.line() == "waiting"
        parent.signal_group(signal.SIGINT)
        assert parent.line() == "interrupted"
        assert parent.line() == "[0, 0]"
        assert parent.end() == 0
        assert parent.errors() == ""


def test_many_ctrl_cs_lose_no_result(tmp_path: Path) -> None:
    script = """
count = 0
def interrupt(number, frame):
    global count
    while frame and frame.f_code is not WorkerPool.wait.__code__:
        frame = frame.f_back
    if frame and "k" in pool._batches:  # in the wait, and not on its way out
        count += 1
        raise KeyboardInterrupt
with WorkerPool(4) as pool:
    pool.submit("k", tasks.touch_after, gate=sys.argv[1], path=sys.argv[1] + ".touched")
    for number in range(2000):
        pool.submit("k", tasks.echo, value=number)
    signal.signal(signal.SIGINT, interrupt)
    say("go")
    while True:
        try:
            results = pool.wait("k")
            break
        except KeyboardInterrupt:
            pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)
say([result["data"] for result in results] == [None, *range(2000)], count > 0)
"""
    gate = tmp_path / "gate"
    with program(script, gate) as parent:
        assert parent.line() == "go"
        for number in itertools.count():
            parent.process.send_signal(signal.SIGINT)
            if number == 20:
                gate.touch()
            if parent.ready(0.0005):
                break
        assert parent.line() == "True True"
        assert parent.end() == 0, parent.errors()


def test_ctrl_c_while_the_pool_stops_leaves_nothing(tmp_path: Path) -> None:
    script = """
with WorkerPool(2) as pool:
    for number in range(2):
        pool.submit("k", tasks.hog, seconds=60)
    pool.submit("k", tasks.echo)
    while sum(work.begun for work in pool._held.values()) < 2:
        pool._pump()
    say("leaving")
"""
    with program(script) as parent:
        assert parent.line() == "leaving"
        parent.signal_group(signal.SIGINT)
        assert parent.end(10) == -signal.SIGINT
        wait_until(nobody(parent.family), what="the end of all")


# ---- streams


@pytest.mark.parametrize(
    "closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full"]
)
def test_a_pool_works_whatever_the_standard_streams_are(tmp_path: Path, closed: str) -> None:
    script = """
print("lost", flush=False)
with WorkerPool(2) as pool:
    os.kill(pool._crew.pid(1), signal.SIGKILL)
    for number in range(3):
        pool.submit("k", tasks.echo, value=number)
    data = [result["data"] for result in pool.wait("k")]
open(sys.argv[1], "w").write(str(data))
os._exit(0)
"""
    told = tmp_path / "told"
    shell = ["sh", "-c", f'exec "$0" "$@" {closed}']
    with program(script, told, shell=shell) as parent:
        assert parent.end() == 0, parent.errors()
    assert told.read_text() == "[0, 1, 2]"


def test_a_broken_standard_output_stops_no_replacement() -> None:
    script = """
with WorkerPool(1) as pool:
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(read)
    os.close(write)
    sys.stdout.write("nobody reads this")
    os.kill(pool._crew.pid(1), signal.SIGKILL)
    pool.submit("k", tasks.echo, value=1)
    assert pool.wait("k")[0]["data"] == 1
os._exit(7)
"""
    with program(script) as parent:
        assert parent.end() == 7, parent.errors()


def test_a_program_that_ignores_its_children_gets_its_results() -> None:
    script = """
with WorkerPool(2) as pool:
    pool.submit("k", tasks.echo, value=1)
    pool.submit("k", tasks.leave, status=3)
    pool.submit("k", tasks.echo, value=2)
    for result in pool.wait("k", interrupt=False):
        say(result["code"], result["data"], result["message"])
"""
    ignore = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    with program(ignore + script) as parent:
        assert parent.line() == "0 1 success"
        line = parent.line()
        assert line.startswith("60 None worker "), line  # whichever was free when it was handed out
        assert line.endswith(" ended, and its status was taken by another part of this program"), line
        assert parent.line() == "0 2 success"
        assert parent.end() == 0, parent.errors()


# ---- a system that refuses

REFUSE = """
import errno
fork, allowed = os.fork, int(sys.argv[1])
def refusing():
    global allowed
    allowed -= 1
    if allowed < 0:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = refusing
"""


def test_a_system_that_gives_fewer_workers_narrows_the_pool() -> None:
    script = """
with WorkerPool(8) as pool:
    say(len(pool._crew.workers))
    for number in range(10):
        pool.submit("k", tasks.echo, value=number)
    say([result["data"] for result in pool.wait("k")])
    os.kill(pool._crew.pid(1), signal.SIGKILL)
    pool.submit("k", tasks.echo, value=1)
    say(pool.wait("k")[0]["data"])
"""
    with program(REFUSE + script, "3") as parent:
        assert parent.line() == "3"
        assert parent.line() == str(list(range(10)))
        assert parent.line() == "1"
        assert parent.end() == 0, parent.errors()


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_system_that_gives_no_worker_is_a_clear_error(allowed: int) -> None:
    script = """
try:
    with WorkerPool(2) as pool:
        pool.submit("k", tasks.leave, status=0)
        pool.wait("k", interrupt=False)
except DeployctlError as error:
    assert isinstance(error, OSError)
    say(error)
    say(error.hint)
"""
    with program(REFUSE + script, str(allowed)) as parent:
        assert parent.line() == "cannot fork a worker: Resource temporarily unavailable"
        assert "ulimit -u" in parent.line()
        assert parent.end() == 0, parent.errors()


def test_a_real_limit_on_descriptors_narrows_the_pool() -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
with WorkerPool(32) as pool:
    say(1 <= len(pool._crew.workers) < 12)
    pool.submit("k", tasks.echo, value=1)
    say(pool.wait("k")[0]["data"])
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
try:
    WorkerPool(1).__enter__()
except DeployctlError as error:
    say(error)
    say(error.hint)
"""
    with program(script) as parent:
        assert parent.line() == "True"
        assert parent.line() == "1"
        assert parent.line() == "cannot fork a worker: Too many open files"
        assert "ulimit -n" in parent.line()
        assert parent.end() == 0, parent.errors()


@pytest.mark.root
def test_a_real_limit_on_processes_narrows_the_pool() -> None:
    script = """
import resource
with WorkerPool(1):
    pass  # so that everything is imported: another user may not be able to
resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))
os.setgroups([])
os.setgid(61234)
os.setuid(61234)
with WorkerPool(32) as pool:
    say(len(pool._crew.workers))
    for number in range(40):
        pool.submit("k", tasks.echo, value=number)
    say([result["data"] for result in pool.wait("k")] == list(range(40)))  # some have no threads, and are given up
"""
    with program(script) as parent:
        assert 1 <= int(parent.line()) < 20
        assert parent.line() == "True"
        assert parent.end() == 0, parent.errors()


def test_a_system_that_gives_no_thread_is_a_clear_error() -> None:
    script = """
import threading
def refusing(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refusing
try:
    with WorkerPool(3) as pool:
        pool.submit("k", tasks.echo)
        pool.wait("k")
except DeployctlError as error:
    say(error)
"""
    with program(script) as parent:
        assert parent.line() == "no worker can run here: RuntimeError: can't start new thread"
        assert parent.end() == 0, parent.errors()
