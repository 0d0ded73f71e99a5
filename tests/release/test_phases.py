"""A host that fails, in each phase and at each place: what is live everywhere is read from the disks and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import HALF_A_FILE, Lab, Place
from tests.release.running import Pushed
from tests.release.trees import make_site
from tests.support.sshd import Sshd

pytestmark = pytest.mark.sshd

# phase, gate, its script, the code that must come of it
STEPS = {
    "connect": (None, "", 10),
    "probe": ("probe", "exit 1", 30),
    "upload": ("none.scp", HALF_A_FILE, 20),
    "stage": ("stage.tar", "cat >/dev/null; exit 2", 33),
    "activate": ("activate.mv", "exit 1", 32),
}


def break_at(phase: str, place: Place, server: Sshd) -> int:
    point, script, code = STEPS[phase]
    if point is None:
        server.stop_listener()
    else:
        place.gate(point, script)
    return code


def mend(phase: str, place: Place, server: Sshd) -> None:
    place.mend()
    if phase == "connect":
        server.start()


def assert_nothing_changed(lab: Lab, failed: Pushed, broken: str, phase: str, before: str | None) -> None:
    assert lab.live == lab.everywhere(before and f"releases/{before}")
    expected: dict[str, str | None] = lab.everywhere(before)
    if phase in {"connect", "probe"}:
        expected[broken] = None  # nobody could tell
    assert failed.serving == expected
    others = {state for name, state in failed.states.items() if name != broken}
    assert failed.states[broken] == "failed"
    if phase == "activate":
        assert (failed.code, failed.outcome, others) == (21, "reverted", {"reverted"})
    else:
        assert (failed.code, failed.outcome) == (20, "aborted")
        assert others <= {"cancelled", "skipped"}
    for place in lab:
        assert place.runs_left == []


@pytest.mark.parametrize("phase", STEPS)
def test_a_failure_changes_nothing_wherever_it_happens(lab: Lab, site: Path, phase: str) -> None:
    before: str | None = None
    for earlier in ("nothing", "a release"):
        for server, place in zip(lab.servers, lab, strict=True):
            make_site(site, f"{place.name} with {earlier} live")
            code = break_at(phase, place, server)
            failed = lab.push(site)
            assert failed.failure(place.name)[:2] == (phase, code)
            assert_nothing_changed(lab, failed, place.name, phase, before)
            mend(phase, place, server)
        lab.assert_idle()
        done = lab.push(site)
        assert done.code == 0
        assert lab.live == lab.serves(done.release)
        before = done.release


def test_ten_hosts_and_one_that_fails_among_them(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(10)
    first = lab.push(site)
    assert first.code == 0
    assert lab.live == lab.serves(first.release)
    assert lab.push(site).outcome == "unchanged"
    make_site(site, "two")
    lab["h07"].gate("stage.tar", "exit 1")
    failed = lab.push(site)
    assert failed.failure("h07")[0] == "stage"
    assert_nothing_changed(lab, failed, "h07", "stage", first.release)
