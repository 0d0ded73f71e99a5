"""Labs as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.release.lab import PATH, Lab, embedded_lab, real_lab
from tests.release.trees import make_site
from tests.support.inventory import InventoryFor
from tests.support.sshd import SshdFarm

MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(sshd_farm: SshdFarm, inventory_for: InventoryFor, tmp_path: Path) -> Iterator[MakeLab]:
    """`make_lab(3)`: sshd servers h01 … with an inventory; `wrapper`, `path` and `env` for the servers, the rest for it.

    `{}` in `path` is the directory of the host's own programs, gates among them.
    """
    with ExitStack() as stack:

        def make(
            count: int,
            *,
            wrapper: str | None = None,
            path: str | None = None,
            env: Mapping[str, str] | None = None,
            **overrides: Any,
        ) -> Lab:
            servers = []
            for _ in range(count):
                name = f"h{len(sshd_farm.hosts) + 1:02}"
                programs = sshd_farm.directory / name / "bin"
                server = sshd_farm(
                    wrapper=wrapper,
                    env={"PATH": (path or f"{{}}:{PATH}").replace("{}", str(programs)), **(env or {})},
                )
                servers.append(server)
            return stack.enter_context(real_lab(servers, inventory_for, tmp_path, **overrides))

        yield make


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> int:
    """How many hosts a test has: two, unless it is marked `hosts(3)`."""
    marker = request.node.get_closest_marker("hosts")
    return int(marker.args[0]) if marker else 2


@pytest.fixture
def lab(make_lab: MakeLab, hosts: int) -> Lab:
    """Real servers."""
    return make_lab(hosts)


@pytest.fixture(params=[pytest.param("sshd", marks=pytest.mark.sshd), "embedded"])
def any_lab(request: pytest.FixtureRequest, tmp_path: Path, hosts: int) -> Iterator[Lab]:
    """Hosts behind real servers, and behind the embedded one."""
    if request.param == "sshd":
        made: MakeLab = request.getfixturevalue("make_lab")
        yield made(hosts)
        return
    with embedded_lab(hosts, tmp_path) as lab:
        yield lab


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small tree to release."""
    return make_site(tmp_path / "site", "one")
