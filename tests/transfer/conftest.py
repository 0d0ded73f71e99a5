"""Trees whose artifact travels in parts, and the labs of the release tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import kit
from tests.release.conftest import MakeLab, make_lab
from tests.release.lab import Lab
from tests.release.trees import make_heavy, make_site
from tests.support.proxy import Proxy
from tests.transfer.kit import BARE_BYTES, Held

__all__ = ["kit", "large", "make_lab", "pair"]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree of 20 MB that does not get smaller by packing: three parts."""
    return make_heavy(tmp_path / "large", 20_000)


@pytest.fixture
def pair(make_lab: MakeLab) -> Lab:
    """Two real servers."""
    return make_lab(2)


@pytest.fixture
def proxy(pair: Lab) -> Iterator[Proxy]:
    """Stands before h02."""
    with Proxy(("127.0.0.1", pair.servers[1].port)) as proxy:
        pair.through("h02", proxy.port)
        yield proxy


@pytest.fixture
def held(pair: Lab, tmp_path: Path) -> Held:
    return Held(pair, tmp_path)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """A site with one file that no compressor makes smaller."""
    tree = make_site(tmp_path / "movie", "movie")
    (tree / "media").mkdir()
    (tree / "media/film.mp4").write_bytes(os.urandom(BARE_BYTES))
    return tree


@pytest.fixture
def begun(pair: Lab, tmp_path: Path) -> None:
    """Hosts that hold something: nothing is sent to them before it is packed."""
    assert pair.push(make_site(tmp_path / "begun", "begun")).code == 0
