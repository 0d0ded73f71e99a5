"""Fixtures for every test: an environment of its own, and real SSH servers."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.inventory import InventoryFor
from tests.support.inventory import inventory_for as write_inventory
from tests.support.keys import KeyPair, host_keys, make_key
from tests.support.sshd import ADVICE, SshdFarm, find_sshd
from tests.support.warm import Warm

# What the machine's user has set and must not reach code under test.
FOREIGN = ("DEPLOYCTL_", "SSH_", "GIT_", "XDG_", "GITHUB_")
FOREIGN_NAMES = (
    "CI",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "TERM",
    "COLUMNS",
    "LINES",
    "PAGER",
    "EDITOR",
)


def pytest_configure() -> None:
    """Signals are heard, and by what tests start as well: under nohup, or in a script's background, some begin ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are processors: a third of the time tests wait, for a limit or a lease to run out."""
    count = os.cpu_count() or 1
    return count + (count + 1) // 2


@pytest.hookimpl(tryfirst=True)  # before fixtures hide CI
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("sshd") and find_sshd() is None:
        if os.environ.get("CI"):
            pytest.fail(ADVICE, pytrace=False)
        pytest.skip(ADVICE)
    if item.get_closest_marker("root") and os.getuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(autouse=True)
def own_environment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """HOME and the XDG directories are empty ones of this test alone; gives HOME."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name in FOREIGN_NAMES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "CACHE", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / f"xdg-{name.lower()}"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def _cold_if_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("cold"):
        monkeypatch.setattr(Warm, "allowed", False)


@pytest.fixture(scope="session")
def client_key_pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_key(tmp_path_factory.mktemp("client") / "id_ed25519")


@pytest.fixture(scope="session")
def client_key(client_key_pair: KeyPair) -> Path:
    """The private key that every server of the farm lets in."""
    return client_key_pair.path


@pytest.fixture(scope="session")
def host_key_supply(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyPair]:
    return host_keys(tmp_path_factory.mktemp("hostkeys"))


@pytest.fixture
def sshd_farm(
    tmp_path: Path, host_key_supply: Iterator[KeyPair], client_key_pair: KeyPair
) -> Iterator[SshdFarm]:
    """A call makes a server, as in `sshd_farm("MaxSessions 2", wrapper="echo noise")`; see `Sshd`."""
    with SshdFarm(tmp_path / "farm", host_key_supply, [client_key_pair.public]) as farm:
        yield farm


@pytest.fixture
def inventory_for(tmp_path: Path, client_key: Path) -> InventoryFor:
    """`inventory_for(hosts, **overrides)`: the path of a hosts.yaml for these servers."""

    def write(hosts: Any, **overrides: Any) -> Path:
        return write_inventory(hosts, tmp_path, client_key, **overrides)

    return write
