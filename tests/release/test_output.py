"""Whatever becomes of standard output, the release goes on to a known end."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.running import PROGRAM

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize(
    ("where", "mode"),
    [
        (">&-", "json"),
        ("| head -n 1", "json"),
        ("| head -n 1", "plain"),
        (">/dev/full", "json"),
        (">/dev/full 2>&1", "plain"),
        (">&- 2>&- <&-", "plain"),
    ],
)
def test_the_release_goes_on(lab: Lab, site: Path, where: str, mode: str) -> None:
    command = shlex.join([*PROGRAM, "push", str(site), "-i", str(lab.inventory), "-o", mode])
    shell = f"set -o pipefail; {command} {where}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    [live] = set(lab.live.values())
    assert live is not None
    assert all('"confirm"' in place.history and place.incoming == [] for place in lab)


@pytest.mark.hosts(3)
def test_nothing_but_json_goes_to_standard_output(lab: Lab, site: Path) -> None:
    command = [*PROGRAM, "push", str(site), "-i", str(lab.inventory), "-o", "json", "-v", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "run_finished"
    assert events[-1]["outcome"] == "released"


def test_progress_is_told_at_most_twice_a_second(lab: Lab, site: Path) -> None:
    sign = lab["h02"].hold("stage.tar")
    running = lab.start("push", site)
    running.wait_for_host("h02", "stage")
    sign.unlink()
    pushed = running.finish()
    progress = [event for event in pushed.events if event["event"] == "progress"]
    assert len(progress) <= 2 + 2 * pushed.seconds
    for event in progress:
        assert {"bytes_done", "bytes_total", "hosts_done", "hosts_total"} <= event.keys()
