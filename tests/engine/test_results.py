"""What a pool hands back: results in order, and what every kind of failure comes to."""

from __future__ import annotations

import functools
import json
import math
import os
import posixpath
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployctl import TaskFailed, WorkerPool
from deployctl.engine.pool import UnknownKeyError
from deployctl.errors import UsageError
from tests.engine import tasks


def one(task: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """The result of one task in a pool of one, which is sound afterwards and was never replaced without need."""
    with WorkerPool(1) as pool:
        pool.submit("one", task, **arguments)
        [result] = pool.wait("one", interrupt=False)
        pool.submit("after", tasks.echo, value=1)
        assert pool.wait("after")[0]["data"] == 1
        assert set(result) == {"code", "message", "data"}
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        return result


def test_results_come_in_the_order_submitted(tmp_path: Path) -> None:
    gates = [str(tmp_path / str(number)) for number in range(4)]
    with WorkerPool(4) as pool:
        for number in range(3):  # each can end only after the one submitted later
            pool.submit("k", tasks.touch_after, gate=gates[number + 1], path=gates[number])
        pool.submit("k", tasks.touch, path=gates[3])
        results = pool.wait("k")
    assert [result["data"] for result in results] == [None, None, None, gates[3]]
    assert results[0] == {"code": 0, "message": "success", "data": None}


def test_more_tasks_than_workers() -> None:
    with WorkerPool(3) as pool:
        for number in range(200):
            pool.submit("k", tasks.echo, value=number)
        assert [result["data"] for result in pool.wait("k")] == list(range(200))


def test_more_workers_than_tasks() -> None:
    with WorkerPool(5) as pool:
        pool.submit("k", tasks.pid)
        assert pool.wait("k")[0]["data"] != os.getpid()


def test_builtins_and_static_methods_are_importable() -> None:
    with WorkerPool(1) as pool:
        pool.submit("k", posixpath.basename, p="a/b")
        pool.submit("k", tasks.Holder.static, number=1)
        pool.submit("k", dict, a=1)
        assert [result["data"] for result in pool.wait("k")] == ["b", 2, {"a": 1}]


def test_arguments_arrive_as_json_has_them() -> None:
    assert one(tasks.echo, value=(1, 2))["data"] == [1, 2]
    assert one(tasks.echo, value={1: None})["data"] == {"1": None}
    assert one(tasks.echo, value="caf\u00e9 \udcff \0 \n")["data"] == "caf\u00e9 \udcff \0 \n"
    assert one(tasks.kind, value=10**300)["data"] == "int"


# ---- keys


def test_keys_are_waited_for_apart_and_forgotten() -> None:
    with WorkerPool(2) as pool:
        pool.submit("a", tasks.echo, value=1)
        pool.submit("b", tasks.echo, value=2)
        pool.submit("a", tasks.echo, value=3)
        assert [result["data"] for result in pool.wait("b")] == [2]
        assert [result["data"] for result in pool.wait("a")] == [1, 3]
        with pytest.raises(UnknownKeyError):
            pool.wait("a")
        pool.submit("a", tasks.echo, value=4)
        assert [result["data"] for result in pool.wait("a")] == [4]


def test_an_unknown_key_is_an_error() -> None:
    with (
        WorkerPool(1) as pool,
        pytest.raises(UnknownKeyError, match="nothing was submitted under 'nothing'") as told,
    ):
        pool.wait("nothing")
    assert isinstance(told.value, UsageError)
    assert isinstance(told.value, KeyError)
    assert str(told.value) == told.value.message


def test_a_key_is_forgotten_after_its_failure_too() -> None:
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.fail)
        with pytest.raises(TaskFailed):
            pool.wait("k")
        with pytest.raises(UnknownKeyError):
            pool.wait("k")


# ---- failures


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({"text": "it broke"}, 61, "ValueError: it broke"),
        ({"text": ""}, 61, "ValueError"),
        ({"code": 31}, 31, "CodedError: it broke"),
        ({"code": 4711}, 4711, "CodedError: it broke"),
        ({"code": 0}, 61, "CodedError: it broke"),
        ({"code": -1}, 61, "CodedError: it broke"),
        ({"code": True}, 61, "CodedError: it broke"),
        ({"code": "12"}, 61, "CodedError: it broke"),
        ({"code": 2.5}, 61, "CodedError: it broke"),
    ],
)
def test_what_an_exception_comes_to(arguments: dict[str, Any], code: int, message: str) -> None:
    assert one(tasks.fail, **arguments) == {"code": code, "message": message, "data": None}


