"""Sources opened, walked and packed in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployctl.artifact.pack import pack
from deployctl.artifact.source import open_source
from deployctl.artifact.walk import walk
from deployctl.errors import SourceError
from deployctl.model import Shared
from tests.artifact.trees import names


def manifest_of(source: Path, work: Path) -> bytes:
    with open_source(source, None, work) as opened:
        assert opened.describe is None
        return pack(
            walk(opened.path, exclude=[], shared=Shared(), name=opened.name), work
        ).manifest.to_bytes()


def refusal_of(source: Path, work: Path) -> tuple[str, ...]:
    with pytest.raises(SourceError) as caught:
        manifest_of(source, work)
    assert names(work) == []
    return tuple(problem.removeprefix(f"{source}: ") for problem in caught.value.problems)
