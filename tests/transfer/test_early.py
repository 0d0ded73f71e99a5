"""A first push of a large tree: parts are on hosts, unpacked, before the tree is packed to its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.release.lab import Lab, Place
from tests.release.trees import make_heavy, make_site
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.transfer.kit import PART_BYTES, Held, allow_sessions, assert_released

pytestmark = pytest.mark.sshd

LARGE_BYTES = 40_000_000


def early_parts(place: Place) -> list[str]:
    return sorted(path.name for path in place.root.glob(".deployctl/incoming/*/early.tar.zst.parts/*"))


def unpacked_bytes(place: Place) -> int:
    return sum(file.stat().st_size for file in place.root.glob(".deployctl/incoming/*/tree/random"))


def under_way(lab: Lab) -> None:
    for place in lab:
        wait_until(lambda p=place: len(early_parts(p)) >= 2, 40, "the first parts")  # type: ignore[misc]
        wait_until(lambda p=place: unpacked_bytes(p) > PART_BYTES, 40, "content of the first parts")  # type: ignore[misc]


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    """A tree of five parts."""
    return make_heavy(tmp_path / "heavy", LARGE_BYTES // 1000)


def test_parts_arrive_while_the_rest_is_packed(pair: Lab, heavy: Path, held: Held) -> None:
    (heavy / "locked").mkdir()
    (heavy / "locked/file").write_text("x")
    (heavy / "locked").chmod(0o555)
    running = held.start(heavy)
    under_way(pair)
    assert pair.live == pair.everywhere(None)
    assert all(place.proven == [] and place.releases == [] for place in pair)
    held.go_on()
    pushed = running.finish()
    assert_released(pair, pushed, heavy)
    for name in pair.names:
        assert LARGE_BYTES < (pushed.sent(name) or 0) < LARGE_BYTES + 100_000
        assert [p for p in pushed.phases(name) if p.startswith(("upload", "stage"))] == [
            "upload:running", "upload:ok", "stage:running", "stage:ok",
        ]  # fmt: skip


def test_a_failure_after_it_keeps_the_parts(pair: Lab, heavy: Path, held: Held) -> None:
    pair["h02"].gate("stage.mv", "case $* in *releases*) exit 1;; esac")
    held.go_on()
    failed = held.start(heavy).finish()
    assert failed.failure("h02")[:2] == ("stage", 32)
    assert [part.name for part in pair["h02"].proven] == ["1", "2", "3", "4"]
    pair["h02"].mend()
    done = pair.push(heavy)
    assert_released(pair, done, heavy)
    assert done.bytes_sent == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_while_it_is_packed(pair: Lab, heavy: Path, held: Held, number: signal.Signals) -> None:
    running = held.start(heavy)
    under_way(pair)
    running.signal(number)
    if number == signal.SIGINT:
        ended = running.finish()
        assert (ended.code, ended.outcome) == (130, "interrupted")
        assert ended.bytes_sent > 2 * PART_BYTES
        assert all(place.incoming == [] for place in pair)
    else:
        running.process.wait()
        wait_until(lambda: not running.family(), 5, "the end of the workers and of the packer")
    assert pair.live == pair.everywhere(None)
    pair.assert_idle()
    assert_released(pair, pair.push(heavy), heavy)


def test_source_changes_while_it_is_sent(pair: Lab, heavy: Path, held: Held) -> None:
    running = held.start(heavy)
    under_way(pair)
    (heavy / "one more").write_text("x")
    held.go_on()
    refused = running.finish()
    assert (refused.code, refused.outcome) == (11, "refused")
    assert all(place.incoming == [] for place in pair)
    assert_released(pair, pair.push(heavy), heavy)


def test_a_cut_while_it_is_packed(pair: Lab, heavy: Path, held: Held, proxy: Proxy) -> None:
    proxy.up(cuts=[PART_BYTES + 3_000_000])
    running = held.start(heavy)
    under_way(pair)
    held.go_on()
    assert_released(pair, running.finish(), heavy)
    assert LARGE_BYTES < proxy.counts["up"] < LARGE_BYTES + 2 * PART_BYTES


def test_packing_takes_longer_than_the_limit_of_a_phase(pair: Lab, heavy: Path, held: Held) -> None:
    """Hosts that wait for the packer are not hung, and not taken for it."""
    running = held.start(heavy, "--timeout", "2s")
    under_way(pair)
    from_here = len(running.events)
    running.wait_for(lambda e: e["event"] == "progress" and running.events.index(e) > from_here + 6)
    held.go_on()
    assert_released(pair, running.finish(), heavy)


def test_a_dry_run_sends_nothing(pair: Lab, heavy: Path, held: Held) -> None:
    held.go_on()
    assert held.start(heavy, "--dry-run").finish().outcome == "planned"
    assert all(list(place.root.iterdir()) == [] for place in pair)


def test_a_host_that_holds_something_waits_for_the_plan(
    pair: Lab, heavy: Path, held: Held, tmp_path: Path
) -> None:
    """Then nobody gets anything before it is known what each needs."""
    make_site(tmp_path / "site", "one")
    assert pair.push(tmp_path / "site", "--limit", "h01").code == 0
    held.go_on()
    for place in pair:
        place.gate("receive", f"case $D_ARTIFACT in *early*) : >{place.programs}/early ;; esac")
    assert_released(pair, held.start(heavy).finish(), heavy)
    assert not any((place.programs / "early").exists() for place in pair)


def test_a_server_that_allows_two_sessions(pair: Lab, heavy: Path, held: Held) -> None:
    for server in pair.servers:
        allow_sessions(server, 2)
    running = held.start(heavy)
    for place in pair:
        wait_until(lambda p=place: len(early_parts(p)) >= 2, 40, "the first parts")  # type: ignore[misc]
    held.go_on()
    assert_released(pair, running.finish(), heavy)
