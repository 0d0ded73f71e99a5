"""Far hosts get several parts at once, over as many channels of one connection as the server allows."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.kit import Kit, to
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.trees import make_heavy
from tests.support.proc import wait_until
from tests.support.proxy import Proxy
from tests.support.sshd import SshdFarm
from tests.transfer.kit import PART_BYTES, allow_sessions, assert_released

pytestmark = pytest.mark.sshd

CHANNELS = 4
WIDE_BYTES = 40_000_000


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A tree of five parts."""
    return make_heavy(tmp_path / "wide", WIDE_BYTES // 1000)


@pytest.fixture
def single(make_lab: MakeLab) -> Lab:
    return make_lab(1)


@pytest.fixture
def far(single: Lab) -> Iterator[Proxy]:
    """Puts 60 ms between us and the only host."""
    with Proxy(("127.0.0.1", single.servers[0].port)) as proxy:
        single.through("h01", proxy.port)
        proxy.both(delay_s=0.03)
        yield proxy


def test_several_channels_at_once(single: Lab, wide: Path, far: Proxy) -> None:
    place = single["h01"]
    signs = f"{place.programs}/scp-"
    place.gate(
        "none.scp",
        f': >{signs}$$; until [ "$(echo {signs}* | wc -w)" -ge {CHANNELS} ]; do sleep 0.02; done',
    )
    pushed = single.push(wide)
    assert_released(single, pushed, wide)
    assert far.counts["accepted"] == 1
    assert WIDE_BYTES < pushed.bytes_sent < WIDE_BYTES + 100_000


def test_who_is_far(kit: Kit, sshd_farm: SshdFarm) -> None:
    """By the kernel's word or, where that sees only a proxy, by the time in which channels open."""
    server = sshd_farm()
    kit.knows(server)
    connection = kit.open(kit.target(**to(server)))
    connection.open_session(10).close()
    connection._opened_s = min(connection._opened_s, 0.03)
    assert not connection.is_far
    connection._opened_s = 0.05
    assert connection.is_far


@pytest.mark.parametrize("sessions", [2, 3, 4])
def test_a_far_server_that_allows_few_sessions(single: Lab, wide: Path, far: Proxy, sessions: int) -> None:
    [server] = single.servers
    allow_sessions(server, sessions)
    far.redirect(("127.0.0.1", server.port))
    pushed = single.push(wide)
    assert_released(single, pushed, wide)
    assert far.counts["accepted"] == 1


def test_a_cut_with_several_parts_under_way(single: Lab, wide: Path, far: Proxy) -> None:
    far.up(delay_s=0.03, cuts=[12_000_000])
    pushed = single.push(wide)
    assert_released(single, pushed, wide)
    assert WIDE_BYTES < far.counts["up"] < WIDE_BYTES + (CHANNELS + 1) * PART_BYTES
    assert far.counts["accepted"] == 2


def test_a_stop_ends_all_of_them(single: Lab, wide: Path, far: Proxy) -> None:
    place = single["h01"]
    far.up(delay_s=0.03, rate=4_000_000)

    def attempts() -> list[Path]:
        return list(place.root.glob(".deployctl/incoming/*/part-*"))

    running = single.start("push", wide)
    wait_until(
        lambda: len([p for p in attempts() if p.stat().st_size > 100_000]) == CHANNELS, 30, "four parts"
    )
    running.signal(signal.SIGINT)
    stopped_at = time.monotonic()
    ended = running.finish()
    assert time.monotonic() - stopped_at < 10
    assert (ended.code, ended.outcome) == (130, "interrupted")
    assert place.runs_left == []
    assert single.live == single.everywhere(None)
    single.assert_idle()
    far.up(rate=None)
    done = single.push(wide)
    assert_released(single, done, wide)


def test_the_limit_is_that_of_all_channels(single: Lab, wide: Path, far: Proxy) -> None:
    pushed = single.push(wide, "--limit-rate", "8MB")
    assert_released(single, pushed, wide)
    [line] = [e for e in pushed.of("h01") if (e["phase"], e["state"]) == ("upload", "ok")]
    assert line["elapsed_s"] > 0.9 * WIDE_BYTES / 8_000_000


def test_a_stalled_link(single: Lab, wide: Path, far: Proxy) -> None:
    far.up(rate=4_000_000)
    running = single.start("push", wide, "--timeout", "2s")
    wait_until(lambda: far.counts["up"] > 5_000_000, 30, "an upload under way")
    far.both(mode="stall")
    stalled_at = time.monotonic()
    ended = running.finish()
    assert time.monotonic() - stalled_at < 2 + 10
    assert ended.failure("h01")[:2] == ("upload", 11)
    far.both(mode="pass", rate=None)
    far.reset()
    assert_released(single, single.push(wide), wide)
