"""Hooks that write down what they see, inventories with hooks, and runs without JSON."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.release.lab import Lab
from tests.support import warm

ON_HOSTS = ("staged", "activating", "activated")


@dataclass(frozen=True)
class Diary:
    """A file that hooks append lines to, from whichever host: short appends do not mix."""

    path: Path

    def line(self, moment: str) -> str:
        """A hook that notes moment, host, release, and what the host serves at that time."""
        return (
            f'echo "{moment} $DEPLOYCTL_HOST $DEPLOYCTL_RELEASE '
            f'$(basename "$(readlink "$DEPLOYCTL_CURRENT_PATH" || echo nothing)")" >>{shlex.quote(str(self.path))}'
        )

    def hooks(self, *moments: str) -> dict[str, list[Any]]:
        return {moment: [self.line(moment)] for moment in moments or ON_HOSTS}

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def moments(self, host: str) -> list[str]:
        return [line[0] for line in self.lines if line[1] == host]

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def configure(lab: Lab, *, groups: dict[str, list[str]] | None = None, **keys: Any) -> None:
    """Set top-level keys of the lab's inventory; `groups` deals its hosts out anew; `vars` are the first group's."""
    data = yaml.safe_load(lab.inventory.read_text())
    entries = {entry["name"]: entry for group in data["groups"].values() for entry in group["hosts"]}
    if groups is not None:
        data["groups"] = {name: {"hosts": [entries[h] for h in hosts]} for name, hosts in groups.items()}
    if "vars" in keys:
        next(iter(data["groups"].values()))["vars"] = keys.pop("vars")
    data.update(keys)
    lab.inventory.write_text(yaml.safe_dump(data, sort_keys=False))


def hooks(lab: Lab, hooks: dict[str, list[Any]], **release: Any) -> None:
    """Give the lab's inventory these hooks, and other keys of `release`."""
    configure(lab, release={"hooks": hooks, **release})


def spoken(lab: Lab, *arguments: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run deployctl as a person does, without a terminal: exit code, and all it says on both streams."""
    return warm.run([*arguments, "-i", lab.inventory], env)


def held_by(path: Path) -> str:
    """Text of a hook that goes on once `path` is gone; it writes `path` and `.here` when it first comes so far."""
    quoted = shlex.quote(str(path))
    return f"[ -e {quoted}.here ] || touch {quoted} {quoted}.here; while [ -e {quoted} ]; do sleep 0.02; done"


def pid_in(path: Path) -> int:
    return int(path.read_text().split()[0])


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True
