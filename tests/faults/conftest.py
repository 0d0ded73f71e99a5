"""Scenes as fixtures: real hosts with a release on them, and what this machine allows for breaking them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import Scene
from tests.life.moments import configure
from tests.release.lab import PATH, Lab, real_lab
from tests.release.trees import make_site
from tests.support.inventory import InventoryFor
from tests.support.sshd import SshdFarm

MakeScene = Callable[..., Scene]
ROWS = Path(__file__).with_name("rows.md")


def rows() -> dict[str, list[tuple[str, str]]]:
    """The tables of rows.md by section: what stands in the first column and in the second."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in ROWS.read_text().splitlines():
        if line.startswith("## "):
            found[line[3:]] = []
        elif line.startswith("| ") and not line.startswith(("| ---", "| fault |", "| begins")):
            first, second = line.strip("| ").split(" | ")
            found[next(reversed(found))].append((first, second))
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for a reason that is not written down fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(first for first, _ in rows()["What may be skipped"])):
            report.outcome = "failed"
            report.longrepr = f"skipped for a reason that rows.md does not have: {reason}"
    return report


@pytest.fixture
def make_scene(sshd_farm: SshdFarm, inventory_for: InventoryFor, tmp_path: Path) -> Iterator[MakeScene]:
    """`make_scene(2)`: hosts h01 … with a release on each and a changed tree to push; `configs` are sshd's lines by name."""
    with ExitStack() as stack:

        def make(
            count: int = 2,
            *,
            settled: bool = True,
            configs: Mapping[str, Sequence[str]] | None = None,
            wrappers: Mapping[str, str] | None = None,
            address: str = "127.0.0.1",
            **overrides: Any,
        ) -> Scene:
            here, there = tmp_path / "tmp-here", tmp_path / "tmp-there"
            here.mkdir()
            there.mkdir()
            servers = []
            for _ in range(count):
                name = f"h{len(sshd_farm.hosts) + 1:02}"
                programs = sshd_farm.directory / name / "bin"
                server = sshd_farm(
                    *(configs or {}).get(name, ()),
                    wrapper=(wrappers or {}).get(name),
                    address=address,
                    env={"PATH": f"{programs}:{PATH}", "TMPDIR": str(there)},
                )
                servers.append(server)
            lab: Lab = stack.enter_context(real_lab(servers, inventory_for, tmp_path, **overrides))
            configure(lab, vars={"API_TOKEN": {"env": "FAULTS_TOKEN", "secret": True}})
            scene = Scene(lab, make_site(tmp_path / "site", "first"), here, there)
            if settled:
                scene.settle()
            return scene

        yield make


@pytest.fixture
def scene(make_scene: MakeScene) -> Scene:
    """Two hosts that serve a release; h02 is the one to break."""
    return make_scene()
