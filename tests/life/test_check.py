"""`deployctl check` on real servers: what is wrong is found before a byte is sent, with what to do, and nothing is left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab, tool_directory
from tests.release.running import PROGRAM, Pushed
from tests.release.trees import listing

pytestmark = pytest.mark.sshd


def check(lab: Lab, *arguments: str) -> Pushed:
    return lab.start("check", *arguments).finish()


def lines(checked: Pushed, host: str) -> dict[str, dict[str, Any]]:
    """A host's checks by name, from the one line that bears them."""
    [event] = [event for event in checked.of(host) if "checks" in event["data"]]
    for line in event["data"]["checks"]:
        assert set(line) == {"name", "state", "detail", "fix"}
        assert line["state"] in {"ok", "warning", "failed"}
        assert line["state"] == "ok" or line["fix"]
    return {line["name"]: line for line in event["data"]["checks"]}


def wrong(checked: Pushed, host: str) -> set[str]:
    return {name for name, line in lines(checked, host).items() if line["state"] == "failed"}


def test_ready_hosts_and_nothing_left_there(lab: Lab, site: Path) -> None:
    assert lab.push(site, "--limit", "h02").code == 0
    before = {place.name: set(listing(place.root)) for place in lab}
    checked = check(lab)
    assert (checked.code, checked.outcome) == (0, "ok")
    for place in lab:
        found = lines(checked, place.name)
        assert {
            "reach",
            "host key",
            "login",
            "tools",
            "rights",
            "space",
            "inodes",
            "current",
            "clock",
            "lock",
        } <= set(found)
        assert not wrong(checked, place.name)
        assert set(listing(place.root)) == before[place.name]
    assert lines(checked, "h02")["current"]["detail"].startswith("leads to releases/")
    lab.assert_idle()


def test_a_root_that_is_not_there_yet(make_lab: MakeLab) -> None:
    lab = make_lab(1)
    root = lab["h01"].root
    root.rmdir()
    before = set(listing(root.parent))
    assert check(lab).code == 0
    assert set(listing(root.parent)) == before


@pytest.mark.hosts(3)
def test_each_thing_that_is_wrong_is_told_of_its_host_alone(lab: Lab) -> None:
    lab.servers[0].stop()
    (lab["h02"].root / "current").mkdir()
    checked = check(lab)
    assert (checked.code, checked.outcome) == (20, "failed")
    assert checked.states == {"h01": "failed", "h02": "failed", "h03": "ok"}
    assert {name: host["code"] for name, host in checked.hosts.items()} == {"h01": 10, "h02": 32, "h03": 0}
    assert list(lines(checked, "h01")) == ["reach"]
    assert wrong(checked, "h02") == {"current"}
    assert "mv " in lines(checked, "h02")["current"]["fix"]


def test_a_changed_key_and_a_refused_login(make_lab: MakeLab) -> None:
    lab = make_lab(3)
    known = lab.inventory.parent / "known_hosts"
    keys = dict(line.split(" ", 1) for line in known.read_text().splitlines())
    first, second, _ = keys
    known.write_text("".join(f"{name} {keys[second if name == first else name]}\n" for name in keys))
    (lab.servers[1].directory / "authorized_keys").write_text("")
    checked = check(lab)
    assert {name: host["code"] for name, host in checked.hosts.items()} == {"h01": 12, "h02": 13, "h03": 0}
    assert {name: line["state"] for name, line in lines(checked, "h01").items()} == {
        "reach": "ok",
        "host key": "failed",
    }
    assert list(lines(checked, "h02")) == ["reach", "host key", "login"]
    assert wrong(checked, "h02") == {"login"}


