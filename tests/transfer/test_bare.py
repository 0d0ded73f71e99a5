"""Files that travel as they are: whole on every host's disk, and what was proven of one is never sent again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab, tool_directory
from tests.release.test_userland import busybox_tools
from tests.release.trees import make_site, walk
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.support.wide import some
from tests.transfer.kit import (
    BARE_BYTES,
    MORE_BYTES,
    PART_BYTES,
    REST_BYTES,
    SLICE_BYTES,
    Held,
    allow_sessions,
    arrived_bytes,
    assert_failed,
    assert_released,
    growing,
    kept,
    small_disk,
)

pytestmark = pytest.mark.sshd


def fail_at_the_end(pair: Lab, movie: Path) -> None:
    """Staging fails on h02, at its end and once h01 is done; then nothing fails any more."""
    place = pair["h02"]
    sign = place.programs / "fail"
    place.gate("stage.mv", f"case $* in *releases*) until [ -e {sign} ]; do sleep 0.02; done; exit 1;; esac")
    running = pair.start("push", movie)
    running.wait_for_host("h01", "stage", "ok")
    sign.touch()
    assert_failed(pair, running.finish(), "stage", 32)
    place.mend()


def test_first_push_and_the_next(pair: Lab, movie: Path) -> None:
    """One scp for the file and one for the rest; times, modes and odd names as in SOURCE."""
    odd = movie / "a 'new'\nline \\x0a"
    odd.mkdir()
    film = odd / "-\xfc *.bin "
    film.write_bytes(os.urandom(SLICE_BYTES))
    film.chmod(0o640)
    for number, path in enumerate((film, movie / "media/film.mp4", odd, movie / "media")):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    for place in pair:
        place.gate("none.scp", f'echo "$*" >>{place.programs}/scps')
    first = pair.push(movie)
    assert_released(pair, first, movie)
    sent = SLICE_BYTES + BARE_BYTES
    for place in pair:
        assert sent < (first.sent(place.name) or 0) < sent + MORE_BYTES
        assert len((place.programs / "scps").read_text().splitlines()) == 3
        for path in (film, movie / "media/film.mp4", odd, movie / "media"):
            assert (place.root / "current" / path.relative_to(movie)).stat().st_mtime == path.stat().st_mtime
    make_site(movie, "changed")
    second = pair.push(movie)
    assert_released(pair, second, movie)
    assert second.bytes_sent < 100_000


def test_only_files_that_no_compressor_makes_smaller(pair: Lab, movie: Path) -> None:
    """The others are in the archive, and so is what lies where its owner can't write."""
    (movie / "log").write_bytes(b"the same line again\n" * 2_000_000)
    locked = movie / "locked"
    locked.mkdir()
    (locked / "random").write_bytes(os.urandom(SLICE_BYTES))
    locked.chmod(0o555)
    for place in pair:
        place.gate("none.scp", f'echo "$*" >>{place.programs}/scps')
    pushed = pair.push(movie)
    locked.chmod(0o755)
    shutil.copymode(movie / "media", locked)
    for place in pair:
        assert (place.root / "current/locked").stat().st_mode & 0o777 == 0o555
        (place.root / "current/locked").chmod(0o755)
        assert (place.programs / "scps").read_text().count("new-") == 1
    assert_released(pair, pushed, movie)


@pytest.mark.parametrize("without", ["zstd", "openssl"])
def test_hosts_that_lack_a_tool(make_lab: MakeLab, tmp_path: Path, movie: Path, without: str) -> None:
    lab = make_lab(1, path=str(tool_directory(tmp_path / "tools", without=(without,))))
    pushed = lab.push(movie)
    assert_released(lab, pushed, movie)
    assert BARE_BYTES < pushed.bytes_sent < BARE_BYTES + MORE_BYTES


