"""`copy` among faults: the new file on every host, or the old one on each of them, and nothing of ours beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene, assert_failed, check_invariants
from tests.faults.test_transfer import injected
from tests.release.lab import names_in
from tests.release.running import Pushed, Running

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
