"""From a file to an Inventory, or to one report of everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deployctl.inventory.config import Check, Hook, Inventory, ReleaseConfig
from deployctl.inventory.document import Document, read_document
from deployctl.inventory.hosts import Resolved, resolve_hosts
from deployctl.inventory.problems import Problem
from deployctl.inventory.rules import check_rules
from deployctl.inventory.schema import HOOKS, CheckEntry, File, HookEntry, Release
from deployctl.inventory.shape import check_shape, mapping_at
from deployctl.model import Shared


def load_inventory(path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None) -> Inventory:
    """The inventory in a YAML file, with every host resolved; no host is contacted.

    `environ` (default: of this process) gives HOME for `~`; variables that come from the environment are not read here
    but by `resolve_vars`. InventoryError has one line for each thing that is wrong, in the order of the file.
    """
    document = read_document(path)
    file = check_shape(document)
    check_rules(document)
    resolved = resolve_hosts(document, os.environ if environ is None else environ)
    if file is not None and not resolved.hosts:
        document.wrong(("groups",), "holds no host", key=True)
    document.problems.raise_if_any()
    if file is None:  # pragma: no cover - a shape that is wrong has left a problem
        raise AssertionError
    return Inventory(
        file=Path(path),
        app=file.app,
        path=file.path,
        hosts=tuple(resolved.hosts),
        groups=resolved.groups,
        release=_release(file),
        warnings=_warnings(document, resolved),
    )


def _release(file: File) -> ReleaseConfig:
    release = file.release or Release()
    hooks = {name: getattr(release.hooks, name, None) or [] for name in HOOKS}
    shared = release.shared
    defaults = ReleaseConfig(hooks={})
    return ReleaseConfig(
        hooks={name: tuple(_hook(entry) for entry in entries) for name, entries in hooks.items()},
        keep=defaults.keep if release.keep is None else release.keep,
        links=release.links or defaults.links,
        exclude=tuple(release.exclude or ()),
        shared=Shared(tuple(shared.dirs or ()), tuple(shared.files or ())) if shared else Shared(),
        check=tuple(_check(entry) for entry in release.check or ()),
    )


def _hook(entry: HookEntry) -> Hook:
    return Hook(entry.run, entry.timeout, bool(entry.once), tuple(entry.groups or ()))


def _check(entry: CheckEntry) -> Check:
    defaults = Check()
    return Check(
        url=entry.url,
        run=entry.run,
        from_=entry.from_ or defaults.from_,
        expect=entry.expect or defaults.expect,
        text=entry.text,
        timeout_s=entry.timeout or defaults.timeout_s,
        interval_s=entry.interval or defaults.interval_s,
    )


def _warnings(document: Document, resolved: Resolved) -> tuple[str, ...]:
    """Lines about what is allowed but probably not meant."""
    names = {host.name for host in resolved.hosts}
    found = []
    for group in mapping_at(document, ("groups",)):
        path = ("groups", group)
        if not resolved.groups[group]:
            found.append((path, "holds no host"))
        if group in names:
            found.append((path, "is the name of a host as well; --limit takes it as the group"))
    return tuple(
        Problem(document.mark(path, key=True), path, text).line(document.problems.file)
        for path, text in found
    )
