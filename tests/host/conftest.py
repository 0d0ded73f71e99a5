from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.kit import Kit


@pytest.fixture
def kit(tmp_path: Path, client_key: Path) -> Iterator[Kit]:
    made = Kit(tmp_path, client_key)
    yield made
    made.close()
