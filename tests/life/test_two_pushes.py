"""Pushes that meet, again and again: one wins, the other is refused or waits, no host has half of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.release.lab import Lab
from tests.release.running import Pushed
from tests.release.trees import make_site, walk

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

ROUNDS = int(os.environ.get("DEPLOYCTL_TEST_ROUNDS", "4"))  # `make crash` takes 30


@pytest.mark.hosts(3)
@pytest.mark.timeout(40 + 20 * ROUNDS)
def test_pushes_that_meet(lab: Lab, tmp_path: Path) -> None:
    """The same hosts, or hosts that overlap, named in different order; the loser's exit is 12, or 0 when it waited."""
    trees = {name: make_site(tmp_path / name, name) for name in ("a", "b")}
    limits = [(None, None), ("h01,h02", "h03,h02"), ("h03,h01", None)]
    won = 0
    for number in range(ROUNDS):
        for name, tree in trees.items():
            (tree / "round").write_text(f"{name} {number}")
        waits = number % 3 == 2
        pairs = list(zip(trees, limits[number % len(limits)], strict=True))
        if number % 2:
            pairs.reverse()
        before = lab.live
        runs = {}
        for name, limit in pairs:
            more = (["-l", limit] if limit else []) + (["--wait-lock", "1m"] if waits else [])
            runs[name] = lab.start("push", trees[name], *more)
        ended = {name: running.finish() for name, running in runs.items()}
        codes = sorted(each.code for each in ended.values())
        assert codes == [0, 0] or (codes == [0, 12] and not waits), [each.hosts for each in ended.values()]
        won += codes == [0, 12]
        check_hosts(lab, ended, before, trees)
    print(f"{ROUNDS} rounds, {won} of them with a loser")  # noqa: T201 - said with -s, by `make crash`


def check_hosts(
    lab: Lab, ended: dict[str, Pushed], before: dict[str, str | None], trees: dict[str, Path]
) -> None:
    """Every host serves, whole, the tree of a run that ended well on it, or what it served before."""
    content = {each.release: walk(trees[name]) for name, each in ended.items() if each.code == 0}
    for place in lab:
        released = [
            each.release for each in ended.values() if each.code == 0 and place.name in each.last["hosts"]
        ]
        live = str(place.live).removeprefix("releases/")
        assert live in released if released else place.live == before[place.name]
        if released:
            assert walk(place.root / "current") == content[live]
        assert place.runs_left == []
        assert not (place.root / ".deployctl/lock.owner").exists()
    everywhere = [
        each for each in ended.values() if each.code == 0 and len(each.last["hosts"]) == len(lab.names)
    ]
    if len(everywhere) == 1 and sum(each.code == 0 for each in ended.values()) == 1:
        assert lab.live == lab.serves(everywhere[0].release)
