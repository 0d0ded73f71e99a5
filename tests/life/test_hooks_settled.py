"""What staged hooks change in a release is part of it; what anybody changes after that is tampering."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.life.moments import hooks
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_site

pytestmark = pytest.mark.sshd

CHANGES = (
    "printf changed >index.html; mkdir -p cache; printf made >cache/new; printf 'odd' >'cache/\\303\\244 b\\\\c'; "
    "rm app/run.sh; printf \"odd too\" >'na\\\\me'"
)


@pytest.fixture
def tree(site: Path) -> Path:
    (site / "na\\me").write_text("odd")
    (site / "plain").write_text("plain")
    return site


@pytest.fixture
def one_host(make_lab: MakeLab) -> Lab:
    return make_lab(1)


def staged(lab: Lab, tree: Path) -> str:
    done = lab.push(tree, "--no-activate")
    assert (done.code, done.outcome) == (0, "staged")
    return done.release


def test_the_push_that_ran_them_goes_live(one_host: Lab, tree: Path) -> None:
    hooks(one_host, {"staged": [CHANGES]})
    done = one_host.push(tree)
    assert done.code == 0
    live = one_host["h01"].root / "current"
    assert (live / "index.html").read_text() == "changed"
    assert one_host.push(tree).outcome == "unchanged"


def test_a_later_activate_takes_it_as_the_hooks_left_it(one_host: Lab, tree: Path) -> None:
    hooks(one_host, {"staged": [CHANGES]})
    release = staged(one_host, tree)
    done = one_host.activate(release)
    assert (done.code, done.outcome) == (0, "released"), done.failure("h01")
    assert one_host.live == one_host.serves(release)


def test_also_when_an_activating_hook_writes_into_the_release(one_host: Lab, tree: Path) -> None:
    """A new file makes the switch read the whole release again."""
    hooks(one_host, {"staged": [CHANGES], "activating": ["touch drained"]})
    assert one_host.push(tree).code == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["plain", "index.html", "cache/new", "na\\me", "link"])
def test_a_byte_that_changed_after_that_is_noticed(one_host: Lab, tree: Path, name: str) -> None:
    hooks(one_host, {"staged": [CHANGES]})
    release = staged(one_host, tree)
    path = one_host["h01"].root / "releases" / release / name
    if name == "link":
        (path.parent / "plain").unlink()
    else:
        flip(path)
    refused = one_host.activate(release)
    assert (refused.code, refused.outcome) == (20, "aborted")
    assert refused.failure("h01")[1] == 33
    assert one_host.live == one_host.everywhere(None)


@pytest.mark.parametrize("spoil", ["mode", "link", "directory"])
def test_other_changes_after_that_are_noticed_as_well(one_host: Lab, tree: Path, spoil: str) -> None:
    hooks(one_host, {"staged": ["mkdir -m 700 empty; ln -s plain 'to it'; chmod 640 'na\\me'"]})
    release = staged(one_host, tree)
    top = one_host["h01"].root / "releases" / release
    match spoil:
        case "mode":
            (top / "na\\me").chmod(0o644)
        case "link":
            (top / "to it").unlink()
            (top / "to it").symlink_to("index.html")
        case _:
            (top / "empty").rmdir()
    refused = one_host.activate(release)
    assert (refused.code, refused.failure("h01")[1]) == (20, 33)
    assert one_host.live == one_host.everywhere(None)


def test_a_byte_that_changed_between_hooks_and_switch_is_noticed(one_host: Lab, tree: Path) -> None:
    hooks(one_host, {"staged": [CHANGES]})
    place = one_host["h01"]
    sign = place.hold("activate")
    running = one_host.start("push", tree)
    running.wait_for_host("h01", "activate")
    [release] = place.releases
    flip(place.root / "releases" / release / "cache/new")
    sign.unlink()
    refused: Pushed = running.finish()
    assert refused.outcome == "reverted"
    assert refused.failure("h01")[:2] == ("activate", 33)
    assert one_host.live == one_host.everywhere(None)


def test_pushing_what_was_staged_and_changed_by_hooks_makes_it_anew(one_host: Lab, tree: Path) -> None:
    hooks(one_host, {"staged": [CHANGES]})
    staged(one_host, tree)
    done = one_host.push(tree)
    assert done.code == 0
    assert one_host.live == one_host.serves(done.release)
    live = one_host["h01"].root / "current"
    assert (live / "cache/new").read_text() == "made"
    make_site(tree, "two")
    assert one_host.push(tree).code == 0
