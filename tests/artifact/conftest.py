from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployctl.artifact.local import remove_tree


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that everyone may enter and write, unlike tmp_path: for tests that give up root's rights."""
    path = Path(tempfile.mkdtemp(prefix="deployctl-test-"))
    path.chmod(0o777)
    yield path
    remove_tree(path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where artifacts go."""
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path
