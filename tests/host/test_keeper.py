"""The watchdog alone: what counts as silence."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from deployctl.errors import Code, HostError
from deployctl.host.keeper import SMALL, Keeper, Patience
from deployctl.host.wire import Wire


@dataclass
class FakeWire:
    heard_at: float = field(default_factory=time.monotonic)
    bytes_move: bool = False
    tells_progress: bool = True
    sent_since_heard: int = 0
    looks: int = 0

    def moving(self) -> bool:
        self.looks += 1
        return self.bytes_move


def watch(wire: FakeWire, patience: Patience, wait_s: float) -> HostError | None:
    """The reason for giving up within `wait_s`, if it did."""
    reasons: list[HostError] = []
    given_up = threading.Event()

    def give_up(reason: HostError) -> None:
        reasons.append(reason)
        given_up.set()

    keeper = Keeper(cast("Wire", wire), "web01:22", patience, give_up)
    keeper.start()
    given_up.wait(wait_s)
    keeper.stop()
    assert len(reasons) <= 1
    return reasons[0] if reasons else None


def test_silence_ends_it() -> None:
    began = time.monotonic()
    reason = watch(FakeWire(), Patience(0.05, 0.2, 9), 5)
    assert reason
    assert (reason.code, reason.message) == (Code.TIMED_OUT, "web01:22: no answer for 0 s")
    assert 0.2 <= time.monotonic() - began < 2


@pytest.mark.parametrize(
    "wire",
    [
        FakeWire(heard_at=time.monotonic() + 3600),
        FakeWire(bytes_move=True),
        FakeWire(tells_progress=False, sent_since_heard=SMALL + 1),
    ],
    ids=["heard", "bytes move", "sent through others"],
)
def test_what_is_no_silence(wire: FakeWire) -> None:
    wire.heard_at = max(wire.heard_at, time.monotonic())
    assert watch(wire, Patience(0.05, 0.2, 9), 0.6) is None
    assert wire.looks > 2


def test_a_question_alone_buys_no_time() -> None:
    wire = FakeWire(tells_progress=False, sent_since_heard=SMALL)
    assert watch(wire, Patience(0.05, 0.2, 9), 5)
    assert watch(FakeWire(tells_progress=False, sent_since_heard=SMALL + 1), Patience(0.05, 0.1, 0.3), 5)


def test_a_wire_that_is_closed_does_not_move() -> None:
    """The other end can be gone before the first look."""
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(socket.create_connection(listener.getsockname()))
    listener.close()
    assert wire.moving() is False
    wire.close()
    assert wire.moving() is False
