"""hosts.yaml to hosts: read, validate, select."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deployctl.inventory.config import Check, Hook, Inventory, ReleaseConfig
from deployctl.inventory.ranges import fold
from deployctl.inventory.selection import select
from deployctl.inventory.units import duration_s, size_bytes
from deployctl.inventory.variables import resolve_vars, secret_values, shown

if TYPE_CHECKING:
    from deployctl.inventory.as_json import json_schema
    from deployctl.inventory.load import load_inventory

__all__ = [
    "Check",
    "Hook",
    "Inventory",
    "ReleaseConfig",
    "duration_s",
    "fold",
    "json_schema",
    "load_inventory",
    "resolve_vars",
    "secret_values",
    "select",
    "shown",
    "size_bytes",
]

_HOMES = {"json_schema": "deployctl.inventory.as_json", "load_inventory": "deployctl.inventory.load"}


def __getattr__(name: str) -> Any:
    """Load what needs pydantic when it is asked for: a run uses an inventory that was read elsewhere (ahead.py)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
