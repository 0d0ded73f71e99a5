"""Whatever ends a push, what was proven of a file that travels as it is is kept, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab, Place
from tests.release.trees import make_site
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.transfer.kit import (
    BARE_BYTES,
    LAST_BYTES,
    PART_BYTES,
    SLICE_BYTES,
    Held,
    assert_failed,
    assert_released,
    growing,
    kept,
)

pytestmark = pytest.mark.sshd

AT_THE_END = "case $* in *releases*) : >{sign}; exec sleep 1000;; esac"


def stands_still_at_the_end(place: Place) -> Path:
    """Staging stops where the release would get its name; the returned file is there by then."""
    sign = place.programs / "at-the-end"
    place.gate("stage.mv", AT_THE_END.format(sign=sign))
    return sign


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize("end", ["SIGINT", "SIGKILL", "another host", "connection"])
def test_an_end_in_the_midst_of_staging(pair: Lab, movie: Path, proxy: Proxy, end: str) -> None:
    """By then the file has left the parts for the tree; it goes back."""
    place, live = pair["h02"], pair.live
    sign = stands_still_at_the_end(place)
    if end == "another host":
        pair["h01"].gate(
            "stage.mv", f"case $* in *releases*) until [ -e {sign} ]; do sleep 0.02; done; exit 1;; esac"
        )
    running = pair.start("push", movie)
    wait_until(sign.exists, 30, "the end of staging")
    if end == "connection":
        proxy.reset()
    elif end != "another host":
        running.wait_for_host("h01", "stage", "ok")
        running.signal(getattr(signal, end))
    if end == "SIGKILL":
        running.process.wait()
        wait_until(lambda: not running.family(), 5, "the end of the workers")
        proxy.reset()
    else:
        running.finish()
        assert kept(place)["1-3"] == BARE_BYTES or end == "connection"
    pair.assert_idle()
    assert pair.live == live
    place.mend()
    pair["h01"].mend()
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert done.sent("h02") == 0


@pytest.mark.usefixtures("begun")
def test_the_second_file_can_not_be_put_in_its_place(pair: Lab, movie: Path) -> None:
    (movie / "second").write_bytes(os.urandom(SLICE_BYTES))
    live = pair.live
    pair["h02"].gate("stage.chmod", "case $* in *second*) exit 1;; esac")
    failed = pair.push(movie)
    assert_failed(pair, failed, "stage", 32, "second", live=live)
    assert set(kept(pair["h02"])) >= {"1-3", "4-4"}
    pair["h02"].mend()
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert done.sent("h02") == 0


@pytest.mark.usefixtures("begun")
def test_an_end_while_slices_are_put_together(pair: Lab, movie: Path) -> None:
    """The one that was under way may be lost; those before it and behind it are not."""
    place = pair["h02"]
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    assert pair.push(movie).code == 20
    file = next(path for path in place.proven if path.name == "1-3")
    os.truncate(file, SLICE_BYTES)
    file.rename(file.with_name("1-1"))
    place.gate("stage.mv", "")
    sign = place.programs / "joining"
    place.gate("stage.cat", f"case $* in */3-3) : >{sign}; exec sleep 1000;; esac")
    running = pair.start("push", movie)
    wait_until(sign.exists, 30, "the last slice being put behind the others")
    running.signal(signal.SIGINT)
    running.finish()
    place.mend()
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert (done.sent("h02") or 0) <= LAST_BYTES


SHORT = """
import os, sys
left = int(sys.argv[1])
while left > 0 and (data := os.read(0, min(left, 65536))):
    left -= len(data)
    while data:
        data = data[os.write(1, data) :]
"""


@pytest.mark.usefixtures("begun")
def test_a_host_that_may_fail(pair: Lab, movie: Path) -> None:
    """It gets no other command after it: what was not proven goes all the same."""
    place = pair["h02"]
    real = shutil.which("scp")
    place.program("short.py", SHORT)
    short = f"{sys.executable} -IS {place.programs}/short.py {SLICE_BYTES + 6_000_000}"
    place.program(
        "scp",
        f'#!/bin/sh\ncase $* in *new-*) {short} | {real} "$@"; exit 1 ;;\n*) exec {real} "$@" ;; esac\n',
    )
    failed = pair.push(movie, "--max-failures", "1")
    assert failed.failure("h02")[0] == "upload"
    assert growing(place) == []
    assert set(kept(place)) <= {"1-1"}
    (place.programs / "scp").unlink()
    assert_released(pair, pair.push(movie), movie)


def test_a_limit_of_the_size_of_files(make_lab: MakeLab, movie: Path, tmp_path: Path) -> None:
    lab = make_lab(2, wrapper=f"case $PATH in */h02/*) ulimit -f {40 << 10} ;; esac")
    assert lab.push(make_site(tmp_path / "begun", "begun")).code == 0
    live = lab.live
    failed = lab.push(movie)
    assert_failed(lab, failed, "upload", 31, "ulimit -f", live=live)


# Holds back the last of its input until the file says so.
LATE = """
import os, pathlib, sys, time
left, sign, held = int(sys.argv[1]), pathlib.Path(sys.argv[2]), b""
while data := os.read(0, 65536):
    left -= len(data)
    if left < 0:
        held += data
        continue
    while data:
        data = data[os.write(1, data) :]
