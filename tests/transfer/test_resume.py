"""A broken upload goes on at the part where it stopped: in the same run, and in the next one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.test_damage import flip
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.transfer.kit import PART_BYTES, PARTS, assert_failed, assert_released

pytestmark = pytest.mark.sshd

LARGE_BYTES = 20_000_000


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("at", [1_000_000, PART_BYTES + 4_000_000, 2 * PART_BYTES + 2_000_000])
def test_a_connection_cut_in_the_middle_of_a_part(
    pair: Lab, large: Path, proxy: Proxy, at: int, retries: int
) -> None:
    pair.edit_ssh(retries=retries)
    proxy.up(cuts=[at])
    pushed = pair.push(large)
    assert_released(pair, pushed, large)
    counts = proxy.counts
    assert counts["accepted"] == 2
    # No more is sent twice than the part that was cut, and the one before it if it was being proven.
    assert LARGE_BYTES < counts["up"] < LARGE_BYTES + 2 * PART_BYTES
    assert LARGE_BYTES < (pushed.sent("h02") or 0) < LARGE_BYTES + 2 * PART_BYTES
    assert pushed.sent("h01") in range(LARGE_BYTES, LARGE_BYTES + 100_000)


def test_a_connection_cut_again_and_again(pair: Lab, large: Path, proxy: Proxy) -> None:
    """More often than `retries` allows is the host's failure; what was proven stays, and the next push sends the rest."""
    proxy.up(cuts=[PART_BYTES + 3_000_000, PART_BYTES + 6_000_000])
    failed = pair.push(large)
    assert_failed(pair, failed, "upload", 20)
    assert [part.name for part in pair["h02"].proven] == ["1"]
    sent = proxy.counts["up"]
    done = pair.push(large)
    assert_released(pair, done, large)
    rest = LARGE_BYTES - PART_BYTES
    assert rest < (done.sent("h02") or 0) < rest + 100_000
    assert proxy.counts["up"] - sent < rest + 500_000


def test_a_server_that_is_gone_for_good(pair: Lab, large: Path, proxy: Proxy) -> None:
    place = pair["h02"]
    place.gate(
        "none.scp", f'case "$*" in *part-2-*) touch {place.programs}/begun; exec cat >/dev/null ;; esac'
    )
    running = pair.start("push", large)
    wait_until((place.programs / "begun").exists, 30, "the second part under way")
    wait_until(lambda: [part.name for part in place.proven] == ["1"], 10, "the proof of the first part")
    pair.servers[1].stop_listener()
    proxy.reset()
    failed = running.finish()
    phase, code, message = failed.failure("h02")
    assert (phase, code) == ("upload", 20)
    assert "and then" in message
    assert pair.live == pair.everywhere(None)
    pair.servers[1].start()
    place.mend()
    done = pair.push(large)
    assert_released(pair, done, large)
    assert done.sent("h02") in range(LARGE_BYTES - PART_BYTES, LARGE_BYTES - PART_BYTES + 100_000)


def test_another_run_has_the_lock_when_it_is_back(pair: Lab, large: Path, proxy: Proxy) -> None:
    """Nothing goes on without the lock: it went with the connection, and somebody else took it."""
    place = pair["h02"]
    place.gate(
        "none.scp", f'case "$*" in *part-2-*) touch {place.programs}/begun; exec cat >/dev/null ;; esac'
    )
    place.gate(
        "lock",
        f"[ ! -e {place.programs}/begun ] || {{ exec 7>>{place.root}/.deployctl/lock; flock 7; sleep 30 & }}",
    )
    running = pair.start("push", large)
    wait_until((place.programs / "begun").exists, 30, "the second part under way")
    proxy.reset()
    failed = running.finish()
    assert failed.failure("h02")[:2] == ("upload", 50)
    assert pair.live == pair.everywhere(None)


