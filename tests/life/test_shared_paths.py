"""What outlives releases: linked relatively into each, never lost, never replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.life.moments import configure, hooks
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.trees import make_site, walk

pytestmark = pytest.mark.sshd

SHARED = {"dirs": ["storage", "var/cache/deep"], "files": [".env", "config/local settings.yaml"]}


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(2)
    configure(lab, release={"shared": SHARED})
    for place in lab:
        (place.root / "shared/config").mkdir(parents=True)
        (place.root / "shared/.env").write_text(f"HOST={place.name}\n")
        (place.root / "shared/config/local settings.yaml").write_text("a: 1\n")
    return lab


def test_links_are_relative_and_lead_to_what_is_shared(lab: Lab, site: Path) -> None:
    done = lab.push(site)
    assert done.code == 0
    for place in lab:
        release = place.root / "releases" / done.release
        texts = {name: os.readlink(release / name) for names in SHARED.values() for name in names}  # noqa: PTH115
        assert texts == {
            "storage": "../../shared/storage",
            "var/cache/deep": "../../../../shared/var/cache/deep",
            ".env": "../../shared/.env",
            "config/local settings.yaml": "../../../shared/config/local settings.yaml",
        }
        assert (place.root / "current/.env").read_text() == f"HOST={place.name}\n"
        assert (place.root / "shared/var/cache/deep").is_dir()
        (place.root / "current/storage/upload").write_text("from users")


@pytest.mark.hosts(3)
def test_data_survives_releases_and_reverts(lab: Lab, site: Path) -> None:
    lab.push(site)
    for place in lab:
        (place.root / "current/storage/upload").write_text("from users")
        (place.root / "current/var/cache/deep/file").write_text("warm")
    before = walk(lab["h01"].root / "shared")
    make_site(site, "two")
    assert lab.push(site).code == 0
    assert walk(lab["h01"].root / "shared") == before
    make_site(site, "three")
    hooks(lab, {}, shared=SHARED, check={"run": "false", "timeout": "100ms"})
    assert lab.push(site).code == 21
    hooks(lab, {"staged": ["false"]}, shared=SHARED)
    make_site(site, "four")
    assert lab.push(site).code == 20
    assert walk(lab["h01"].root / "shared") == before
    assert (lab["h01"].root / "current/storage/upload").read_text() == "from users"


def test_a_missing_shared_file_is_an_error_before_anything_is_live(lab: Lab, site: Path) -> None:
    path = lab["h02"].root / "shared/.env"
    path.unlink()
    failed = lab.push(site)
    assert (failed.code, failed.outcome) == (20, "aborted")
    phase, code, message = failed.failure("h02")
    assert (phase, code) == ("stage", 32)
    assert message == f"the shared file .env is missing: put it at {path}"
    assert lab.live == lab.everywhere(None)
    path.write_text("there now")
    done = lab.push(site)
    assert (done.code, done.sent("h02")) == (0, 0)
    assert lab.live == lab.serves(done.release)


@pytest.mark.parametrize(
    "path", ["storage/kept", ".env", "var/cache/deep/x", "var", "config/local settings.yaml"]
)
def test_a_release_that_brings_a_shared_path_is_refused(lab: Lab, site: Path, path: str) -> None:
    (lab["h01"].root / "shared/storage").mkdir()
    (lab["h01"].root / "shared/storage/kept").write_text("from users")
    before = walk(lab["h01"].root / "shared")
    (site / path).parent.mkdir(parents=True, exist_ok=True)
    (site / path).write_text("from the build")
    refused = lab.push(site)
    assert (refused.code, refused.outcome) == (11, "refused")
    shared = next(
        name for names in SHARED.values() for name in names if name.startswith(path) or path.startswith(name)
    )
    assert shared in refused.last["message"]
    assert lab.live == lab.everywhere(None)
    assert walk(lab["h01"].root / "shared") == before


def test_a_shared_file_that_is_a_dangling_link_is_missing(lab: Lab, site: Path) -> None:
    path = lab["h01"].root / "shared/.env"
    path.unlink()
    path.symlink_to("nowhere")
    assert lab.push(site).failure("h01")[:2] == ("stage", 32)
    assert lab.live == lab.everywhere(None)


def test_what_came_to_be_shared_is_linked_by_the_next_push_of_the_same_tree(lab: Lab, site: Path) -> None:
    one = lab.push(site)
    configure(lab, release={"shared": {**SHARED, "dirs": [*SHARED["dirs"], "uploads"]}})
    dry = lab.push(site, "--dry-run")
    assert dry.code == 0
    assert not any((place.root / "shared/uploads").exists() for place in lab)
    two = lab.push(site)
    assert (two.code, two.outcome) == (0, "released")
    assert "uploads is not linked to shared/uploads" in two.stderr or any(
        "uploads is not linked" in str(event) for event in two.events
    )
    for place in lab:
        assert os.readlink(place.root / "current/uploads") == "../../shared/uploads"  # noqa: PTH115
        assert not (place.root / "releases" / one.release / "uploads").exists()
    assert lab.push(site).outcome == "unchanged"
