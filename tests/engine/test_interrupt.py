"""`interrupt`: after the first failure the rest under that key is stopped for good, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployctl import TaskFailed, WorkerPool
from tests.engine import tasks
from tests.support.proc import wait_until


def begun(path: Path) -> bool:
    return path.with_name(f"{path.name}.begun").exists()


def test_what_was_queued_never_runs(tmp_path: Path) -> None:
    with WorkerPool(1) as pool:
        pool.submit("k", tasks.touch_after, gate=str(tmp_path / "gate"), path=str(tmp_path / "first"))
        pool.submit("k", tasks.fail, text="no more", code=31)
        for number in range(20):
            pool.submit("k", tasks.touch, path=str(tmp_path / f"later {number}"))
        (tmp_path / "gate").touch()
        with pytest.raises(TaskFailed) as told:
            pool.wait("k")
        pool.submit(
            "other", tasks.touch, path=str(tmp_path / "other")
        )  # a whole round through the only worker
        pool.wait("other")
    assert told.value.result == {"code": 31, "message": "CodedError: no more", "data": None}
    assert told.value.key == "k"
    assert str(told.value) == "k: CodedError: no more"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "first.begun", "gate", "other"]


def test_what_was_running_is_killed(tmp_path: Path) -> None:
    gate, files = tmp_path / "gate", [tmp_path / f"file {number}" for number in range(3)]
    with WorkerPool(4) as pool:
        for file in files:
            pool.submit("k", tasks.touch_after, gate=str(gate), path=str(file))
        wait_until(lambda: all(begun(file) for file in files))
        pool.submit("k", tasks.fail)
        with pytest.raises(TaskFailed):
            pool.wait("k")
        gate.touch()  # whoever still ran would go on now
        for _ in range(8):
            pool.submit("after", tasks.touch, path=str(tmp_path / "after"))
        assert [result["code"] for result in pool.wait("after")] == [0] * 8  # all four workers are back
    assert not any(file.exists() for file in files)


def test_what_a_task_has_started_is_killed_with_it(tmp_path: Path) -> None:
    gate, file = tmp_path / "gate", tmp_path / "file"
    with WorkerPool(2) as pool:
        pool.submit("k", tasks.shell_after, gate=str(gate), path=str(file))
        wait_until(lambda: begun(file))
        pool.submit("k", tasks.fail)
        with pytest.raises(TaskFailed):
            pool.wait("k")
    gate.touch()
    assert not file.exists()  # the fixture waits for the shell's end


def test_other_keys_go_on(tmp_path: Path) -> None:
    gate, file = tmp_path / "gate", tmp_path / "file"
    with WorkerPool(2) as pool:
        pool.submit("good", tasks.touch_after, gate=str(gate), path=str(file))
        wait_until(lambda: begun(file))
        pool.submit("bad", tasks.fail)
        pool.submit("good", tasks.echo, value=2)
        with pytest.raises(TaskFailed):
            pool.wait("bad")
        gate.touch()
        assert [result["data"] for result in pool.wait("good")] == [None, 2]
    assert file.exists()


def test_the_first_failure_to_come_is_the_one_raised(tmp_path: Path) -> None:
    with WorkerPool(2) as pool:
        pool.submit("k", tasks.announce_and_hang, path=str(tmp_path / "hangs"))
        pool.submit("k", tasks.fail, text="second")
        with pytest.raises(TaskFailed, match="second"):
            pool.wait("k")


def test_a_dead_worker_is_a_failure_as_any_other(tmp_path: Path) -> None:
    with WorkerPool(2) as pool:
        pool.submit("k", tasks.leave, status=0)
        pool.submit("k", tasks.announce_and_hang, path=str(tmp_path / "hangs"))
        with pytest.raises(TaskFailed) as told:
            pool.wait("k")
    assert told.value.result["code"] == 60


def test_stopping_many_times_never_hands_a_dying_worker_new_work(tmp_path: Path) -> None:
    with WorkerPool(3) as pool:
        for number in range(40):
            for _ in range(3):
                pool.submit(f"bad {number}", tasks.fail)
                pool.submit(f"good {number}", tasks.echo, value=number)
            with pytest.raises(TaskFailed):
                pool.wait(f"bad {number}")
            assert [result["data"] for result in pool.wait(f"good {number}")] == [number] * 3
