"""Many hosts behind few workers: all released, or all left alone or put back; memory and descriptors stay flat.

Many loopback addresses, one real sshd. `make load` takes 500 hosts, the suite 40.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.faults.gauge import Gauge
from tests.faults.kit import Scene, check_invariants
from tests.release.lab import PATH, Lab, Place
from tests.release.running import Pushed
from tests.release.trees import make_site
from tests.support.sshd import SshdFarm, login_user

pytestmark = [pytest.mark.sshd, pytest.mark.cold]

HOSTS = int(os.environ.get("DEPLOYCTL_TEST_HOSTS", "40"))
FORKS = 32 if HOSTS > 100 else 8
LIMIT_S = 30 + HOSTS


@pytest.fixture
def crowd(sshd_farm: SshdFarm, client_key: Path, tmp_path: Path) -> Iterator[Scene]:
    """Hosts 127.1.0.1 …, each with a deploy root of its own, all behind one server."""
    programs = sshd_farm.directory / "h01/bin"
    server = sshd_farm(address="0.0.0.0", env={"PATH": f"{programs}:{PATH}"})
    places, entries = {}, []
    for number in range(1, HOSTS + 1):
        name, root = f"n{number:03}", server.directory / "hosts" / f"n{number:03}" / "root"
        root.mkdir(parents=True)
        places[name] = Place(name, root, server.port, programs)
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        entries.append({"name": name, "address": address, "path": str(root)})
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.1.*]:{server.port} {server.host_key.public}\n")
    inventory = tmp_path / "hosts.yaml"
    ssh = {
        "user": login_user(),
        "port": server.port,
        "identity_file": str(client_key),
        "known_hosts": str(known),
    }
    data = {"app": "shop", "path": "/srv/shop", "ssh": ssh, "groups": {"web": {"hosts": entries}}}
    inventory.write_text(yaml.safe_dump(data))
    here, there = tmp_path / "tmp-here", tmp_path / "tmp-there"
    here.mkdir()
    with Lab(tmp_path, places, inventory, [server]) as lab:
        yield Scene(lab, make_site(tmp_path / "site", "first"), here, there)


def measured(scene: Scene, what: str) -> tuple[Pushed, Gauge]:
    gauge = Gauge()
    running = scene.start("push", "--forks", str(FORKS), "--timeout", "5m")
    gauge.watch(running, LIMIT_S)
    ended = scene.end(running, timeout_s=LIMIT_S)
    parent, worker = gauge.most("parent"), gauge.most("worker")
    print(  # noqa: T201 - said with -s, by `make load`
        f"{what}: {HOSTS} hosts, {gauge.count('worker')} workers, exit {ended.code} after {ended.seconds:.1f} s, "
        f"skew {ended.last.get('skew_s')} s; parent {parent.peak_kib >> 10} MiB and {parent.descriptors} descriptors, "
        f"the largest worker {worker.peak_kib >> 10} MiB and {worker.descriptors} descriptors"
    )
    return ended, gauge


def hold(scene: Scene, ended: Pushed) -> None:
    names = sum((place.root / ".deployctl/lock.owner").exists() for place in scene.lab)
    print(f"  names left in locks: {names}")  # noqa: T201 - said with -s, by `make load`
    check_invariants(scene, ended, limit_s=LIMIT_S)


def failing(scene: Scene, point: str, rng: random.Random) -> list[str]:
    """Let one host in twenty, by lot, fail at this point."""
    names = sorted(rng.sample(scene.lab.names, max(1, HOSTS // 20)))
    patterns = "|".join(f"*/hosts/{name}/root*" for name in names)
    next(iter(scene.lab)).gate(point, f"case $PWD in {patterns}) exit 1;; esac")
    return names


@pytest.mark.timeout(60 + 8 * HOSTS)
def test_many_hosts(crowd: Scene) -> None:
    scene, rng = crowd, random.Random(7)
    ended, gauge = measured(scene, "released")
    assert ended.code == 0, ended.stderr
    hold(scene, ended)
    assert ended.last["skew_s"] < 5 + HOSTS / 25
    assert gauge.count("worker") == FORKS  # none was replaced for being slow
    each = -(-HOSTS // FORKS)  # hosts of one worker
    assert gauge.most("parent").peak_kib < (120 << 10) + 60 * HOSTS
    assert gauge.most("parent").descriptors < 40 + 4 * FORKS
    assert gauge.most("worker").peak_kib < (120 << 10) + 1000 * each
    assert max(use.descriptors for use in gauge.uses.values() if use.role == "worker") < 40 + 3 * each

    scene.change()
    failing(scene, "stage.tar", rng)
    aborted, gauge = measured(scene, "one in twenty fails while it is staged")
    assert (aborted.code, aborted.outcome) == (20, "aborted")
    hold(scene, aborted)
    assert gauge.count("worker") == FORKS
    next(iter(scene.lab)).mend()

    failing(scene, "activate.mv", rng)
    reverted, gauge = measured(scene, "one in twenty fails to switch")
    assert (reverted.code, reverted.outcome) == (21, "reverted"), reverted.stderr
    hold(scene, reverted)
    assert gauge.count("worker") == FORKS
    next(iter(scene.lab)).mend()

    done, _ = measured(scene, "released after that")
    assert done.code == 0, done.stderr
    hold(scene, done)
