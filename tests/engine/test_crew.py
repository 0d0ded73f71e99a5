"""The crew without the pool: pipes that are full, workers that go on talking, stops in steps."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable

import pytest

from deployctl.engine import worker as engine_worker
from deployctl.engine.child import Line
from deployctl.engine.crew import Arrival, Crew
from tests.support.proc import wait_until


def repeat(line: Line) -> None:
    """Send every command back."""
    while (command := line.receive()) is not None:
        line.send(command)


def collect(crew: Crew, done: Callable[[list[Arrival]], object], timeout_s: float = 20.0) -> list[Arrival]:
    found: list[Arrival] = []
    deadline = time.monotonic() + timeout_s
    while not done(found):
        assert time.monotonic() < deadline, found
        found += crew.poll(0.5)
    return found


def deaths(found: list[Arrival]) -> list[str]:
    return [arrival.died for arrival in found if arrival.died is not None]


def test_messages_come_back_whole_and_in_order() -> None:
    crew = Crew(repeat, name="test")
    try:
        number = crew.hire()
        sent = [{"n": n, "text": "é\n" * (n % 7)} for n in range(500)]
        for message in sent:
            crew.send(number, message)
        found = collect(crew, lambda found: len(found) == len(sent))
    finally:
        crew.stop()
    assert [arrival.message for arrival in found] == sent
    assert crew.workers == ()


def test_a_frozen_worker_with_a_full_inbox_blocks_nobody() -> None:
    crew = Crew(repeat, name="test", silence_s=0.5)
    try:
        frozen, sound = crew.hire(), crew.hire()
        os.kill(crew.pid(frozen), signal.SIGSTOP)
        for _ in range(8):
            crew.send(frozen, {"text": "x" * 1_000_000})
        crew.send(sound, {"n": 1})
        found = collect(crew, deaths)
    finally:
        crew.stop()
    assert Arrival(sound, {"n": 1}) in found
    assert found[-1] == Arrival(frozen, died="stopped answering for 0.5 s and was killed")


def test_a_worker_that_is_being_killed_is_offered_to_nobody() -> None:
    crew = Crew(repeat, name="test")
    try:
        first, second = crew.hire(), crew.hire()
        crew.kill(first, "was in the way")
        crew.kill(first, "is dead already")
        crew.kill(99, "never was")
        crew.send(99, {"to": "nobody"})
        assert crew.workers == (second,)
        assert first in crew
        assert collect(crew, deaths)[-1] == Arrival(first, died="was in the way")
        assert first not in crew
    finally:
        crew.stop()


def test_the_last_words_come_before_the_death() -> None:
    def last_words(line: Line) -> None:
        for n in range(100):
            line.send({"n": n})
        os.kill(os.getpid(), signal.SIGKILL)

    crew = Crew(last_words, name="test")
    try:
        crew.hire()
        found = collect(crew, deaths)
    finally:
        crew.stop()
    assert [arrival.message for arrival in found[:-1]] == [{"n": n} for n in range(100)]
    assert found[-1].died == "was killed by SIGKILL (out of memory?)"


def test_a_servant_that_fails_says_why() -> None:
    def broken(line: Line) -> None:
        raise LookupError("nothing there")

    crew = Crew(broken, name="test")
    try:
        number = crew.hire()
        told, died = collect(crew, deaths)
    finally:
        crew.stop()
    assert told.message["event"] == "crashed"
    assert "LookupError" in told.message["traceback"]
    assert died == Arrival(number, died="crashed: LookupError: nothing there")


@pytest.mark.parametrize("said", [b"no json\n", b"[]\n", b"9" * 5000 + b"\n", b"\xff\n"])
def test_what_is_not_json_ends_its_worker_and_nothing_else(said: bytes) -> None:
    def babble(line: Line) -> None:
        os.write(line._outbox, b'{"n": 1}\n' + said + b'{"n": 2}\n')
        line.receive()

    crew = Crew(babble, name="test")
    try:
        number = crew.hire()
        found = collect(crew, deaths)
    finally:
        crew.stop()
    assert found[0] == Arrival(number, {"n": 1})
    assert deaths(found) == ["sent what is not JSON and was killed"]


def test_half_a_line_at_the_end_is_dropped() -> None:
    def half(line: Line) -> None:
        os.write(line._outbox, b'{"n": 1}\n{"n":')

    crew = Crew(half, name="test")
    try:
        crew.hire()
        found = collect(crew, deaths)
    finally:
        crew.stop()
    assert [arrival.message for arrival in found[:-1]] == [{"n": 1}]


def test_a_line_refuses_what_is_not_json_before_a_byte_is_written() -> None:
    def careless(line: Line) -> None:
        for wrong in ({"x": {1}}, {"x": float("nan")}):
            try:
                line.send(wrong)
            except (TypeError, ValueError):
                line.send({"refused": True})
        try:
            line.receive(0)
        except queue.Empty:
            line.send({"empty": True})

    crew = Crew(careless, name="test")
    try:
        crew.hire()
        found = collect(crew, deaths)
    finally:
        crew.stop()
    assert [arrival.message for arrival in found[:-1]] == [
        {"refused": True},
        {"refused": True},
        {"empty": True},
    ]


def test_poll_wakes_for_what_else_is_waited_for() -> None:
    crew = Crew(repeat, name="test")
    readable, writable = os.pipe()
    try:
        crew.hire()
        os.write(writable, b".")
        began = time.monotonic()
        assert crew.poll(20, also=[readable]) == []
        assert time.monotonic() - began < 5
    finally:
        crew.stop()
        os.close(readable)
        os.close(writable)


def deaf(line: Line) -> None:
    while True:
        line.receive()  # None for ever, after a stop
        line.send({"event": "talk", "text": "x" * 100_000})


def stubborn(line: Line) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line.send({"ready": True})
    deaf(line)


@pytest.mark.parametrize("servant", [deaf, stubborn])
def test_stop_is_bounded_whatever_the_worker_does(servant: Callable[[Line], None]) -> None:
    crew = Crew(servant, name="test")
    began = time.monotonic()
    try:
        pids = [crew.pid(crew.hire()) for _ in range(3)]
        if servant is stubborn:
            collect(crew, lambda found: len(found) == 3)
    finally:
        crew.stop(grace_s=0.2)
    assert time.monotonic() - began < 5
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_cannot_be_reaped_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a hanging disk keeps in the kernel."""
    monkeypatch.setattr("deployctl.engine.crew.GRACE_S", 0.1)
    crew = Crew(repeat, name="test")
    crew.hire()
    monkeypatch.setattr(engine_worker.Worker, "gone", lambda _self: False)
    crew.stop(grace_s=0.1)
    assert crew.workers == ()


def test_numbers_are_never_used_twice() -> None:
    crew = Crew(repeat, name="test")
    try:
        first = crew.hire()
        crew.kill(first, "enough")
        collect(crew, deaths)
        assert crew.hire() == first + 1
    finally:
        crew.stop()
    assert crew.hire() == first + 2
    crew.stop()


def test_signals_wait_for_the_end_of_a_block_that_holds_them() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        with engine_worker.signals_held():
            signal.raise_signal(signal.SIGINT)  # to this thread: another would not hold it
            with engine_worker.signals_held():
                pass
            assert heard == []
        wait_until(lambda: heard == [signal.SIGINT])
    finally:
        signal.signal(signal.SIGINT, before)
