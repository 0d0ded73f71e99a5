"""Rules between keys that one value alone can't break: hooks and their groups, checks, shared paths.

Owns rules that need no hosts; works on plain data, so that it also says what it can of a file with other mistakes.
"""

from __future__ import annotations

from deployctl.inventory.document import Document
from deployctl.inventory.fields import shared_path
from deployctl.inventory.problems import KeyPath, did_you_mean, quoted
from deployctl.inventory.schema import HOOKS, LOCAL_HOOKS
from deployctl.inventory.shape import at, list_at, mapping_at

_HOOKS: KeyPath = ("release", "hooks")
_CHECK: KeyPath = ("release", "check")
_SHARED: KeyPath = ("release", "shared")
_URL_ONLY = ("from", "expect", "text")


def check_rules(document: Document) -> None:
    """Leave in the document's problems whatever breaks a rule between keys."""
    for name in HOOKS:
        for index in range(len(list_at(document, (*_HOOKS, name)))):
            _hook(document, name, (*_HOOKS, name, index))
    if isinstance(at(document, _CHECK), list):
        for index in range(len(list_at(document, _CHECK))):
            _check(document, (*_CHECK, index))
    elif isinstance(at(document, _CHECK), dict):
        _check(document, _CHECK)
    _shared(document)


def _hook(document: Document, name: str, path: KeyPath) -> None:
    hook = mapping_at(document, path)
    if "groups" in hook and name in LOCAL_HOOKS:
        text = f"a {name} hook runs here, not on hosts; groups are for staged, activating and activated"
        document.wrong((*path, "groups"), text, key=True)
        return
    known = mapping_at(document, ("groups",))
    groups = list_at(document, (*path, "groups"))
    if isinstance(hook.get("groups"), list) and not groups:
        document.wrong((*path, "groups"), "names no group; leave it out to run on every host")
    for index, group in enumerate(groups):
        if isinstance(group, str) and group not in known:
            document.wrong((*path, "groups", index), f"no group {quoted(group)}{did_you_mean(group, known)}")


def _check(document: Document, path: KeyPath) -> None:
    check = mapping_at(document, path)
    if "url" in check and "run" in check:
        document.wrong((*path, "run"), "a check has either 'url' or 'run', not both", key=True)
    elif "url" not in check and "run" not in check and isinstance(at(document, path), dict):
        document.wrong(path, "a check needs 'url' or 'run'", key=True)
    elif "run" in check:
        for key in _URL_ONLY:
            if key in check:
                document.wrong((*path, key), "is for a check with 'url'", key=True)


def _shared(document: Document) -> None:
    """No shared path twice, or below another one."""
    seen: dict[tuple[str, ...], KeyPath] = {}
    for kind in ("dirs", "files"):
        for index, text in enumerate(list_at(document, (*_SHARED, kind))):
            try:
                parts = tuple(shared_path(text).split("/")) if isinstance(text, str) else ()
            except ValueError:
                continue  # told already
            if parts:
                seen.setdefault(parts, (*_SHARED, kind, index))
                if seen[parts] != (*_SHARED, kind, index):
                    line = document.line(seen[parts])
                    document.wrong((*_SHARED, kind, index), f"{quoted(text)} is there already (line {line})")
    for parts, path in seen.items():
        for length in range(1, len(parts)):
            if parts[:length] in seen:
                line = document.line(seen[parts[:length]])
                text = f"{quoted('/'.join(parts))} lies in {quoted('/'.join(parts[:length]))} (line {line})"
                document.wrong(path, text)
                break