def test_a_run_killed_in_mid_upload(pair: Lab, large: Path, proxy: Proxy) -> None:
    place = pair["h02"]
    place.gate(
        "none.scp",
        f'case "$*" in *part-3-*) : >{place.programs}/begun; printf "\\0"; read -r line; printf "\\0"; exec cat >/dev/null ;; esac',
    )
    running = pair.start("push", large)
    wait_until((place.programs / "begun").exists, 30, "the third part under way")
    wait_until(lambda: len(place.proven) == 2, 10, "two proven parts")
    running.wait_for_host("h01", "stage", "ok")
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 3, "the end of the workers")
    proxy.reset()  # it may not pass on such an end
    pair.assert_idle()
    assert [part.name for part in place.proven] == ["1", "2"]
    assert place.runs_left != []
    place.mend()
    sent = proxy.counts["up"]
    done = pair.push(large)
    assert_released(pair, done, large)
    rest = LARGE_BYTES - 2 * PART_BYTES
    assert rest < (done.sent("h02") or 0) < rest + 100_000
    assert proxy.counts["up"] - sent < rest + 500_000
    assert done.sent("h01") == 0


@pytest.mark.parametrize(
    "harm", ["flipped", "truncated", "gone", "a directory", "all but the first are here"]
)
def test_parts_that_changed_between_two_runs(pair: Lab, large: Path, harm: str) -> None:
    """Each is read again before it is fed to anything."""
    place = pair["h02"]
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    assert_failed(pair, pair.push(large), "stage", 32)
    assert len(place.proven) == PARTS
    second = place.proven[1]
    if harm == "flipped":
        flip(second)
    elif harm == "truncated":
        second.write_bytes(second.read_bytes()[:100_000])
    elif harm == "all but the first are here":
        second = place.proven[0]
        second.unlink()
    else:
        second.unlink()
        if harm == "a directory":
            second.mkdir()
    place.mend()
    done = pair.push(large)
    assert_released(pair, done, large)
    assert done.sent("h02") == PART_BYTES


def test_prune_removes_parts(pair: Lab, large: Path) -> None:
    place = pair["h02"]
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    pair.push(large)
    assert len(place.proven) == PARTS
    pruned = pair.start("prune").finish()
    assert pruned.code == 0
    assert place.incoming == []
    [line] = [event for event in pruned.of("h02") if event["phase"] == "prune" and event["state"] == "ok"]
    assert (line["data"]["artifacts"], line["data"]["leftovers"]) == (1, 0)


def test_a_run_of_another_tree_keeps_parts_until_it_has_succeeded(
    pair: Lab, large: Path, tmp_path: Path
) -> None:
    place = pair["h02"]
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    pair.push(large)
    place.mend()
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("other")
    place.gate("activate.mv")
    assert pair.push(other).code == 21
    assert len(place.proven) == PARTS
    place.mend()
    assert pair.push(other).code == 0
    assert place.incoming == []


def test_a_dry_run_counts_what_is_missing(pair: Lab, large: Path) -> None:
    place = pair["h02"]
    place.gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    pair.push(large)
    place.proven[0].unlink()
    place.mend()
    planned = pair.push(large, "--dry-run")
    [line] = [event for event in planned.of("h02") if event["message"] == "planned"]
    assert line["data"]["bytes_to_send"] == PART_BYTES


def test_a_loss_that_only_our_end_knows_of(pair: Lab, large: Path, proxy: Proxy) -> None:
    """The process that holds our lock lives on there: that is us, and no other run."""
    place = pair["h02"]
    place.gate(
        "none.scp",
        f'case "$*" in *part-2-*) [ -e {place.programs}/begun ] || {{ touch {place.programs}/begun; exec cat >/dev/null; }} ;; esac',
    )
    pair.edit_ssh(retries=2)
    running = pair.start("push", large)
    wait_until((place.programs / "begun").exists, 30, "the second part under way")
    pair.servers[1].freeze()
    proxy.reset()
    pushed = running.finish()
    pair.servers[1].thaw()
    assert_released(pair, pushed, large)


def test_a_connection_lost_while_the_lock_is_taken(pair: Lab, large: Path, proxy: Proxy) -> None:
    place = pair["h02"]
    place.gate("lock", f"touch {place.programs}/begun; sleep 60")
    running = pair.start("push", large)
    wait_until((place.programs / "begun").exists, 30, "the lock being taken")
    proxy.reset()
    failed = running.finish()
    assert failed.failure("h02")[1] == 20
    assert "connection" in failed.failure("h02")[2]
    assert pair.live == pair.everywhere(None)
