"""Put a build on every host over SSH and make it live everywhere, or change nothing.

from deployctl import load_inventory, push

result = push(load_inventory("hosts.yaml"), "./build")
result.outcome, result.hosts["web01"].live
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deployctl.engine.pool import WorkerPool
    from deployctl.errors import TaskFailed
    from deployctl.inventory import load_inventory
    from deployctl.release.activate import activate
    from deployctl.release.push import push
    from deployctl.release.rollback import rollback

__version__ = "0.1.0"

__all__ = ["TaskFailed", "WorkerPool", "__version__", "activate", "load_inventory", "push", "rollback"]

_HOMES = {
    "TaskFailed": "deployctl.errors",
    "WorkerPool": "deployctl.engine.pool",
    "activate": "deployctl.release.activate",
    "load_inventory": "deployctl.inventory",
    "push": "deployctl.release.push",
    "rollback": "deployctl.release.rollback",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: `deployctl --help` needs none of it."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