def test_busybox_alone(make_lab: MakeLab, tmp_path: Path, movie: Path) -> None:
    lab = make_lab(1, path=str(busybox_tools(tmp_path / "tools")), wrapper="RUN_WITH='busybox sh'")
    assert_released(lab, lab.push(movie), movie)
    served = lab["h01"].root / "current/media/film.mp4"
    assert int(served.stat().st_mtime) == int((movie / "media/film.mp4").stat().st_mtime)


@pytest.mark.parametrize("sessions", [2, 3])
def test_a_server_that_allows_few_sessions(make_lab: MakeLab, movie: Path, sessions: int) -> None:
    lab = make_lab(1)
    [server] = lab.servers
    allow_sessions(server, sessions)
    pushed = lab.push(movie)
    assert_released(lab, pushed, movie)
    assert BARE_BYTES < pushed.bytes_sent < BARE_BYTES + MORE_BYTES


def test_a_far_host(make_lab: MakeLab, movie: Path) -> None:
    """Several slices at once, each over a channel of its own."""
    lab = make_lab(1)
    place = lab["h01"]
    signs = f"{place.programs}/scp-"
    place.gate(
        "none.scp",
        f': >{signs}$$; until [ "$(echo {signs}* | wc -w)" -ge 3 ]; do sleep 0.02; done',
    )
    with Proxy(("127.0.0.1", lab.servers[0].port)) as proxy:
        lab.through("h01", proxy.port)
        proxy.both(delay_s=0.03)
        pushed = lab.push(movie)
        assert_released(lab, pushed, movie)
        assert BARE_BYTES < pushed.bytes_sent < BARE_BYTES + MORE_BYTES


# ---- broken off


@pytest.mark.parametrize("at", [10_000_000, SLICE_BYTES + 20_000_000, BARE_BYTES - 1_000_000])
def test_a_connection_cut(pair: Lab, movie: Path, proxy: Proxy, at: int) -> None:
    """No more is sent twice than the slice that was cut and what was not proven yet."""
    pair.edit_ssh(retries=2)
    proxy.up(cuts=[at])
    pushed = pair.push(movie)
    assert_released(pair, pushed, movie)
    assert proxy.counts["accepted"] == 2
    assert BARE_BYTES < proxy.counts["up"] < BARE_BYTES + 2 * SLICE_BYTES
    assert pushed.sent("h01") in range(BARE_BYTES, BARE_BYTES + MORE_BYTES)


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_in_mid_file(pair: Lab, movie: Path, proxy: Proxy, end: signal.Signals) -> None:
    """An abort leaves proven slices and nothing else; a killed run leaves more, of which the next one makes the same."""
    place, live = pair["h02"], pair.live
    proxy.up(rate=40_000_000)
    running = pair.start("push", movie)
    wait_until(lambda: [p.suffix for p in growing(place)] == [".1"], 30, "one proven slice")
    running.signal(end)
    if end == signal.SIGINT:
        assert running.finish().outcome == "interrupted"
        assert place.runs_left == []
        assert kept(place) == {"1-1": SLICE_BYTES}
    else:
        running.process.wait()
        wait_until(lambda: not running.family(), 5, "the end of the workers")
        proxy.reset()
    pair.assert_idle()
    assert pair.live == live
    proxy.up(rate=None)
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert REST_BYTES < (done.sent("h02") or 0) < REST_BYTES + MORE_BYTES


@pytest.mark.usefixtures("begun")
def test_slices_are_proven_while_the_file_grows(pair: Lab, movie: Path, proxy: Proxy) -> None:
    place = pair["h02"]
    proxy.up(rate=20_000_000)
    running = pair.start("push", movie)
    wait_until(lambda: [p.suffix for p in growing(place)] == [".1"], 30, "the proof of the first slice")
    assert arrived_bytes(place) < 2 * SLICE_BYTES
    running.signal(signal.SIGINT)
    running.finish()
    assert kept(place) == {"1-1": SLICE_BYTES}
    proxy.up(rate=None)
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert REST_BYTES < (done.sent("h02") or 0) < REST_BYTES + MORE_BYTES


