"""run, copy, check and prune where the host's tools are busybox's, or the login shell is another or prints noise."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import PATH, Lab, names_in
from tests.release.running import Pushed
from tests.release.trees import make_site
from tests.support.wide import some

pytestmark = pytest.mark.sshd

# scp itself bears no noise on standard output, whoever's client it is.
NOISE = """case $SSH_ORIGINAL_COMMAND in scp*) ;; *) echo 'welcome to this host'; printf 'no end' ;; esac
echo 'motd on stderr' >&2"""
ODD = "conf/it's $(a) `file` -rf *"


def find(program: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: install it", pytrace=False)
        pytest.skip(f"{program} is missing: install it to run this test")
    return found


@pytest.fixture(
    params=some(("busybox", "noise", "tcsh"), ("busybox", "noise", "dash", "fish", "tcsh", "zsh"))
)
def other_lab(request: pytest.FixtureRequest, make_lab: MakeLab, tmp_path: Path) -> Lab:
    """Two hosts of that kind, keeping one release."""
    release = {"keep": 1}
    kind = str(request.param)
    if kind == "noise":
        return make_lab(2, wrapper=NOISE, release=release)
    if kind != "busybox":
        return make_lab(2, env={"RUN_WITH": find(kind)}, wrapper=":", release=release)
    applets = tmp_path / "applets"
    applets.mkdir()
    listed = subprocess.run([find(kind), "--list"], check=True, capture_output=True, text=True).stdout
    for name in listed.split():
        (applets / name).symlink_to(find(kind))
    programs = {name: tmp_path / f"farm/{name}/bin" for name in ("h01", "h02")}
    lab = make_lab(2, path=f"{programs['h02']}:{applets}:{PATH}", release=release)  # gates are for h02
    assert lab["h02"].programs == programs["h02"]
    return lab


def do(lab: Lab, *arguments: str | Path) -> Pushed:
    command, *rest = arguments
    return lab.start(str(command), *rest).finish()


def test_they_do_as_elsewhere(other_lab: Lab, tmp_path: Path) -> None:
    lab = other_lab
    checked = do(lab, "check")
    assert checked.code == 0, checked.stderr

    ran = do(lab, "run", "printf 'one\\ntwo'; exit 3")
    assert (ran.code, ran.states) == (20, {"h01": "failed", "h02": "failed"})
    said = [event["text"] for event in ran.events if event["event"] == "log" and event["stream"] == "stdout"]
    assert sorted(said) == ["one", "one", "two", "two"]

    file = tmp_path / "file"
    file.write_text("new\n")
    file.chmod(0o604)
    places = [server.directory / "home" / ODD for server in lab.servers]
    for place in places:
        place.parent.mkdir()
        place.write_text("old\n")
    assert do(lab, "copy", file, ODD).code == 0
    for place in places:
        assert place.read_text() == "new\n"
        assert stat.S_IMODE(place.stat().st_mode) == 0o604
        assert names_in(place.parent) == [place.name]
    assert do(lab, "copy", file, ODD).outcome == "unchanged"

    for text in ("one", "two", "three"):
        pushed = do(lab, "push", make_site(tmp_path / "site", text))
        assert (pushed.code, "warning" in pushed.stderr) == (0, False), pushed.stderr
    for host in lab:
        assert len(host.releases) == 2
        assert pushed.release in host.releases
    assert do(lab, "prune").code == 0
    lab.assert_idle()
