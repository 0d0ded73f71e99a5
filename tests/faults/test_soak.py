"""Release after release, a fault by lot in every third: nothing grows, here or on the hosts.

`make soak` takes 300 releases to 10 hosts, the suite 9 to 3.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.gauge import Gauge, disk_bytes
from tests.faults.kit import Scene, check_invariants, check_place
from tests.life.moments import configure
from tests.release.running import Running
from tests.support import proc
from tests.support.proc import wait_until

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

ROUNDS = int(os.environ.get("DEPLOYCTL_TEST_RELEASES", "9"))
HOSTS = 10 if ROUNDS > 50 else 3
KEEP = 3

Fault = Callable[[Scene, Running, random.Random], None]


def kill_parent(_scene: Scene, running: Running, _rng: random.Random) -> None:
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 5, "the end of the workers")


def kill_worker(_scene: Scene, running: Running, rng: random.Random) -> None:
    if workers := running.named("worker"):
        rng.choice(workers).signal(signal.SIGKILL)


def kill_session(scene: Scene, _running: Running, rng: random.Random) -> None:
    rng.choice(list(scene.lab.servers)).kill_sessions()


def interrupt(_scene: Scene, running: Running, rng: random.Random) -> None:
    running.signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))


FAULTS: list[Fault] = [kill_parent, kill_worker, kill_session, interrupt]
POINTS = ["probe", "stage", "stage.tar", "activate", "activate.mv", "none.scp"]


def faulty(scene: Scene, rng: random.Random) -> str:
    """One release with one fault."""
    if rng.random() < 0.3:
        point = rng.choice(POINTS)
        place = rng.choice(list(scene.lab))
        place.gate(point)
        ended = scene.push("--timeout", "20s")
        place.mend()
        check_invariants(scene, ended)
        return f"{point}: exit {ended.code}"
    fault = rng.choice(FAULTS)
    number = rng.randrange(1, 2 + 12 * HOSTS)
    running = scene.start("push", "--timeout", "20s")
    try:
        running.wait_for(lambda _event: len(running.events) > number)
    except AssertionError:  # it ended before that
        number = -1
    if number > 0 and running.process.poll() is None:
        fault(scene, running, rng)
    scene.learn(running.events)
    if running.process.poll() == -signal.SIGKILL:
        scene.lab.assert_idle()
        for place in scene.lab:
            check_place(scene, place, lost=True)
        return "the parent killed"
    ended = scene.end(running)
    check_invariants(scene, ended, lost=scene.lab.names)
    return f"{fault.__name__}: exit {ended.code}"


def standing(scene: Scene, home: Path) -> dict[str, int]:
    """What there is once a release has ended well."""
    here_bytes, here_entries = disk_bytes(home, scene.here)
    there_bytes, there_entries = disk_bytes(*(place.root for place in scene.lab))
    return {
        "bytes here": here_bytes,
        "entries here": here_entries,
        "bytes there": there_bytes,
        "entries there": there_entries,
        "processes": len(proc.descendants([os.getpid()])),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "releases": max(len(place.releases) for place in scene.lab),
        "artifacts": max(len(place.incoming) for place in scene.lab),
    }


def forget(scene: Scene) -> None:
    """Let go of what the kit keeps of runs that have ended, and of releases that are pruned."""
    scene.let_go()
    for release in list(scene.whole)[: -2 * KEEP - 4]:
        scene.whole.pop(release)


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_release_after_release(make_scene: MakeScene, own_environment: Path) -> None:
    rng = random.Random(11)
    scene = make_scene(HOSTS)
    configure(scene.lab, release={"keep": KEEP})
    early: dict[str, int] = {}
    peaks: list[int] = []
    faults = 0
    for number in range(ROUNDS):
        scene.change()
        (scene.tree / "random").write_bytes(rng.randbytes(20_000))
        if number % 3 == 2:
            faults += 1
            said = faulty(scene, rng)
            print(f"release {number}: {said}")  # noqa: T201 - said with -s, by `make soak`
        gauge = Gauge()
        running = scene.start()
        gauge.watch(running, 60)
        done = scene.end(running)
        assert done.code == 0, (number, done.stderr)
        check_invariants(scene, done)
        peaks.append(gauge.most("parent").peak_kib)
        forget(scene)
        if number == max(KEEP + 1, ROUNDS // 10):
            early = standing(scene, own_environment)
    late = standing(scene, own_environment)
    print(f"{ROUNDS} releases to {HOSTS} hosts, {faults} with a fault; early {early}, late {late}")  # noqa: T201
    print(f"peak of the parent: {min(peaks)} to {max(peaks)} KiB")  # noqa: T201
    assert late["processes"] <= early["processes"]
    assert late["descriptors"] <= early["descriptors"]
    assert late["releases"] <= KEEP + 2
    assert late["artifacts"] == 0
    assert late["entries there"] < early["entries there"] * 1.3 + 20 * HOSTS
    assert late["bytes there"] < early["bytes there"] * 1.3 + (ROUNDS * 2000 + 100_000) * HOSTS
    assert late["entries here"] < early["entries here"] + 40
    assert max(peaks) < min(peaks) * 1.5
