"""How often a release waits for the network: counted on the wire, from the TCP connection to the end of the run."""

from __future__ import annotations

from pathlib import Path

from tests.release.lab import Lab
from tests.support.proxy import Proxy

ALL_IN_ALL = 20


def test_a_redeploy_takes_few_round_trips(lab: Lab, site: Path) -> None:
    lab.push(site)
    (site / "index.html").write_text("changed")
    with Proxy(("127.0.0.1", lab.servers[0].port)) as proxy:
        lab.through("h01", proxy.port)
        proxy.both(delay_s=0.05)  # what goes out at once counts as one
        pushed = lab.push(site)
        turns = proxy.counts["turns"]
    assert pushed.outcome == "released"
    assert 5 < turns <= ALL_IN_ALL


def test_a_server_that_allows_two_sessions_is_enough(lab: Lab, site: Path) -> None:
    """The lock takes one; the shell that waits for the next command gives way to scp."""
    lab.servers[0].stop_listener()
    lab.servers[0].config = ["MaxSessions 2"]
    lab.servers[0].start()
    for number in range(2):
        (site / "index.html").write_text(f"version {number}")
        assert lab.push(site).outcome == "released"
    assert (lab["h01"].root / "current/index.html").read_text() == "version 1"
