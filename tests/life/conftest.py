"""The labs of the release tests, for tests of what comes before and after a release; and a fleet with a past."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.life.kit import Story, busybox_tools
from tests.life.moments import Diary
from tests.release.conftest import any_lab, hosts, lab, make_lab, site
from tests.release.lab import Lab

__all__ = ["any_lab", "hosts", "lab", "make_lab", "site", "story"]


@pytest.fixture
def story(lab: Lab, tmp_path: Path) -> Story:
    """Real servers without a release."""
    return Story(lab, tmp_path / "site")


@pytest.fixture
def busybox(tmp_path: Path) -> str:
    """A PATH on which every tool but scp is busybox's."""
    return str(busybox_tools(tmp_path / "busybox"))


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    """Where hooks on every host write what happened, in the order of it."""
    return Diary(tmp_path / "diary")