@pytest.mark.usefixtures("begun")
def test_another_host_fails_in_mid_file(pair: Lab, movie: Path, proxy: Proxy) -> None:
    place, live = pair["h02"], pair.live
    proxy.up(rate=40_000_000)
    pair["h01"].gate("none.scp", f"until [ -e {place.programs}/far ]; do sleep 0.02; done; exit 1")
    place.programs.mkdir(exist_ok=True)
    running = pair.start("push", movie)
    wait_until(lambda: [p.suffix for p in growing(place)] == [".1"], 30, "one proven slice")
    (place.programs / "far").touch()
    failed = running.finish()
    assert (failed.code, failed.hosts["h02"]["state"]) == (20, "cancelled")
    assert kept(place) == {"1-1": SLICE_BYTES}
    assert pair.live == live
    pair["h01"].mend()
    proxy.up(rate=None)
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert REST_BYTES < (done.sent("h02") or 0) < REST_BYTES + MORE_BYTES


HARMS = ["flipped", "truncated", "longer", "gone", "a directory", "another cut"]


@pytest.mark.parametrize("harm", some(["flipped", "longer", "a directory", "another cut"], HARMS))
def test_slices_that_changed_between_two_runs(pair: Lab, movie: Path, harm: str) -> None:
    """Each is read again before it is used."""
    place = pair["h02"]
    fail_at_the_end(pair, movie)
    assert kept(place)["1-3"] == BARE_BYTES  # put back from where the release would have been
    file = next(path for path in place.proven if path.name == "1-3")
    if harm == "flipped":
        with file.open("r+b") as open_file:
            open_file.seek(SLICE_BYTES + 12345)
            byte = open_file.read(1)
            open_file.seek(-1, os.SEEK_CUR)
            open_file.write(bytes([byte[0] ^ 1]))
    elif harm == "truncated":
        os.truncate(file, SLICE_BYTES + 5)
    elif harm == "longer":
        with file.open("ab") as open_file:
            open_file.write(bytes(3 << 20))
    elif harm == "another cut":  # by another version of us
        shutil.copyfile(file, file.with_name("2-5"))
        shutil.copyfile(file, file.with_name("9"))
    else:
        file.unlink()
        if harm == "a directory":
            file.mkdir()
    done = pair.push(movie)
    assert_released(pair, done, movie)
    missing = {"flipped": 2, "truncated": 2, "longer": 1, "another cut": 0}.get(harm, 3)
    most = missing * SLICE_BYTES
    assert most - SLICE_BYTES < (done.sent("h02") or 0) <= most
    assert done.sent("h01") == 0


def test_a_dry_run_counts_what_is_missing(pair: Lab, movie: Path) -> None:
    place = pair["h02"]
    fail_at_the_end(pair, movie)
    file = next(path for path in place.proven if path.name == "1-3")
    os.truncate(file, SLICE_BYTES)
    file.rename(file.with_name("1-1"))
    planned = pair.push(movie, "--dry-run")
    [line] = [event for event in planned.of("h02") if event["message"] == "planned"]
    assert line["data"]["bytes_to_send"] == REST_BYTES


# ---- what fails on the host


FLIP = """
import os, sys
left = int(sys.argv[1])
while data := os.read(0, 65536):
    if 0 <= left < len(data):
        data = data[:left] + bytes([data[left] ^ 1]) + data[left + 1 :]
    left -= len(data)
    while data:
        data = data[os.write(1, data) :]
"""


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize("at", [70_000, SLICE_BYTES + 70_000, BARE_BYTES - 1])
def test_a_file_damaged_on_the_way(pair: Lab, movie: Path, at: int) -> None:
    """What scp writes is not what was sent: the slices before that are kept."""
    place = pair["h02"]
    place.program("flip.py", FLIP)
    at += len(f"C0600 {BARE_BYTES} new-1-32-0123456789abcdef.1.0\n")
    place.program(
        "scp",
        f'#!/bin/sh\ncase $* in *new-*) {sys.executable} -IS {place.programs}/flip.py {at} | {shutil.which("scp")} "$@" ;;\n'
        f'*) exec {shutil.which("scp")} "$@" ;; esac\n',
    )
    live = pair.live
    failed = pair.push(movie)
    before = at // SLICE_BYTES
    assert_failed(pair, failed, "upload", 33, f"slice {before + 1}", "damaged", live=live)
    assert kept(place) == ({f"1-{before}": before * SLICE_BYTES} if before else {})
    (place.programs / "scp").unlink()
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert (done.sent("h02") or 0) < BARE_BYTES - before * SLICE_BYTES + MORE_BYTES


