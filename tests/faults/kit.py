"""Runs deployctl against real sshd hosts and holds what comes of it, read from outside, against what must always hold.

The invariants, by the numbers that tests and docs/reliability.md use:

I1 exit 0 means that every host serves exactly this tree. I2 nothing is switched before every host is staged. I3 `current`
leads to one whole release, old or new. I4 every wait has a limit. I5 every host ends in one state. I6 no process is left,
here or on a host. I7 no file is left outside our directory. I8 the release before is untouched. I9 no secret in any
output. I10 the same command again converges, with nothing cleaned by hand.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.release.lab import Lab, Place, names_in
from tests.release.running import PROGRAM, Event, Pushed, Running
from tests.release.trees import Entry, listing, make_site, walk
from tests.support import warm
from tests.support.proc import wait_until
from tests.support.sshd import Sshd
from tests.support.warm import Started

SECRET = "hush-7d1c9a40-token"
SECRET_ENV = {"FAULTS_TOKEN": SECRET}
SLACK_S = 10.0  # a run ends at most this much past the limit that ended it
OURS = {"current", "releases", "shared", ".deployctl"}
UNTOUCHED = {2, 10, 11, 12, 20}  # exit codes that say that no live host changed

Content = dict[bytes, Entry]


@dataclass(frozen=True)
class Before:
    """What was on the disks when a run began."""

    live: Mapping[str, str | None]
    releases: Mapping[
        str, Mapping[bytes, tuple[int, int, int, int]]
    ]  # the live release of each host, entry by entry


@dataclass
class Scene:
    """Hosts, a tree to release to them, and every release that was ever whole; made by the fixture `make_scene`."""

    lab: Lab
    tree: Path
    here: Path  # TMPDIR of the runs
    there: Path  # TMPDIR of what runs on hosts
    whole: dict[str, Content] = field(default_factory=dict)
    before: Before = field(default_factory=lambda: Before({}, {}))
    _number: int = 0

    def server(self, name: str) -> Sshd:
        [found] = [server for server in self.lab.servers if server.name == name]
        return found

    def settle(self) -> str:
        """Release a first tree everywhere, and bring new text into it for the next run."""
        first = self.push()
        assert first.code == 0, first.stderr
        check_invariants(self, first)
        self.change()
        return first.release

    def change(self) -> None:
        self._number += 1
        make_site(self.tree, f"change {self._number}")

    def start(
        self,
        command: str = "push",
        *arguments: str | Path,
        prefix: Sequence[str | Path] = (),
        env: Mapping[str, str] | None = None,
    ) -> Running:
        """Start deployctl, behind the words of `prefix` if there are any, and note what is on the disks."""
        self.before = Before(self.lab.live, {place.name: live_listing(place) for place in self.lab})
        words = [command, *([self.tree] if command == "push" else []), *arguments]
        errors = self.lab.directory / f"stderr-{len(self.lab._running)}"
        stderr = errors.open("w+b")
        environ = {"TMPDIR": str(self.here), **SECRET_ENV, **(env or {})}
        words += ["-i", self.lab.inventory, "-o", "json"]
        process: Started
        if prefix:
            process = subprocess.Popen(
                [*map(str, prefix), *PROGRAM, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        else:
            process = warm.start(words, environ, stderr)
        running = Running(process, stderr)
        self.lab._running.append(running)
        return running

    def end(self, running: Running, *, timeout_s: float = 60) -> Pushed:
        ended = running.finish(timeout_s=timeout_s)
        self.learn(ended.events)
        return ended

    def learn(self, events: Sequence[Event]) -> None:
        """Whatever release a run of this tree has chosen: this is what it holds when it is whole."""
        content = walk(self.tree)
        for release in {str(event["release"]) for event in events if event["release"]}:
            self.whole.setdefault(release, content)

    def push(self, *arguments: str | Path, timeout_s: float = 60, **options: object) -> Pushed:
        return self.end(self.start("push", *arguments, **options), timeout_s=timeout_s)  # type: ignore[arg-type]

    def let_go(self) -> None:
        """Close what is kept of runs that have ended."""
        for running in self.lab._running:
            running.close()
        self.lab._running.clear()

    def converge(self, *arguments: str | Path) -> Pushed:
        """I10: the same push succeeds everywhere, and nothing of an earlier run is left."""
        done = self.push(*arguments)
        assert done.code == 0, (done.hosts, done.stderr)
        assert done.outcome in {"released", "unchanged"}
        check_invariants(self, done)
        for place in self.lab:
            assert place.incoming == [], place.name
            assert not (place.root / ".deployctl/lock.owner").exists(), place.name
        return done


def check_invariants(scene: Scene, ended: Pushed, *, limit_s: float = 30, lost: Collection[str] = ()) -> None:
    """Hold a run that has ended against I1 to I9; `lost` hosts could not be cleaned up by it, and may have its remains."""
    lab = scene.lab
    wait_until(
        lambda: not any(server.session_pids() or server.command_pids() for server in lab.servers),
        10,
        "the end of all sessions and commands on hosts (I6)",
    )
    assert ended.seconds < limit_s + SLACK_S, "I4"
    if ended.code == 0 and ended.outcome in {"released", "unchanged"}:
        assert lab.live == lab.serves(ended.release), "I1"
        for place in lab:
            assert walk(place.root / "current") == scene.whole[ended.release], ("I1", place.name)
    check_order(ended.events)
    if ended.code in UNTOUCHED or ended.outcome in {"aborted", "reverted"}:
        assert lab.live == scene.before.live, ("I2", ended.outcome)
    for place in lab:
        check_place(scene, place, lost=place.name in lost)
        told = ended.serving.get(place.name)
        if told is not None:
            assert place.live == f"releases/{told}", ("I5", place.name, told)
    if ended.code != 130 or ended.outcome != "mixed":
        assert names_in(scene.here) == [], "I7"
    assert names_in(scene.there) == [], "I7"
    assert SECRET not in ended.stderr, "I9"
    assert SECRET not in str(ended.events), "I9"


def check_order(events: Sequence[Event]) -> None:
    """I2: no switch is begun before the last host that takes part was staged."""
    moves = [(event["phase"], event["state"]) for event in events if event["event"] == "host"]
    switches = [number for number, (phase, _) in enumerate(moves) if phase == "activate"]
    staged = [number for number, move in enumerate(moves) if move == ("stage", "ok")]
    if switches and staged:
        assert max(staged) < min(switches), "I2"


def check_place(scene: Scene, place: Place, *, lost: bool) -> None:
    live = str(place.live).removeprefix("releases/") if place.live else None
    if live is not None:
        assert live in scene.whole, ("I3", place.name, live)
        assert walk(place.root / "current") == scene.whole[live], ("I3", place.name)
    before = scene.before.live[place.name]
    if before is not None:
        assert live is not None, ("I3", place.name, "current has vanished")
        listed = listing(place.root / before)
        was = scene.before.releases[place.name]
        # Its own directory changes when it is renamed into place alone; access is no change.
        assert listed == was, ("I8", place.name)
    assert set(names_in(place.root)) <= OURS, ("I7", place.name)
    assert lock_is_free(place), ("I6", place.name)
    if not lost:
        assert place.runs_left == [], ("I7", place.name)
        assert not (place.root / ".deployctl/lock.owner").exists(), ("I6", place.name)
    home = place.root.parent / "home"
    assert names_in(home) == [], ("I7", place.name)
    for path in (place.root / ".deployctl").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), ("I9", path)


def lock_is_free(place: Place) -> bool:
    lock = place.root / ".deployctl/lock"
    if not lock.exists():
        return True
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def live_listing(place: Place) -> dict[bytes, tuple[int, int, int, int]]:
    current = place.root / "current"
    return listing(current.resolve()) if current.is_symlink() and current.exists() else {}


def assert_failed(ended: Pushed, host: str, phase: str, code: int, *words: str) -> None:
    """One host failed like this, and what is said of it holds these words."""
    said, number, message = ended.failure(host)
    assert (said, number) == (phase, code), message
    for word in words:
        assert word in f"{message}\n{ended.stderr}", (word, message, ended.stderr)


def assert_aborted(scene: Scene, ended: Pushed, host: str, phase: str, code: int, *words: str) -> None:
    """One host failed, and the run changed nothing."""
    assert_failed(ended, host, phase, code, *words)
    assert (ended.code, ended.outcome) == (20, "aborted"), ended.stderr
    assert {state for name, state in ended.states.items() if name != host} <= {"cancelled", "skipped"}
    check_invariants(scene, ended, lost=[host])


@contextmanager
def put_aside(path: Path) -> Iterator[None]:
    """Something is not there for a while."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)
