"""An artifact in several parts: whole on every host's disk, with nothing of the parts left; or a failure that says what it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.conftest import MakeLab
from tests.release.lab import Lab, tool_directory
from tests.release.test_userland import busybox_tools
from tests.release.trees import make_site
from tests.support.proc import wait_until
from tests.transfer.kit import PART_BYTES, PARTS, allow_sessions, assert_failed, assert_released, small_disk

pytestmark = pytest.mark.sshd


def test_first_push_and_a_small_change(pair: Lab, large: Path) -> None:
    first = pair.push(large)
    assert_released(pair, first, large)
    assert 20_000_000 < (first.sent("h01") or 0) < 20_100_000
    make_site(large, "changed")
    second = pair.push(large)
    assert_released(pair, second, large)
    assert second.bytes_sent < 100_000


def test_unpacking_overlaps_with_the_upload(pair: Lab, large: Path) -> None:
    """The first part is on the disk, unpacked, while the upload of the last is held up."""
    place = pair["h02"]
    sign = place.programs / "hold"
    place.gate("none.scp", f'case "$*" in *part-{PARTS}-*) while [ -e {sign} ]; do sleep 0.02; done ;; esac')
    sign.touch()
    running = pair.start("push", large)

    def unpacked() -> int:
        return sum(file.stat().st_size for file in place.root.glob(".deployctl/incoming/*/tree/random"))

    wait_until(lambda: unpacked() > PART_BYTES, 20, "content of the first parts in the tree")
    assert [part.name for part in place.proven] == ["1", "2"]
    sign.unlink()
    assert_released(pair, running.finish(), large)


def test_a_delta_in_parts(pair: Lab, large: Path) -> None:
    pair.push(large)
    (large / "more").write_bytes(os.urandom(18_000_000))
    second = pair.push(large)
    assert_released(pair, second, large)
    assert 18_000_000 < (second.sent("h01") or 0) < 18_100_000


@pytest.mark.parametrize("without", ["zstd", "openssl"])
def test_hosts_that_lack_a_tool(make_lab: MakeLab, tmp_path: Path, large: Path, without: str) -> None:
    lab = make_lab(1, path=str(tool_directory(tmp_path / "tools", without=(without,))))
    assert_released(lab, lab.push(large), large)


def test_busybox_alone(make_lab: MakeLab, tmp_path: Path, large: Path) -> None:
    tools = busybox_tools(tmp_path / "tools", "zstd")
    lab = make_lab(1, path=str(tools), wrapper="RUN_WITH='busybox sh'")
    assert_released(lab, lab.push(large), large)
    (large / "more").write_bytes(os.urandom(18_000_000))
    assert_released(lab, lab.push(large), large)


@pytest.mark.parametrize("sessions", [2, 3])
def test_a_server_that_allows_few_sessions(make_lab: MakeLab, large: Path, sessions: int) -> None:
    """With two there is no room for what unpacks beside scp: parts go one by one, and are unpacked later."""
    lab = make_lab(1)
    [server] = lab.servers
    allow_sessions(server, sessions)
    first = lab.push(large)
    assert_released(lab, first, large)
    assert 20_000_000 < first.bytes_sent < 20_100_000


# ---- what fails on the host


@pytest.mark.parametrize("tool", ["tar", "zstd"])
@pytest.mark.parametrize("how", ["exit 3", "kill -s KILL $$", "head -c 9000000 >/dev/null; exit 3"])
def test_a_tool_that_fails_or_dies(pair: Lab, large: Path, tool: str, how: str) -> None:
    """Proven parts stay, since they are what was sent; so the next push sends nothing."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    place = pair["h02"]
    place.gate(f"receive.{tool}", how)
    failed = pair.push(large)
    phase = failed.failure("h02")[0]
    assert phase in {"upload", "stage"}
    assert_failed(pair, failed, phase, 33, "tar failed")
    kept = len(place.proven)
    assert kept > 0
    place.mend()
    done = pair.push(large)
    assert_released(pair, done, large)
    assert (done.sent("h02") or 0) <= (PARTS - kept) * PART_BYTES


def test_a_tar_that_succeeds_and_does_nothing(pair: Lab, large: Path) -> None:
    pair["h02"].gate("receive.tar", "exit 0")
    failed = pair.push(large)
    assert_failed(pair, failed, failed.failure("h02")[0], 33)


