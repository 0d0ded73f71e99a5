"""Combinations of which the suite takes some, and `make test-wide` all."""

from __future__ import annotations

import os
from collections.abc import Sequence

WIDE = bool(os.environ.get("DEPLOYCTL_TEST_WIDE"))


def some(chosen: Sequence[str], every: Sequence[str]) -> list[str]:
    """Return `chosen`, which must be of `every`, or with DEPLOYCTL_TEST_WIDE all of them."""
    assert set(chosen) <= set(every)
    return list(every if WIDE else chosen)