@pytest.mark.parametrize(
    ("task", "arguments", "code", "message"),
    [
        (tasks.fail_hostile, {}, 61, "HostileError"),
        (tasks.interrupt, {}, 61, "KeyboardInterrupt"),
        (tasks.exit_with, {"status": 3}, 3, "SystemExit: 3"),
        (tasks.exit_with, {"status": None}, 61, "SystemExit"),
        (tasks.exit_with, {"status": "no"}, 61, "SystemExit: no"),
        (tasks.echo, {"wrong": 1}, 61, "TypeError: echo() got an unexpected keyword argument 'wrong'"),
    ],
)
def test_what_ends_a_task_does_not_end_its_worker(
    task: Callable[..., Any], arguments: dict[str, Any], code: int, message: str
) -> None:
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.pid)
        pool.submit("k", task, **arguments)
        pool.submit("k", tasks.pid)
        before, result, after = pool.wait("k", interrupt=False)
    assert result == {"code": code, "message": message, "data": None}
    assert before["data"] == after["data"]


@pytest.mark.parametrize(
    "what", ["set", "bytes", "nan", "infinity", "tuple key", "deep", "huge number", "object"]
)
def test_a_result_that_is_not_json_is_a_failure_and_never_lost(what: str) -> None:
    result = one(tasks.return_unjsonable, what=what)
    assert result["code"] == 61
    assert result["message"].startswith("tests.engine.tasks:return_unjsonable returned what is not JSON: ")


@pytest.mark.parametrize("status", [0, 7])
def test_a_worker_that_leaves_without_a_result_is_dead_whatever_its_status(status: int) -> None:
    result = one(tasks.leave, status=status)
    assert result["code"] == 60
    assert result["message"] == f"worker 1 exited with status {status} without a result"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was killed by SIGKILL (out of memory?)"),
        (signal.SIGUSR2, "was killed by SIGUSR2"),
        (signal.SIGRTMIN + 3, f"was killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_a_dead_worker_is_60_and_names_the_signal(number: int, said: str) -> None:
    assert one(tasks.die, number=number) == {"code": 60, "message": f"worker 1 {said}", "data": None}


def test_without_interrupt_everything_is_collected() -> None:
    with WorkerPool(2) as pool:
        for number in range(10):
            if number % 3:
                pool.submit("k", tasks.fail)
            else:
                pool.submit("k", tasks.echo)
        codes = [result["code"] for result in pool.wait("k", interrupt=False)]
    assert codes == [0, 61, 61, 0, 61, 61, 0, 61, 61, 0]


# ---- what is refused


def closure() -> Any:
    def inner() -> int:
        return 1

    return inner


@pytest.mark.parametrize(
    "task",
    [
        lambda: 1,
        tasks.the_lambda,
        closure(),
        tasks.Holder().method,
        tasks.Holder.of_class,
        tasks.Holder(),
        functools.partial(tasks.echo, 1),
        "text".upper,
        str.upper,
        tasks.NOT_CALLABLE,
        None,
    ],
)
def test_what_cannot_be_imported_is_refused_at_once(task: Any) -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(UsageError, match="is not an importable callable") as told:
            pool.submit("k", task)
        with pytest.raises(UnknownKeyError):
            pool.wait("k")
    assert "lambda" in str(told.value.hint)


def test_a_stand_in_for_a_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = tasks.echo
    monkeypatch.setattr(tasks, "echo", tasks.kind)
    with WorkerPool(1) as pool, pytest.raises(UsageError, match="importable"):
        pool.submit("k", original)


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(200_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value",
    [object(), {1}, b"x", math.nan, -math.inf, [[math.nan]], CIRCLE, DEEP, {(1,): 2}, 10**5000, Path("x")],
    ids=range(11),
)
def test_arguments_that_are_not_json_are_refused_at_once(value: Any) -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(UsageError, match=r"^arguments of a task must be JSON: "):
            pool.submit("k", tasks.echo, value=value)
        with pytest.raises(UnknownKeyError):
            pool.wait("k")


def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(UsageError, match="one worker or more, not 0"):
        WorkerPool(0)


# ---- size and output


def test_huge_results_and_arguments() -> None:
    size = 50_000_000
    with WorkerPool(2) as pool:
        pool.submit("k", tasks.text_of, size=size)
        pool.submit("k", tasks.length, text="y" * size)
        text, length = (result["data"] for result in pool.wait("k"))
    assert len(text) == size
    assert length == size


def test_what_tasks_print_comes_out_once_and_before_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    with WorkerPool(2) as pool:
        for number in range(4):
            pool.submit("k", tasks.say, text=f"line {number}")
        pool.wait("k")
        out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == sorted(err.splitlines()) == [f"line {number}" for number in range(4)]
    assert capfd.readouterr() == ("", "")