while not sign.exists():
    time.sleep(0.02)
while held:
    held = held[os.write(1, held) :]
sign.with_name("written").touch()
"""


@pytest.mark.usefixtures("begun")
def test_scp_of_a_lost_connection_writes_on(pair: Lab, movie: Path, proxy: Proxy) -> None:
    """What it writes lies behind what was proven, and is cut before more is put there."""
    place = pair["h02"]
    sign, written = place.programs / "go-on", place.programs / "written"
    real = shutil.which("scp")
    place.program("late.py", LATE)
    place.program(
        "scp",
        f'#!/bin/sh\ncase $* in *new-*) {sys.executable} -IS {place.programs}/late.py {SLICE_BYTES + 8_000_000} {sign} | {real} "$@" ;;\n'
        f'*part-3-*) {real} "$@"; s=$?; touch {sign}; until [ -e {written} ]; do sleep 0.02; done; exit $s ;;\n'
        f'*) exec {real} "$@" ;; esac\n',
    )
    pair.edit_ssh(retries=2)
    proxy.up(cuts=[SLICE_BYTES + 20_000_000])
    pushed = pair.push(movie)
    assert_released(pair, pushed, movie)
    assert written.exists()


# ---- sent while it is packed


def test_a_host_that_begins_late(pair: Lab, movie: Path, held: Held) -> None:
    """What the parts are parts of is known before anything is sent to it."""
    sign = pair["h02"].hold("receive")
    running = held.start(movie)
    place = pair["h01"]
    wait_until(lambda: any(place.root.glob(".deployctl/incoming/*/early.tar.zst.parts/1-3")), 40, "the file")
    held.go_on()
    wait_until(lambda: any(place.root.glob(".deployctl/incoming/*.parts/1-3")), 40, "the name")
    sign.unlink()
    assert_released(pair, running.finish(), movie)


def test_a_name_behind_what_is_still_being_proven(pair: Lab, movie: Path, held: Held, proxy: Proxy) -> None:
    """The next file waits until its directory has moved."""
    (movie / "another").write_bytes(os.urandom(2 * SLICE_BYTES))
    place = pair["h02"]
    sign = place.programs / "read-on"
    place.gate("receive.dd", f"until [ -e {sign} ]; do sleep 0.02; done")
    proxy.up(rate=30_000_000)
    running = held.start(movie)

    def arrived() -> int:
        return sum(
            path.stat().st_size for path in place.root.glob(".deployctl/incoming/*/early.tar.zst.parts/new-*")
        )

    wait_until(lambda: arrived() > 2 * SLICE_BYTES - 5_000_000, 40, "nearly all of the first file")
    held.go_on()
    wait_until(lambda: any(pair["h01"].root.glob(".deployctl/incoming/*.parts/1-2")), 40, "the name")
    sign.touch()
    assert_released(pair, running.finish(), movie)


def test_a_name_that_is_known_last(pair: Lab, movie: Path, held: Held, proxy: Proxy, tmp_path: Path) -> None:
    """All of it was sent to h01 by then, and stays when the run ends before h02 has it."""
    site = tmp_path / "slow/sitecustomize.py"
    sign = tmp_path / "summed-up"
    site.write_text(
        site.read_text()
        + f"""
summary = packing._Packing._summary
def late(*arguments):
    while not pathlib.Path({str(sign)!r}).exists():
        time.sleep(0.02)
    return summary(*arguments)
packing._Packing._summary = late
"""
    )
    proxy.up(rate=5_000_000)
    held.go_on()
    running = held.start(movie)
    place = pair["h01"]
    wait_until(lambda: any(place.root.glob(".deployctl/incoming/*/early.tar.zst.parts/4")), 40, "all of it")
    sign.touch()
    wait_until(lambda: "1-3" in kept(place), 20, "the name")
    running.signal(signal.SIGINT)
    running.finish()
    assert kept(place)["1-3"] == BARE_BYTES
    proxy.up(rate=None)
    done = pair.push(movie)
    assert_released(pair, done, movie)
    assert (done.sent("h01") or 0) < PART_BYTES


def test_an_edit_between_proof_and_staging(pair: Lab, movie: Path, held: Held) -> None:
    """A file is read again if anybody wrote to it since all of it was proven."""
    running = held.start(movie)
    place = pair["h02"]
    wait_until(lambda: any(place.root.glob(".deployctl/incoming/*/proof-1-3")), 40, "the proof of the file")
    [file] = place.root.glob(".deployctl/incoming/*/early.tar.zst.parts/1-3")
    was = file.stat()
    with file.open("r+b") as edited:
        edited.write(b"not ours")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    held.go_on()
    failed = running.finish()
    assert_failed(pair, failed, "stage", 33, "media/film.mp4")
    assert_released(pair, pair.push(movie), movie)
