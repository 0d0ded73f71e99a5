"""`copy` among faults: the new file on every host, or the old one on each of them, and nothing of ours beside it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene, assert_failed, check_invariants
from tests.faults.test_activation import watchers
from tests.faults.test_transfer import injected
from tests.release.lab import names_in
from tests.release.running import Pushed, Running
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd

OLD, NEW = "colour = red\n", "colour = blue\n"


@dataclass
class Copying:
    """Hosts with a file of their own each, in a directory `conf` of the login user's home, and another to put there."""

    scene: Scene
    file: Path

    @property
    def places(self) -> dict[str, Path]:
        return {s.name: s.directory / "home/conf/app.conf" for s in self.scene.lab.servers}

    def fail_once_the_others_have_it(self, name: str) -> None:
        """Let the rename on this host fail, when all others have the new file."""
        others = [shlex.quote(str(path)) for host, path in self.places.items() if host != name]
        wait = "; ".join(f"until grep -q blue {path}; do sleep 0.02; done" for path in others)
        self.scene.lab[name].gate("copy_switch.mv", f"{wait}; exit 1")

    def start(self) -> Running:
        return self.scene.start("copy", self.file, "conf/app.conf", "--timeout", "10s")

    def run(self) -> Pushed:
        return self.scene.end(self.start())

    def all_have(self, text: str) -> None:
        """And the directories hold nothing else, nor is anything at work on any host."""
        for name, path in self.places.items():
            assert path.read_text() == text, name
            assert names_in(path.parent) == ["app.conf"], name
        self.scene.lab.assert_idle()

    def hold_invariants(self, ended: Pushed, **more: object) -> None:
        """Those of a release hold as well, once the file is out of the way."""
        kept = {path: path.rename(self.scene.lab.directory / name) for name, path in self.places.items()}
        for path in kept:
            path.parent.rmdir()
        check_invariants(self.scene, ended, **more)  # type: ignore[arg-type]
        for path, aside in kept.items():
            path.parent.mkdir()
            aside.rename(path)


@pytest.fixture
def copying(make_scene: MakeScene, tmp_path: Path) -> Iterator[Copying]:
    scene = make_scene(3)
    file = tmp_path / "app.conf"
    file.write_text(NEW)
    made = Copying(scene, file)
    for path in made.places.values():
        path.parent.mkdir()
        path.write_text(OLD)
        path.chmod(0o600)
    yield made
    for path in made.places.values():
        path.unlink()
        path.parent.rmdir()


def test_fsync_error_in_a_copy(copying: Copying) -> None:
    """Before the rename nothing has changed; after it all are put back."""
    place = copying.scene.lab["h02"]
    injected(place, "sync", "fsync", "EIO")
    ended = copying.run()
    assert (ended.code, ended.outcome) == (20, "aborted")
    assert_failed(ended, "h02", "upload", 32, "did not take the file for good", "Input/output error")
    copying.all_have(OLD)
    (place.programs / "sync").rename(place.programs / "sync-fails")
    place.gate("copy_switch.sync", f'exec "{place.programs}/sync-fails" "$@"')
    ended = copying.run()
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert_failed(ended, "h02", "copy", 32, "did not take the rename for good", "Input/output error")
    copying.all_have(OLD)
    copying.hold_invariants(ended)
    place.mend()
    assert copying.run().code == 0
    copying.all_have(NEW)


def test_connection_cut_while_copy_puts_back(copying: Copying) -> None:
    """Tried again on a new connection, as a release does: every host has the old file."""
    lab = copying.scene.lab
    copying.fail_once_the_others_have_it("h02")
    sign = lab["h01"].hold("copy_back.mv")
    running = copying.start()
    running.wait_for_host("h01", "revert")
    wait_until(lambda: at_work(copying.scene, "h01", b"conf/.deployctl-"), 10, "the rename that puts back")
    for pid in copying.scene.server("h01").session_pids():  # not those of the second try
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    sign.unlink()
    ended = copying.scene.end(running)
    assert (ended.code, ended.outcome) == (21, "reverted"), ended.stderr
    assert_failed(ended, "h02", "copy", 32)
    assert ended.states["h01"] == ended.states["h03"] == "reverted"
    copying.all_have(OLD)
    copying.hold_invariants(ended)
    for place in lab:
        place.mend()
    assert copying.run().code == 0
    copying.all_have(NEW)


def test_host_lost_while_copy_puts_back(copying: Copying) -> None:
    """22, with the old file kept beside the new one; the same command brings all together."""
    scene = copying.scene
    copying.fail_once_the_others_have_it("h02")
    sign = scene.lab["h01"].hold("copy_back.mv")
    running = copying.start()
    running.wait_for_host("h01", "revert")
    server = scene.server("h01")
    server.stop_listener()
    server.kill_sessions()
    ended = scene.end(running)
    sign.unlink()
    assert (ended.code, ended.outcome) == (22, "mixed")
    assert "deployctl copy" in str(ended.last["mend"])
    texts = {name: path.read_text() for name, path in copying.places.items()}
    assert texts == {"h01": NEW, "h02": OLD, "h03": OLD}
    assert any(name.endswith(".old") for name in names_in(copying.places["h01"].parent))
    server.start()
    for place in scene.lab:
        place.mend()
    assert copying.run().code == 0
    copying.all_have(NEW)


def test_a_rename_that_was_given_up_comes_late(copying: Copying) -> None:
    """A busy host is slow to kill what was cancelled: the rename must not happen after it was told to be taken back."""
    scene = copying.scene
    sign, cleaning = scene.lab["h01"].hold("copy_switch.mv"), scene.lab["h01"].hold("clean")
    scene.lab["h02"].hold("copy_switch")
    running = copying.start()
    wait_until(lambda: at_work(scene, "h01", b"conf/.deployctl-"), 10, "the last step of the switch")
    slow = watchers(scene, "h01")
    assert slow
    for pid in slow:
        os.kill(pid, signal.SIGSTOP)
    running.worker_of(scene.lab["h02"].port).signal(signal.SIGKILL)
    running.wait_for(
        lambda event: event["event"] == "host" and (event["host"], event["state"]) == ("h01", "reverted")
    )
    sign.unlink()
    wait_until(lambda: not at_work(scene, "h01", b"conf/.deployctl-"), 10, "the end of what was held")
    cleaning.unlink()
    for pid in slow:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    ended = scene.end(running)
    assert (ended.code, ended.outcome) == (21, "reverted")
    for place in scene.lab:
        place.mend()
    copying.all_have(OLD)


def at_work(scene: Scene, name: str, words: bytes) -> bool:
    """Whether a process on the host has these words in its arguments."""
    for pid in scene.server(name).command_pids():
        with contextlib.suppress(OSError):
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False