def test_a_file_put_together_of_several_is_read_again(pair: Lab, movie: Path) -> None:
    """What `cat` makes of proven slices has not been proven."""
    place = pair["h02"]
    fail_at_the_end(pair, movie)
    file = next(path for path in place.proven if path.name == "1-3")
    os.truncate(file, SLICE_BYTES)
    file.rename(file.with_name("1-1"))
    real = shutil.which("cat")
    place.program(
        "cat", f'#!/bin/sh\ncase $* in */3-3) {real} "$@" | tr a b ;; *) exec {real} "$@" ;; esac\n'
    )
    failed = pair.push(movie)
    assert_failed(pair, failed, "stage", 33, "media/film.mp4")
    (place.programs / "cat").unlink()
    assert_released(pair, pair.push(movie), movie)


@pytest.mark.parametrize("tool", some(["mv", "dd", "touch"], ["mv", "dd", "find", "chmod", "touch"]))
def test_a_tool_that_fails(pair: Lab, movie: Path, tool: str) -> None:
    place = pair["h02"]
    for point in (f"receive.{tool}", f"stage.{tool}"):
        place.gate(point, "case $* in *1-3*|*tree/media/film*|*new-*|*-newer*) exit 1;; esac")
    pushed = pair.push(movie)
    if tool == "touch":
        assert_released(pair, pushed, movie)
        return
    if pushed.code:
        assert pair.live == pair.everywhere(None)
        assert pushed.failure("h02")[1] in {32, 33}
        place.mend()
        pushed = pair.push(movie)
    assert_released(pair, pushed, movie)


@pytest.fixture
def small(pair: Lab) -> Iterator[None]:
    """h02 has a disk of 126 MB: room for the file once, and for one slice."""
    with small_disk(pair["h02"].root, 120):
        yield


@pytest.mark.root
@pytest.mark.usefixtures("small")
def test_a_disk_with_room_for_it_once(pair: Lab, movie: Path) -> None:
    assert_released(pair, pair.push(movie), movie)


@pytest.mark.root
@pytest.mark.usefixtures("small")
def test_a_disk_that_fills_up_in_mid_file(pair: Lab, movie: Path, proxy: Proxy) -> None:
    place = pair["h02"]
    proxy.up(rate=40_000_000)
    running = pair.start("push", movie)
    wait_until(lambda: [p.suffix for p in growing(place)] == [".1"], 30, "one proven slice")
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={place.root}/filler", "bs=65536"], check=False, capture_output=True
    )
    failed = running.finish()
    assert_failed(pair, failed, "upload", 31, "no space left")
    assert set(kept(place)) <= {"1-1", "1-2"}
    (place.root / "filler").unlink()
    proxy.up(rate=None)
    assert_released(pair, pair.push(movie), movie)


# ---- sent while it is packed


def test_it_is_on_its_way_before_all_is_packed(pair: Lab, movie: Path, held: Held) -> None:
    (movie / "second").write_bytes(os.urandom(PART_BYTES + 1000))
    running = held.start(movie, "--timeout", "3s")
    for place in pair:
        wait_until(
            lambda p=place: any(p.root.glob(".deployctl/incoming/*/early.tar.zst.parts/1-3")),  # type: ignore[misc]
            40,
            "all of the file",
        )
    assert pair.live == pair.everywhere(None)
    held.go_on()
    pushed = running.finish()
    assert_released(pair, pushed, movie)
    for name in pair.names:
        assert BARE_BYTES < (pushed.sent(name) or 0) < BARE_BYTES + PART_BYTES + MORE_BYTES


