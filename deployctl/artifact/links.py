"""Where symbolic links of a tree lead: inside it, or out of it.

Pure: works on paths and link texts, never on the file system, since what counts is the place the tree will have.
"""

from __future__ import annotations

from collections.abc import Mapping

_MAX_HOPS = 40  # as Linux; a loop leads nowhere, so it doesn't lead out


def leaves_tree(path: bytes, links: Mapping[bytes, bytes]) -> bool:
    """Whether the link at `path` leads out of the tree, read as text or followed through the other `links`.

    `links` is path to text of every link in the tree. What the link points at need not exist.
    """
    text = links[path]
    if text.startswith(b"/"):
        return True
    start = path.split(b"/")[:-1]
    return _escapes_as_text(start, text) or _escapes_followed(start, text, links)


def _escapes_as_text(start: list[bytes], text: bytes) -> bool:
    depth = len(start)
    for part in text.split(b"/"):
        if part == b"..":
            depth -= 1
        elif part not in {b"", b"."}:
            depth += 1
        if depth < 0:
            return True
    return False


def _escapes_followed(start: list[bytes], text: bytes, links: Mapping[bytes, bytes]) -> bool:
    place = list(start)
    todo = text.split(b"/")[::-1]
    hops = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            if not place:
                return True
            place.pop()
        elif part not in {b"", b"."}:
            place.append(part)
            further = links.get(b"/".join(place))
            if further is not None:
                hops += 1
                if hops > _MAX_HOPS:
                    return False
                if further.startswith(b"/"):
                    return True
                place.pop()
                todo.extend(further.split(b"/")[::-1])
    return False
