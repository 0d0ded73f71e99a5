"""`deployctl copy` on real servers: on every host or on none, by rename, and nothing of ours beside it afterwards.

Hosts of a lab share this machine's disk; a relative DEST leads each into a home of its own.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import HALF_A_FILE, Lab, names_in
from tests.release.running import PROGRAM, Pushed, check_stream
from tests.release.trees import make_site
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd

OLD, NEW = "colour = red\n", "colour = blue\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.conf"
    path.write_text(NEW)
    path.chmod(0o640)
    return path


def copy(lab: Lab, file: Path | str, dest: str, *arguments: str) -> Pushed:
    return lab.start("copy", file, dest, *arguments).finish()


def homes(lab: Lab, old: str | None = OLD) -> dict[str, Path]:
    """Each host's `conf/app.conf`, with its old text unless there is to be none."""
    found = {}
    for server in lab.servers:
        path = server.directory / "home/conf/app.conf"
        path.parent.mkdir()
        if old is not None:
            path.write_text(old)
            path.chmod(0o600)
        found[server.name] = path
    return found


def assert_tidy(lab: Lab, places: dict[str, Path], *, names: tuple[str, ...] = ("app.conf",)) -> None:
    """Nothing of ours beside the destinations, nor in the deploy roots but the layout."""
    for name, path in places.items():
        assert names_in(path.parent) == list(names)
        assert lab[name].incoming == []
    lab.assert_idle()


@pytest.mark.hosts(3)
def test_it_is_in_place_everywhere_with_its_mode(lab: Lab, file: Path) -> None:
    places = homes(lab)
    inodes = {path.stat().st_ino for path in places.values()}
    done = copy(lab, file, "conf/app.conf")
    assert (done.code, done.outcome) == (0, "ok")
    assert set(done.states.values()) == {"ok"}
    assert done.bytes_sent == 3 * len(NEW)
    for path in places.values():
        assert path.read_text() == NEW
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_ino not in inodes
    assert_tidy(lab, places)
    again = copy(lab, file, "conf/app.conf")
    assert (again.code, again.outcome, again.bytes_sent) == (0, "unchanged", 0)
    file.chmod(0o755)
    assert copy(lab, file, "conf/app.conf").outcome == "ok"
    assert {stat.S_IMODE(path.stat().st_mode) for path in places.values()} == {0o755}
    assert_tidy(lab, places)


@pytest.mark.hosts(3)
def test_only_hosts_that_lack_it_are_sent_it(lab: Lab, file: Path) -> None:
    places = homes(lab)
    places["h02"].write_text(NEW)
    places["h02"].chmod(0o640)
    done = copy(lab, file, "conf/app.conf")
    assert (done.code, done.outcome, done.bytes_sent) == (0, "ok", 2 * len(NEW))
    assert done.hosts["h02"]["message"] == "unchanged"


def test_a_directory_gets_the_file_s_name(lab: Lab, file: Path) -> None:
    places = homes(lab, old=None)
    assert copy(lab, file, "conf/").code == 0
    assert {path.read_text() for path in places.values()} == {NEW}
    for path in places.values():
        path.unlink()
    assert copy(lab, file, "conf").code == 0
    assert {path.read_text() for path in places.values()} == {NEW}
    assert_tidy(lab, places)