# Reads the file slowly, and stands still in the middle of it for longer than an upload may.
SLOWLY = """
import time
import deployctl.artifact.pack as pack
chunks = pack.read_chunks
def slowly(*arguments):
    for number, chunk in enumerate(chunks(*arguments)):
        if number == 50:
            time.sleep(5)
        yield chunk
pack.read_chunks = slowly
"""


def test_an_upload_that_waits_for_the_packer(pair: Lab, movie: Path, tmp_path: Path) -> None:
    """Hosts that wait for what is not read yet are not hung, and get no less for it."""
    site = tmp_path / "slow"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOWLY)
    path = os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))
    began_at = time.monotonic()
    pushed = pair.start("push", movie, "--timeout", "2s", env={"PYTHONPATH": path}).finish()
    assert time.monotonic() - began_at > 5
    assert_released(pair, pushed, movie)
    assert pushed.sent("h01") in range(BARE_BYTES, BARE_BYTES + MORE_BYTES)


def test_source_changes_while_it_is_sent(pair: Lab, movie: Path, held: Held) -> None:
    running = held.start(movie)
    for place in pair:
        wait_until(
            lambda p=place: any(p.root.glob(".deployctl/incoming/*/early.tar.zst.parts/1-3")),  # type: ignore[misc]
            40,
            "all of the file",
        )
    (movie / "one more").write_text("x")
    held.go_on()
    refused = running.finish()
    assert (refused.code, refused.outcome) == (11, "refused")
    assert all(place.incoming == [] for place in pair)


# ---- upon a release that is there


@pytest.mark.parametrize("links", ["copy", "hard"])
def test_new_and_changed_ones_in_a_delta(pair: Lab, movie: Path, links: str) -> None:
    """They take the places of what the base has there, whose own content stays."""
    pair.edit_release(links=links)
    trailer = movie / "media/trailer.mp4"
    trailer.write_bytes(os.urandom(SLICE_BYTES + 5000))
    first = pair.push(movie)
    assert_released(pair, first, movie)
    before = movie.parent / "before"
    shutil.copytree(movie, before, symlinks=True)
    trailer.unlink()  # of another name than what a patch could be made of
    trailer.write_bytes(os.urandom(SLICE_BYTES + 7000))
    (movie / "media/new.mp4").write_bytes(os.urandom(SLICE_BYTES))
    make_site(movie, "changed")
    for place in pair:
        place.gate("none.scp", f'echo "$*" >>{place.programs}/scps')
    second = pair.push(movie)
    assert_released(pair, second, movie)
    sent = 2 * SLICE_BYTES + 7000
    for place in pair:
        assert sent < (second.sent(place.name) or 0) < sent + MORE_BYTES
        assert walk(place.root / "releases" / str(first.release)) == walk(before)
        scps = (place.programs / "scps").read_text()
        assert scps.count("new-") == 1
    make_site(movie, "changed again")
    third = pair.push(movie)
    assert_released(pair, third, movie)
    assert third.bytes_sent < 100_000


@pytest.mark.parametrize("links", ["copy", "hard"])
def test_a_base_in_which_somebody_put_other_things_there(
    pair: Lab, movie: Path, tmp_path: Path, links: str
) -> None:
    pair.edit_release(links=links)
    assert_released(pair, pair.push(movie), movie)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "new.mp4").write_text("not ours")
    live = pair["h02"].root / "current"
    shutil.rmtree(live / "media")
    (live / "media").symlink_to(outside)
    (pair["h01"].root / "current/media/new.mp4").mkdir()
    (movie / "media/new.mp4").write_bytes(os.urandom(SLICE_BYTES + 9000))
    assert_released(pair, pair.push(movie), movie)
    assert (outside / "new.mp4").read_text() == "not ours"
    assert [path.name for path in outside.iterdir()] == ["new.mp4"]