def test_missing_tools_and_shared_files_are_told_together(make_lab: MakeLab, tmp_path: Path) -> None:
    bare = tool_directory(tmp_path / "tools", without={"scp", "flock", "zstd"})
    lab = make_lab(1, path=str(bare), release={"shared": {"files": [".env"], "dirs": ["storage"]}})
    checked = check(lab)
    assert checked.code == 20
    assert wrong(checked, "h01") == {"tools", "shared"}
    found = lines(checked, "h01")
    assert "scp" in found["tools"]["detail"]
    assert found["shared"]["fix"] == f"put it at {lab['h01'].root}/shared/.env"
    assert found["flock"]["state"] == "warning"
    (lab["h01"].root / "shared").mkdir()
    (lab["h01"].root / "shared/.env").write_text("A=1\n")
    assert wrong(check(lab), "h01") == {"tools"}


def test_rights_are_tried_and_not_only_looked_at(make_lab: MakeLab) -> None:
    """As root every directory looks writable; a rename that fails is found all the same."""
    lab = make_lab(1)
    lab["h01"].gate("examine.mv", "echo read-only >&2; exit 1")
    checked = check(lab)
    assert wrong(checked, "h01") == {"rights"}
    assert "cannot rename" in lines(checked, "h01")["rights"]["detail"]
    assert checked.hosts["h01"]["code"] == 32
    assert list(lab["h01"].root.iterdir()) == []


def test_space_clock_and_a_slow_shell(make_lab: MakeLab) -> None:
    lab = make_lab(1, wrapper="sleep 1")
    lab["h01"].program(
        "df",
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted on\necho none 9 9 0 100% /\n",
    )
    lab["h01"].program("date", "#!/bin/sh\necho 1000000000\n")
    checked = check(lab)
    found = lines(checked, "h01")
    assert wrong(checked, "h01") == {"space"}
    assert checked.hosts["h01"]["code"] == 31
    assert (found["clock"]["state"], found["login shell"]["state"]) == ("warning", "warning")
    assert "behind" in found["clock"]["detail"]


def test_one_session_at_a_time(sshd_farm: Any, inventory_for: Any, tmp_path: Path) -> None:
    from tests.release.lab import real_lab

    server = sshd_farm("MaxSessions 1")
    with real_lab([server], inventory_for, tmp_path) as lab:
        checked = check(lab)
        assert wrong(checked, "h01") == {"sshd limits"}
        assert "MaxSessions" in lines(checked, "h01")["sshd limits"]["fix"]


def test_the_holder_of_a_lock_is_named(lab: Lab, site: Path) -> None:
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    found = lines(check(lab), "h01")["lock"]
    assert found["state"] == "warning"
    assert f"process {running.process.pid}" in found["detail"]
    sign.unlink()
    assert running.finish().code == 0


def test_a_login_that_runs_no_commands(make_lab: MakeLab) -> None:
    lab = make_lab(1, wrapper="echo This account is not available; exit 1")
    checked = check(lab)
    assert checked.hosts["h01"]["code"] == 30
    assert wrong(checked, "h01") == {"commands"}


def test_noise_that_scp_does_not_bear(make_lab: MakeLab) -> None:
    lab = make_lab(1, wrapper="echo Welcome!")
    checked = check(lab)
    assert wrong(checked, "h01") == {"scp"}
    assert "Welcome!" in lines(checked, "h01")["scp"]["detail"]
    assert list(lab["h01"].root.iterdir()) == []


@pytest.mark.hosts(3)
def test_the_table_for_people(lab: Lab) -> None:
    (lab["h02"].root / "current").mkdir()
    arguments = [*PROGRAM, "check", "-i", str(lab.inventory)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 20
    head, *rows = [line for line in done.stdout.splitlines() if not line[:2].isdigit()]
    assert head.split() == ["HOST", "CHECK", "STATE", "WHAT"]
    assert any(row.split()[:3] == ["h[01-03]", "reach", "ok"] for row in rows)
    [row] = [index for index, line in enumerate(rows) if " failed " in line]
    assert rows[row].startswith("h02 ")
    assert rows[row + 1].strip().startswith("fix: move it away")
    quiet = subprocess.run([*arguments, "-q"], capture_output=True, text=True, check=False, timeout=60)
    assert " ok " not in quiet.stdout
