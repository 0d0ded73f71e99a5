"""Hooks and pruning that fail, on one host of two: what is live, what is left there, and that the next push is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kit import Scene, check_invariants
from tests.life.moments import configure, gone, hooks, pid_in

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize(
    ("moment", "how", "code"),
    [
        ("staged", "exit 1", 20),
        ("activating", "exit 1", 20),
        ("activated", "exit 1", 21),
        ("activated", "hangs", 21),
    ],
)
def test_hook_that_fails(scene: Scene, tmp_path: Path, moment: str, how: str, code: int) -> None:
    """On h02, in the new release alone."""
    hang = f"echo $$ >{tmp_path}/shell; sleep 300 & echo $! >{tmp_path}/child; wait"
    does = "exit 1" if how == "exit 1" else hang
    (scene.tree / "bad").write_text("")
    command = f'[ "$DEPLOYCTL_HOST" != h02 ] || [ ! -e "$DEPLOYCTL_RELEASE_PATH/bad" ] || {{ {does}; }}'
    hooks(scene.lab, {moment: [{"run": command, "timeout": "2s"}]})
    ended = scene.push("--batch", "1")
    assert (ended.code, ended.outcome) == (
        code,
        "reverted" if code == 21 else "aborted",
    ) or moment == "activating"
    assert ended.failure("h02")[1] == 40
    assert scene.lab.live == scene.before.live
    if how == "hangs":
        assert "did not end within 2 s and was killed" in ended.failure("h02")[2]
        assert gone(pid_in(tmp_path / "shell"))
        assert gone(pid_in(tmp_path / "child"))
    check_invariants(scene, ended)
    (scene.tree / "bad").unlink()
    scene.converge()


def test_pruning_fails(scene: Scene) -> None:
    """A warning; the live release and the one before are whole, and the next push prunes."""
    configure(scene.lab, release={"keep": 1})
    scene.converge()
    scene.change()
    place = scene.lab["h02"]
    kept = place.releases
    place.gate("prune.mv", "echo no >&2; exit 1")
    done = scene.push()
    assert (done.code, done.outcome) == (0, "released")
    assert "deployctl: warning: h02: could not prune" in done.stderr
    assert place.releases == sorted([*kept, done.release])
    check_invariants(scene, done)
    place.mend()
    scene.change()
    scene.converge()
    assert len(place.releases) == 2
