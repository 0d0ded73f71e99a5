"""Trees whose artifact travels in parts, and the labs of the release tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.conftest import kit
from tests.release.conftest import MakeLab, make_lab
from tests.release.lab import Lab
from tests.release.trees import make_heavy

__all__ = ["kit", "large", "make_lab", "pair"]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree of 20 MB that does not get smaller by packing: three parts."""
    return make_heavy(tmp_path / "large", 20_000)


@pytest.fixture
def pair(make_lab: MakeLab) -> Lab:
    """Two real servers."""
    return make_lab(2)