def test_a_tar_that_hangs(pair: Lab, large: Path) -> None:
    pair["h02"].gate("receive.tar", "case $* in -x*) exec sleep 100 ;; esac")
    failed = pair.push(large, "--timeout", "3s")
    assert_failed(pair, failed, "stage", 11, "unpacking")
    assert failed.seconds < 20


@pytest.mark.parametrize("victim", ["cat", "sha256sum", "sh"])
def test_a_killed_process(pair: Lab, large: Path, victim: str) -> None:
    place = pair["h02"]
    if victim == "sha256sum":
        place.gate("receive.openssl", '[ "$(readlink /proc/self/fd/0)" = /dev/null ] || kill -s KILL $$')
    else:
        place.gate({"cat": "receive.cat", "sh": "receive.mv"}[victim], 'kill -s KILL "$PPID"')
    failed = pair.push(large)
    phase, code, _ = failed.failure("h02")
    assert phase in {"upload", "stage"}
    assert code in {20, 33}
    assert_failed(pair, failed, phase, code)
    place.mend()
    assert_released(pair, pair.push(large), large)


@pytest.mark.parametrize("harm", ["zeros", "truncated", "flipped"])
def test_a_part_damaged_on_the_way(pair: Lab, large: Path, harm: str) -> None:
    """What is on the disk once scp is done is not what was sent."""
    place = pair["h02"]
    real = shutil.which("scp")
    script = {
        "zeros": 'head -c 8388608 /dev/zero >"$file"',
        "truncated": 'head -c 5000 "$file" >"$file.0"; mv "$file.0" "$file"',
        "flipped": 'printf X | dd of="$file" bs=1 seek=70000 conv=notrunc 2>/dev/null',
    }[harm]
    place.program(
        "scp",
        f'#!/bin/sh\nfor file; do :; done\n{real} "$@"; s=$?\ncase $file in *part-2-*) {script} ;; esac\nexit $s\n',
    )
    # scp has told its end to us before it is over, and what is looked at is there by then.
    place.gate(
        "receive",
        'sed() { command sed "$@"; }; sha_of() { sleep 0.3; openssl dgst -sha256 -r <"$1" | cut -c1-64; }',
    )
    failed = pair.push(large)
    assert_failed(pair, failed, "upload", 33, "part 2", "damaged")
    assert [part.name for part in place.proven] == ["1"]
    (place.programs / "scp").unlink()
    place.mend()
    done = pair.push(large)
    assert_released(pair, done, large)
    assert 11_000_000 < (done.sent("h02") or 0) < 13_000_000


@pytest.fixture
def small(pair: Lab) -> Iterator[None]:
    """h02 has a disk of 60 MB."""
    with small_disk(pair["h02"].root, 60):
        yield


@pytest.mark.root
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("point", ["none.scp", "receive.tar"])
def test_a_disk_that_fills_up_in_mid_part(pair: Lab, large: Path, point: str) -> None:
    place = pair["h02"]
    once = f"[ -e {place.programs}/filled ] || {{ : >{place.programs}/filled; dd if=/dev/zero of={place.root}/filler bs=4096 2>/dev/null; }}"
    place.gate(point, once if point == "receive.tar" else f'case "$*" in *part-2-*) {once} ;; esac')
    failed = pair.push(large)
    phase = failed.failure("h02")[0]
    assert phase == "upload" or (phase, point) == ("stage", "receive.tar")  # tar may be behind by all of it
    assert_failed(pair, failed, phase, 31, "no space left")
    (place.root / "filler").unlink()
    place.mend()
    assert_released(pair, pair.push(large), large)


def test_a_tool_that_warns_on_standard_error(pair: Lab, large: Path) -> None:
    place = pair["h02"]
    real = shutil.which("openssl")
    place.program("openssl", f'#!/bin/sh\necho "WARNING: can\'t open config file" >&2\nexec {real} "$@"\n')
    place.gate("probe", "")
    assert_released(pair, pair.push(large), large)


def test_words_of_scp_that_speak_of_a_timeout(pair: Lab, large: Path) -> None:
    """They are told as they are, and the host is asked for the reason."""
    said = "scp: /srv/session-timeouts/part-1-1: Input/output error"
    pair["h02"].gate("none.scp", f'printf "\\001{said}\\n"; exit 1')
    failed = pair.push(large)
    phase, code, message = failed.failure("h02")
    assert (phase, code) == ("upload", 20)
    assert said in message
