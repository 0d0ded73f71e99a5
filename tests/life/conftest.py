"""The labs of the release tests, for tests of what comes before and after a release; and a fleet with a past."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.life.kit import Story, busybox_tools
from tests.life.moments import Diary
from tests.release.conftest import MakeLab, any_lab, lab, make_lab, site

__all__ = ["any_lab", "lab", "make_lab", "site", "story"]


@pytest.fixture
def story(make_lab: MakeLab, tmp_path: Path) -> Story:
    """Three real servers without a release."""
    return Story(make_lab(3), tmp_path / "site")


@pytest.fixture
def busybox(tmp_path: Path) -> str:
    """A PATH on which every tool but scp is busybox's."""
    return str(busybox_tools(tmp_path / "busybox"))


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    """Where hooks on every host write what happened, in the order of it."""
    return Diary(tmp_path / "diary")
