"""What outlives releases: linked relatively into each, never brought by a release itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.trees import make_site, walk

pytestmark = pytest.mark.sshd

SHARED = {"dirs": ["storage", "var/deep/log"], "files": [".env", "config/secrets.yml"]}


def test_shared_paths_are_linked_relatively_into_each_release(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(3, release={"shared": SHARED})
    for place in lab:
        (place.root / "shared/config").mkdir(parents=True)
        (place.root / "shared/.env").write_text("KEY=1")
        (place.root / "shared/config/secrets.yml").write_text("secret")
    first = lab.push(site)
    assert first.code == 0
    links = {
        b"storage": "../../shared/storage",
        b"var/deep/log": "../../../../shared/var/deep/log",
        b".env": "../../shared/.env",
        b"config/secrets.yml": "../../../shared/config/secrets.yml",
    }
    made = {b"var", b"var/deep", b"config"}
    for place in lab:
        there = walk(place.root / "current/")
        assert {name: there[name][2] for name in links} == links
        assert {name: there[name][:2] for name in made} == dict.fromkeys(made, ("d", 0o755))
        assert {
            name: entry for name, entry in there.items() if name not in links | dict.fromkeys(made, "")
        } == walk(site)
        assert (place.root / "current/.env").read_text() == "KEY=1"
        (place.root / "current/storage/upload").write_text("kept")
    assert lab.push(site).outcome == "unchanged"
    make_site(site, "two")
    assert lab.push(site).code == 0
    assert all((place.root / "current/storage/upload").read_text() == "kept" for place in lab)
    assert lab.push(site, "--force").bytes_sent == 0


def test_a_shared_file_that_is_missing_on_one_host_aborts_before_anything_is_live(
    make_lab: MakeLab, site: Path
) -> None:
    lab = make_lab(3, release={"shared": {"files": [".env"]}})
    for name in ("h01", "h03"):
        (lab[name].root / "shared").mkdir()
        (lab[name].root / "shared/.env").write_text("")
    failed = lab.push(site)
    assert (failed.code, failed.failure("h02")[:2]) == (20, ("stage", 32))
    assert str(lab["h02"].root / "shared/.env") in failed.stderr
    assert lab.live == lab.everywhere(None)
    (lab["h02"].root / "shared/.env").write_text("")
    done = lab.push(site)
    assert (done.code, done.bytes_sent) == (0, 0)
    assert lab.live == lab.serves(done.release)


@pytest.mark.parametrize("brought", ["storage/file", "var", ".env", "config/secrets.yml"])
def test_a_source_that_brings_a_shared_path_is_refused(make_lab: MakeLab, site: Path, brought: str) -> None:
    lab = make_lab(1, release={"shared": SHARED})
    (site / brought).parent.mkdir(exist_ok=True)
    (site / brought).write_text("")
    refused = lab.push(site)
    assert (refused.code, refused.outcome) == (11, "refused")
    assert brought.partition("/")[0] in refused.stderr
    assert "Connection from" not in lab.servers[0].log.read_text()


def test_shared_paths_that_change_make_a_fresh_copy_of_what_was_staged(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1, release={"shared": {"dirs": ["storage"]}})
    staged = lab.push(site, "--no-activate")
    lab.inventory.write_text(lab.inventory.read_text().replace("storage", "uploads"))
    pushed = lab.push(site)
    assert pushed.code == 0
    [place] = lab
    assert place.live == f"releases/{pushed.release}"
    assert (place.root / "current/uploads").is_dir()
    assert staged.release
