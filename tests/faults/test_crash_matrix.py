"""Everyone killed at every moment: the parent, each worker, each host's sessions, in a push, a rollback and a prune.

The moments are the events of a run, so they need no clock. `make crash` takes every one, the suite a few.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene, check_invariants, check_place
from tests.life.moments import configure, hooks
from tests.release.lab import Lab
from tests.release.running import Event, Running
from tests.support.proc import wait_until

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

EVERY = int(os.environ.get("DEPLOYCTL_TEST_EVERY", "0"))
FEW = 3  # moments of one command in the suite
VICTIMS = ("parent", "worker 1", "worker 2", "sessions of h01", "sessions of h02")
COMMANDS = {"push": ("--batch", "1"), "rollback": ("--batch", "1"), "prune": ()}


@dataclass
class Past:
    """Hosts with a past of several releases, which is put back before each death."""

    scene: Scene
    kept: Path
    hooked: dict[str, object]

    def keep(self) -> None:
        for place in self.scene.lab:
            subprocess.run(["cp", "-a", place.root, self.kept / place.name], check=True)

    def restore(self, command: str) -> None:
        """As it was; the tree is one that no host has, and a prune has something to do."""
        for place in self.scene.lab:
            shutil.rmtree(place.root)
            subprocess.run(["cp", "-a", self.kept / place.name, place.root], check=True)
        configure(self.scene.lab, release={**self.hooked, "keep": 1 if command == "prune" else 5})


@pytest.fixture
def past(make_scene: MakeScene, tmp_path: Path) -> Past:
    scene = make_scene(2)
    line = "echo in a hook"
    moments = {moment: [line] for moment in ("staged", "activating", "activated")}
    hooks(scene.lab, dict(moments), check={"run": line, "timeout": "20s"})
    for _ in range(3):
        scene.converge()
        scene.change()
    (tmp_path / "kept").mkdir()
    made = Past(scene, tmp_path / "kept", {"hooks": moments, "check": {"run": line, "timeout": "20s"}})
    made.keep()
    return made


def points(events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] in {"run_started", "host", "log"}]


def wait_for_points(running: Running, number: int) -> None:
    running.wait_for(lambda _event: len(points(running.events)) > number)


def strike(running: Running, lab: Lab, victim: str) -> bool:
    """Kill them; False when there was nobody to kill yet."""
    kind, _, which = victim.partition(" ")
    if kind == "parent":
        running.signal(signal.SIGKILL)
        running.process.wait()
        wait_until(lambda: not running.family(), 5, "the end of the workers")
        return True
    if kind == "worker":
        workers = sorted(running.named("worker"), key=lambda p: p.pid)
        for worker in workers[int(which) - 1 : int(which)]:
            worker.signal(signal.SIGKILL)
        return len(workers) >= int(which)
    [server] = [server for server in lab.servers if server.name == which.removeprefix("of ")]
    there = bool(server.session_pids())
    server.kill_sessions()
    return there


def deaths(counts: dict[str, int]) -> list[tuple[str, str, int]]:
    """Which command, whose death, after how many events."""
    every = [
        (command, victim, number)
        for number in range(max(counts.values()))
        for command in COMMANDS
        for victim in VICTIMS
        if number < counts[command] - 1
    ]
    if EVERY:
        return every[::EVERY]
    chosen = []
    for command in COMMANDS:
        mine = [death for death in every if death[0] == command]
        chosen += [mine[(2 * n + 1) * len(mine) // (2 * FEW) + n] for n in range(FEW)]
    return chosen


@pytest.mark.timeout(7200 if EVERY else 180)
def test_everyone_killed_at_every_event(past: Past) -> None:
    """`current` is whole, no one is left at work, the next push succeeds without help and finds a free lock."""
    scene = past.scene
    counts = {}
    for command, arguments in COMMANDS.items():
        past.restore(command)
        whole = scene.end(scene.start(command, *arguments))
        assert whole.code == 0, whole.stderr
        counts[command] = len(points(list(whole.events)))
    struck, wrong = 0, {}
    for death in deaths(counts):
        command, victim, number = death
        past.restore(command)
        running = scene.start(command, *COMMANDS[command])
        try:
            wait_for_points(running, number)
            struck += strike(running, scene.lab, victim)
            scene.learn(running.events)
            if victim == "parent":
                check_hosts(scene)
            else:
                ended = scene.end(running)
                assert ended.code in {0, 20, 21, 22}, ended.stderr
                check_invariants(scene, ended, lost=scene.lab.names)
            scene.converge()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            wrong[death] = repr(error)[:1000] + running.stderr()[-1000:]
        scene.let_go()
    print(f"killed at {struck} points, {len(wrong)} violations; events of a run: {counts}")  # noqa: T201 - said with -s, by `make crash`
    assert wrong == {}


def check_hosts(scene: Scene) -> None:
    """After a run that can tell nothing any more."""
    scene.lab.assert_idle()
    for place in scene.lab:
        check_place(scene, place, lost=True)
