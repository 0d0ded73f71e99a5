"""A worker's commands on one host, one after the other: what stops one of them leaves the next alone."""

from __future__ import annotations

import queue
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from deployctl.engine.child import Line, Message
from deployctl.host.agent import Agent
from deployctl.inventory import load_inventory
from deployctl.release.events import Events, Silent
from deployctl.release.options import Options
from deployctl.release.site import make_site
from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


class Worker:
    """What a worker does, in this process: commands in, the end of each out."""

    def __init__(self, scene: Scene) -> None:
        inventory = load_inventory(str(scene.lab.inventory))
        events = Events(Silent(), "0123456789abcdef")
        site = make_site(inventory, inventory.hosts, Options(timeout_s=20), events, hooked=False)
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.agent = Agent(site, cast("Line", self))

    def send(self, message: Message) -> None:
        self._said.put(message)

    def begin(self, do: str, **arguments: Any) -> Any:
        """Start a command on h01 and return its operation."""
        self.agent._start({"do": do, "host": "h01", **arguments})
        return self.agent._operations["h01"]

    def end(self) -> Message:
        while (message := self._said.get(timeout=30))["event"] != "done":
            pass
        return message


@pytest.fixture
def worker(make_scene: MakeScene) -> Iterator[tuple[Worker, Scene]]:
    scene = make_scene(1)
    made = Worker(scene)
    yield made, scene
    for session in made.agent._sessions.values():
        session.close()
    scene.lab.assert_idle()


def test_a_cancel_that_comes_late(worker: tuple[Worker, Scene], tmp_path: Path) -> None:
    """Its command had ended, and the shell that it would have closed is under the next one."""
    work, scene = worker
    begun, sign = tmp_path / "begun", tmp_path / "sign"
    sign.touch()
    wait = f"touch {shlex.quote(str(begun))}; while [ -e {shlex.quote(str(sign))} ]; do sleep 0.02; done"
    scene.lab["h01"].gate("owner.flock", wait)
    first = work.begin("connect")
    assert work.end()["state"] == "ok"
    for held in ("owner", "owner"):  # the second has the shell that the first has kept
        second = work.begin(held)
        wait_until(begun.exists, 10, "a command at work")
        first.cancel()
        sign.unlink()
        ended = work.end()
        assert (ended["do"], ended["state"]) == ("owner", "ok"), ended
        first = second
        begun.unlink()
        sign.touch()


def test_a_cancel_in_time_ends_the_command_and_not_the_host(
    worker: tuple[Worker, Scene], tmp_path: Path
) -> None:
    work, scene = worker
    begun = tmp_path / "begun"
    scene.lab["h01"].gate("owner.flock", f"touch {shlex.quote(str(begun))}; sleep 300")
    work.begin("connect")
    assert work.end()["state"] == "ok"
    work.begin("owner")
    wait_until(begun.exists, 10, "a command at work")
    work.agent._cancel("h01")
    assert work.end()["state"] == "cancelled"
    scene.lab["h01"].mend()
    wait_until(lambda: len(scene.server("h01").session_pids()) > 0, 5, "the connection is kept")
    work.begin("owner")
    assert work.end()["state"] == "ok"