@pytest.mark.hosts(3)
def test_one_path_that_all_hosts_share(lab: Lab, file: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared by all"
    shared.mkdir()
    (shared / "app.conf").write_text(OLD)
    lab["h03"].gate("copy_switch.mv")
    failed = copy(lab, file, str(shared / "app.conf"))
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert (shared / "app.conf").read_text() == OLD
    lab["h03"].mend()
    assert copy(lab, file, f"{shared}/").code == 0
    assert (shared / "app.conf").read_text() == NEW
    assert names_in(shared) == ["app.conf"]


def test_standard_input(lab: Lab) -> None:
    places = homes(lab, old=None)
    arguments = [*PROGRAM, "copy", "-", "conf/app.conf", "-i", str(lab.inventory), "-o", "json"]
    data = os.urandom(300_000)
    done = subprocess.run(arguments, input=data, capture_output=True, check=False, timeout=60)
    check_stream([json.loads(line) for line in done.stdout.splitlines()], done.returncode)
    assert done.returncode == 0, done.stderr
    for path in places.values():
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert_tidy(lab, places)


def test_an_empty_file(make_lab: MakeLab, file: Path) -> None:
    lab = make_lab(1)
    places = homes(lab)
    file.write_text("")
    assert copy(lab, file, "conf/app.conf").code == 0
    assert places["h01"].read_text() == ""


def test_a_link_is_replaced_and_what_it_led_to_stays(make_lab: MakeLab, file: Path) -> None:
    lab = make_lab(2)
    places = homes(lab, old=None)
    for path in places.values():
        (path.parent / "real").write_text(OLD)
        path.symlink_to("real")
    lab["h02"].gate("copy_switch.mv")
    assert copy(lab, file, "conf/app.conf").code == 21
    assert [os.readlink(path) for path in places.values()] == ["real"] * 2  # noqa: PTH115
    lab["h02"].mend()
    assert copy(lab, file, "conf/app.conf").code == 0
    for path in places.values():
        assert not path.is_symlink()
        assert path.read_text() == NEW
        assert (path.parent / "real").read_text() == OLD
    assert_tidy(lab, places, names=("app.conf", "real"))


def test_a_failed_upload_changes_no_host(lab: Lab, file: Path) -> None:
    places = homes(lab)
    file.write_text(NEW * 100)
    lab["h02"].gate("none.scp", HALF_A_FILE)
    failed = copy(lab, file, "conf/app.conf")
    assert (failed.code, failed.outcome) == (20, "aborted")
    assert failed.failure("h02")[0] == "upload"
    assert {path.read_text() for path in places.values()} == {OLD}
    assert_tidy(lab, places)


@pytest.mark.hosts(3)
@pytest.mark.parametrize("old", [OLD, None], ids=["replaced", "new"])
def test_a_failed_rename_puts_every_old_file_back(lab: Lab, file: Path, old: str | None) -> None:
    places = homes(lab, old)
    before = {name: path.stat() for name, path in places.items() if old}
    lab["h03"].gate("copy_switch.mv")
    failed = copy(lab, file, "conf/app.conf")
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.states == {"h01": "reverted", "h02": "reverted", "h03": "failed"}
    for name, path in places.items():
        assert path.exists() is (old is not None)
        if old:
            assert path.read_text() == old
            assert (path.stat().st_ino, path.stat().st_mode) == (before[name].st_ino, before[name].st_mode)
    assert_tidy(lab, places, names=("app.conf",) if old else ())
    lab["h03"].mend()
    assert copy(lab, file, "conf/app.conf").code == 0


@pytest.mark.hosts(3)
def test_an_old_file_that_cannot_be_put_back_is_named_and_kept(lab: Lab, file: Path) -> None:
    places = homes(lab)
    lab["h01"].gate("copy_back.mv")
    lab["h03"].gate("copy_switch.mv")
    mixed = copy(lab, file, "conf/app.conf")
    assert (mixed.code, mixed.outcome) == (22, "mixed")
    assert mixed.states == {"h01": "failed", "h02": "reverted", "h03": "failed"}
    assert "deployctl copy" in mixed.last["mend"]
    assert places["h02"].read_text() == OLD
    assert places["h01"].read_text() == NEW
    [kept] = [name for name in names_in(places["h01"].parent) if name != "app.conf"]
    assert (places["h01"].parent / kept).read_text() == OLD
    assert kept in mixed.failure("h01")[2]


@pytest.mark.hosts(3)
def test_a_signal_between_the_renames_puts_back(lab: Lab, file: Path) -> None:
    places = homes(lab)
    lab["h03"].hold("copy_switch.mv")
    running = lab.start("copy", file, "conf/app.conf")
    running.wait_for_host("h01", "copy", "ok")
    running.wait_for_host("h02", "copy", "ok")
    running.signal(signal.SIGTERM)
    ended = running.finish()
    assert (ended.code, ended.outcome) == (143, "interrupted")
    assert {path.read_text() for path in places.values()} == {OLD}
    assert_tidy(lab, places)


@pytest.mark.parametrize("point", ["none.scp", "copy_switch.mv"])
@pytest.mark.parametrize("next_run", ["copy", "push", "prune"])
def test_a_dead_run_s_temporaries_are_swept_by_the_next(
    make_lab: MakeLab, file: Path, tmp_path: Path, point: str, next_run: str
) -> None:
    lab = make_lab(1)
    places = homes(lab)
    sign = lab["h01"].hold(point)
    running = lab.start("copy", file, "conf/app.conf")
    running.wait_for_host("h01", "upload" if point == "none.scp" else "copy")
    beside = places["h01"].parent
    many = 2 if point == "none.scp" else 3  # the new one, and the old one kept
    wait_until(lambda: len(names_in(beside)) == many, what="the temporary")
    running.signal(signal.SIGKILL)
    running.process.wait()
    if point == "none.scp":  # it ends with its input; the held step of a script is killed
        sign.unlink()
    lab.assert_idle()
    lab["h01"].mend()
    assert places["h01"].read_text() == OLD
    arguments = {"copy": (file, "elsewhere"), "push": (make_site(tmp_path / "site", "x"),), "prune": ()}
    assert lab.start(next_run, *arguments[next_run]).finish().code == 0
    assert_tidy(lab, places)
    assert places["h01"].read_text() == OLD


def test_what_cannot_be_a_destination(make_lab: MakeLab, file: Path) -> None:
    lab = make_lab(2)
    places = homes(lab)
    path = places["h02"]
    cases = {
        "conf/none/x": "make the directory first",
        "none/": "is not a directory",
        "conf/app.conf/": "is not a",
    }
    for dest, words in cases.items():
        failed = copy(lab, file, dest)
        assert failed.code == 20
        assert any(words in host["message"] for host in failed.hosts.values())
    path.unlink()
    path.mkdir()
    (path / "app.conf").mkdir()
    failed = copy(lab, file, "conf/app.conf")
    assert failed.code == 20
    assert failed.failure("h02")[1:] == (32, f"{path}/app.conf is a directory")
    assert places["h01"].read_text() == OLD
    (path / "app.conf").rmdir()
    path.rmdir()
    os.mkfifo(path)
    assert "no file that could be replaced" in copy(lab, file, "conf/app.conf").failure("h02")[2]
    assert copy(lab, file, f"{lab['h01'].root}/.deployctl/version").code == 20


def test_what_cannot_be_copied(make_lab: MakeLab, file: Path, tmp_path: Path) -> None:
    lab = make_lab(1)
    homes(lab)
    os.mkfifo(tmp_path / "fifo")
    file.chmod(0o4755)
    for source in (tmp_path, tmp_path / "fifo", tmp_path / "absent", file):
        refused = copy(lab, source, "conf/app.conf")
        assert (refused.code, refused.outcome) == (11, "refused")
        assert refused.states == {"h01": "skipped"}
    file.chmod(0o644)
    cases: list[tuple[Path | str, str]] = [(file, ""), (file, "~other/x"), (file, "/a\nb"), ("-", "conf/")]
    for given, dest in cases:
        assert copy(lab, given, dest).code == 2


def test_no_room_and_no_right(make_lab: MakeLab, file: Path) -> None:
    lab = make_lab(1)
    places = homes(lab)
    lab["h01"].program(
        "df",
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted on\necho none 9 9 0 100% /\n",
    )
    failed = copy(lab, file, "conf/app.conf")
    assert failed.failure("h01")[1] == 31
    assert places["h01"].read_text() == OLD
    assert_tidy(lab, places)


def test_another_run_s_lock_is_respected(lab: Lab, file: Path, tmp_path: Path) -> None:
    places = homes(lab)
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", make_site(tmp_path / "site", "one"))
    running.wait_for_host("h02", "stage")
    refused = copy(lab, file, "conf/app.conf")
    assert (refused.code, refused.outcome) == (12, "refused")
    assert {path.read_text() for path in places.values()} == {OLD}
    sign.unlink()
    assert running.finish().code == 0


@pytest.mark.parametrize("way", ["//", "..", "link", "directory"])
def test_nothing_goes_into_what_is_ours_whatever_way_leads_there(
    make_lab: MakeLab, file: Path, tmp_path: Path, way: str
) -> None:
    lab = make_lab(1)
    [place] = lab
    assert lab.push(make_site(tmp_path / "site", "one")).code == 0
    (tmp_path / "link").symlink_to(place.root)
    (tmp_path / "shelf").symlink_to(place.root / ".deployctl/manifests")
    history = place.history
    dest = {
        "//": f"{place.root}//.deployctl//history.jsonl",
        "..": f"{place.root}/shared/../.deployctl/history.jsonl",
        "link": f"{tmp_path}/link/.deployctl/history.jsonl",
        "directory": f"{tmp_path}/shelf",
    }[way]
    refused = copy(lab, file, dest)
    assert (refused.code, refused.failure("h01")[1]) == (20, 32)
    assert ".deployctl is deployctl's own" in refused.stderr
    assert place.history == history
    assert "app.conf" not in names_in(place.root / ".deployctl/manifests")


@pytest.mark.hosts(3)
def test_a_destination_that_is_a_directory_on_some_hosts_only_is_refused(lab: Lab, file: Path) -> None:
    homes(lab, None)
    first = lab.servers[0].directory / "home/conf/target"
    first.mkdir()
    refused = copy(lab, file, "conf/target")
    assert (refused.code, refused.outcome) == (20, "aborted")
    assert refused.failure("h01")[1:] == (32, "conf/target is a directory on h01, not on h[02-03]")
    assert "conf/target/ means the directory everywhere" in refused.stderr
    assert [names_in(server.directory / "home/conf") for server in lab.servers] == [["target"], [], []]
    assert names_in(first) == []
    for server in lab.servers[1:]:
        (server.directory / "home/conf/target").mkdir()
    assert copy(lab, file, "conf/target").code == 0
    assert all((server.directory / "home/conf/target/app.conf").is_file() for server in lab.servers)
