"""`--limit-rate`: no more than so many bytes a second leave, whoever sends them."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deployctl.errors import UsageError
from deployctl.model import Phase, State
from deployctl.release.uplink import Uplink, check_rate
from tests.release.lab import Lab

RATE = 1_000_000


class FakeCrew:
    def __init__(self) -> None:
        self.sent: list[tuple[int, float]] = []

    def send(self, worker: int, message: Mapping[str, Any]) -> None:
        self.sent.append((worker, message["bytes_s"]))

    def shares(self) -> dict[int, float]:
        found = dict(self.sent)
        self.sent.clear()
        return found


def test_whoever_uploads_has_the_same_share() -> None:
    crew = FakeCrew()
    uplink = Uplink(crew, 900)  # type: ignore[arg-type]
    uplink.hear("a", 1, Phase.UPLOAD, State.RUNNING)
    assert crew.shares() == {1: 900}
    uplink.hear("b", 2, Phase.UPLOAD, State.RUNNING)
    uplink.hear("c", 3, Phase.PROBE, State.RUNNING)
    assert crew.shares() == {1: 450, 2: 450}
    uplink.hear("c", 3, Phase.UPLOAD, State.RUNNING)
    assert crew.shares() == {1: 300, 2: 300, 3: 300}
    uplink.hear("a", 1, Phase.UPLOAD, State.OK)
    uplink.hear("b", None, None, None)
    assert crew.shares() == {2: 450, 3: 900}


def test_without_a_limit_nobody_is_told_anything() -> None:
    crew = FakeCrew()
    Uplink(crew, None).hear("a", 1, Phase.UPLOAD, State.RUNNING)  # type: ignore[arg-type]
    assert not crew.sent


@pytest.mark.hosts(3)
def test_a_limit_that_leaves_a_worker_nothing_is_refused(lab: Lab, site: Path) -> None:
    with pytest.raises(UsageError, match="too few for 32 workers"):
        check_rate(32 * 1024 - 1, 32)
    check_rate(32 * 1024, 32)
    refused = lab.start("push", site, "--limit-rate", "2KiB").finish()
    assert refused.code == 2
    assert "at least 3KiB" in refused.stderr
    assert lab.live == lab.everywhere(None)


@pytest.mark.hosts(3)
@pytest.mark.parametrize("forks", ["1", "3"])
def test_no_more_than_the_limit_leaves(lab: Lab, site: Path, forks: str) -> None:
    (site / "image").write_bytes(random.Random(1).randbytes(RATE))
    pushed = lab.push(site, "--limit-rate", f"{RATE}", "--forks", forks)
    assert pushed.outcome == "released"
    assert pushed.bytes_sent > 3 * RATE
    assert pushed.seconds > 2.5  # three million bytes at one a microsecond, but for the first slices
    assert all((place.root / "current/image").stat().st_size == RATE for place in lab)


def test_an_abort_does_not_wait_for_the_limit(lab: Lab, site: Path) -> None:
    (site / "image").write_bytes(random.Random(2).randbytes(20 * RATE))
    running = lab.start("push", site, "--limit-rate", "100KB")
    running.wait_for(lambda event: event["event"] == "progress" and event["bytes_done"] > 0)
    running.signal(signal.SIGTERM)
    assert running.finish(timeout_s=20).code == 143
    assert lab.live == lab.everywhere(None)
