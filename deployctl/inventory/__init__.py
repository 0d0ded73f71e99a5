"""hosts.yaml to hosts: read, validate, select."""

from deployctl.inventory.config import Check, Hook, Inventory, ReleaseConfig
from deployctl.inventory.json_schema import json_schema
from deployctl.inventory.load import load_inventory
from deployctl.inventory.ranges import fold
from deployctl.inventory.selection import select
from deployctl.inventory.units import duration_s, size_bytes
from deployctl.inventory.variables import resolve_vars, secret_values, shown

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
