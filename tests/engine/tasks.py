"""Tasks for the pool's tests: importable, with JSON arguments, and some that no pool should trust."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from deployctl import WorkerPool
from tests.support.proc import wait_until

NOT_CALLABLE = 3
the_lambda = lambda: 1  # noqa: E731


class CodedError(Exception):
    """Has a `code` of its own, of whatever type."""

    def __init__(self, text: str, code: Any) -> None:
        super().__init__(text)
        self.code = code


class HostileError(Exception):
    @property
    def code(self) -> int:
        raise RuntimeError("no code either")

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Holder:
    """Methods of every kind, and an instance that can be called."""

    def method(self) -> int:
        return 1

    @classmethod
    def of_class(cls) -> int:
        return 1

    @staticmethod
    def static(number: int) -> int:
        return number + 1

    def __call__(self) -> int:
        return 1


def echo(value: Any = None) -> Any:
    return value


def kind(value: Any) -> str:
    return type(value).__name__


def pid() -> int:
    return os.getpid()


def text_of(size: int) -> str:
    return "x" * size


def length(text: str) -> int:
    return len(text)


def fail(text: str = "it broke", code: Any = None) -> NoReturn:
    if code is None:
        raise ValueError(text)
    raise CodedError(text, code)


def fail_hostile() -> NoReturn:
    raise HostileError


def return_unjsonable(what: str) -> Any:
    deep: Any = []
    for _ in range(200_000):
        deep = [deep]
    return {
        "set": {1},
        "bytes": b"x",
        "nan": math.nan,
        "infinity": [math.inf],
        "tuple key": {(1, 2): 3},
        "deep": deep,
        "huge number": 10**5000,
        "object": object(),
    }[what]


def leave(status: int) -> NoReturn:
    os._exit(status)


def exit_with(status: Any) -> NoReturn:
    sys.exit(status)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def die(number: int) -> NoReturn:
    os.kill(os.getpid(), number)
    signal.pause()
    raise AssertionError("it survived")


def stop_myself() -> str:
    os.kill(os.getpid(), signal.SIGSTOP)
    return "went on"


def say(text: str) -> None:
    print(f"{text}\n", end="")  # noqa: T201 - one write, so that lines of two workers stay whole
    print(f"{text}\n", end="", file=sys.stderr)  # noqa: T201


def touch(path: str) -> str:
    Path(path).touch()
    return path


def append(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(text + "\n")


def touch_after(gate: str, path: str) -> None:
    """Say that this runs, wait for `gate`, touch `path`."""
    Path(f"{path}.begun").touch()
    wait_until(Path(gate).exists, 60)
    Path(path).touch()


def announce_and_hang(path: str) -> NoReturn:
    """Write this process's number to `path`, whole, and wait for a signal that ends us."""
    write_whole(path, str(os.getpid()))
    while True:
        signal.pause()


def write_whole(path: str, text: str) -> None:
    Path(f"{path}.new").write_text(text)
    Path(f"{path}.new").rename(path)


def shell_after(gate: str, path: str) -> None:
    """Have a shell wait for `gate` and touch `path`."""
    script = ': >"$2.begun"; while [ ! -e "$1" ]; do sleep 0.01; done; : >"$2"'
    subprocess.run(["sh", "-c", script, "sh", gate, path], check=True)


def start_and_leave(path: str) -> int:
    """Start a process that goes on after us, and tell its number."""
    with subprocess.Popen(["sleep", "600"]) as process:
        write_whole(path, str(process.pid))
        process.returncode = 0  # nothing waits for it
        return process.pid


def fork_and_die(path: str) -> NoReturn:
    """Leave a forked child behind that holds copies of everything this worker has open."""
    if os.fork() == 0:
        write_whole(path, str(os.getpid()))
        while True:
            signal.pause()
    wait_until(Path(path).exists)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fork_and_return(value: int) -> int:
    """Forget that a fork returns twice."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return value


def close_everything() -> int:
    os.closerange(3, 256)
    return 1


def hog(seconds: float) -> str:
    """Hold the interpreter's lock in C code for so long, so that no other thread runs."""
    began = time.thread_time()
    usleep = ctypes.PyDLL(None).sched_yield  # PyDLL does not release the lock
    sys.setswitchinterval(1000)
    while time.thread_time() - began < seconds:
        usleep()
    return "done"


def open_descriptors() -> dict[int, str]:
    """Every descriptor of this process and what it leads to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists
            found[int(entry.name)] = str(entry.readlink())
    return found


def signal_state() -> dict[str, Any]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return {
        "blocked": [int(number) for number in mask],
        "chld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "usr1": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
        "group": os.getpgrp(),
        "session": os.getsid(0),
    }


def read_stdin() -> str:
    return subprocess.run(["cat"], capture_output=True, check=True, text=True).stdout


def title() -> str:
    return Path("/proc/self/cmdline").read_text().rstrip("\0 ")


def nested(numbers: list[int]) -> list[int]:
    """Open a pool inside a task."""
    with WorkerPool(2, name="inner") as pool:
        for number in numbers:
            pool.submit("inner", Holder.static, number=number)
        return [result["data"] for result in pool.wait("inner")]


def nested_hang(path: str) -> None:
    with WorkerPool(1, name="inner") as pool:
        pool.submit("inner", announce_and_hang, path=path)
        pool.wait("inner")


outer: list[WorkerPool] = []


def submit_from_within() -> None:
    outer[0].submit("within", echo)


def wait_from_within() -> None:
    outer[0].wait("within")
