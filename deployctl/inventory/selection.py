"""`--limit`: a pattern to hosts.

Owns the notation of patterns; refuses to know where the inventory came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from deployctl.errors import UsageError
from deployctl.inventory import ranges
from deployctl.inventory.config import Inventory
from deployctl.inventory.problems import near_miss, quoted
from deployctl.model import Host

_OUTSIDE_BRACKETS = re.compile(r",(?![^\[\]]*\])")
_GLOB = re.compile(r"[*?]")


def select(inventory: Inventory, pattern: str | None) -> tuple[Host, ...]:
    """The hosts that a `--limit` pattern means, in the order of the inventory; every host for None.

    Parts are joined by commas: a group, a host, a glob over both, a range; `!` before a part takes its hosts away,
    whatever the order; `all` is every host. UsageError for a part that matches nothing, and for no host left.
    """
    if pattern is None:
        return inventory.hosts
    parts = [part.strip() for part in _OUTSIDE_BRACKETS.split(pattern)]
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for part in parts:
        bare = part.removeprefix("!").strip()
        if not bare:
            raise UsageError(f"--limit {quoted(pattern)} has an empty part")
        (unwanted if part.startswith("!") else wanted).update(_matches(inventory, bare))
    if all(part.startswith("!") for part in parts):
        wanted = {host.name for host in inventory.hosts}
    chosen = tuple(host for host in inventory.hosts if host.name in wanted - unwanted)
    if not chosen:
        raise UsageError(f"--limit {quoted(pattern)} leaves no host")
    return chosen


def _matches(inventory: Inventory, part: str) -> set[str]:
    names = {host.name for host in inventory.hosts}
    found = _by_group(inventory, part)
    if found is None:
        found = names if part == "all" else _by_name(inventory, names, part)
    if part in inventory.groups and not found:
        raise UsageError(f"--limit: the group {quoted(part)} holds no host")
    if not found:
        raise UsageError(
            f"--limit: {quoted(part)} matches no group and no host{_suggestion(inventory, part)}"
        )
    return found


def _by_group(inventory: Inventory, part: str) -> set[str] | None:
    return set(inventory.groups[part]) if part in inventory.groups else None


def _by_name(inventory: Inventory, names: set[str], part: str) -> set[str]:
    try:
        candidates = ranges.expand(part)
    except ValueError as error:
        raise UsageError(f"--limit: {error}") from error
    found: set[str] = set()
    for candidate in candidates:
        bare = candidate[1:-1] if candidate.startswith("[") and ":" in candidate else candidate
        if bare in names:
            found.add(bare)
        found.update(inventory.groups.get(candidate, ()))
    globs = [translate(candidate) for candidate in candidates if _GLOB.search(candidate)]
    return found | (_by_globs(inventory, names, globs) if globs else set())


def _by_globs(inventory: Inventory, names: Iterable[str], globs: Iterable[str]) -> set[str]:
    expression = re.compile("|".join(globs))
    found = {name for name in names if expression.match(name)}
    for group, members in inventory.groups.items():
        if expression.match(group):
            found.update(members)
    return found


def _suggestion(inventory: Inventory, part: str) -> str:
    known = [*inventory.groups, *(host.name for host in inventory.hosts)]
    sample = ranges.expand(part)[0]
    longer = [name for name in known if name.startswith(f"{sample}.")]
    near = longer[0] if longer else near_miss(sample, known)
    return f" (did you mean {quoted(near)}?)" if near else ""
