"""Host ranges: `web[01-20].example.com` to names, and names back to ranges for display.

Owns the notation and its limit; refuses to know groups and files. Uses ClusterShell's RangeSet and not its NodeSet:
importing NodeSet reads the machine's ClusterShell settings, and it would look names with `@` up in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from math import prod

from ClusterShell.RangeSet import RangeSet

from deployctl.inventory.problems import quoted

MAX_HOSTS = 10_000

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_ITEM = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?:/([1-9][0-9]{0,8}))?)?")
_NUMBER = re.compile(r"(?<![0-9])([0-9]{1,9})(?![0-9])")  # longer ones could not be expanded again


def is_range(pattern: str) -> bool:
    """Whether the text holds a numeric range; an IPv6 address in brackets does not."""
    return any(":" not in inner for inner in _BRACKETS.findall(pattern))


def count(pattern: str) -> int:
    """How many names the pattern stands for, computed without making them; ValueError where it is no range."""
    if set("[]") & set(_BRACKETS.sub("", pattern)):
        raise ValueError(f"{quoted(pattern)} has a bracket without its other half")
    return prod(_count(pattern, inner) for inner in _BRACKETS.findall(pattern))


def _count(pattern: str, inner: str) -> int:
    total = 0
    for item in inner.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{quoted(pattern)} is not a range; write it like web[01-20] or web[1,3,7-9]")
        first, last = match[1], match[2] or match[1]
        padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        if padded and len(first) != len(last):
            raise ValueError(f"{quoted(pattern)}: pad both ends of a range to the same width")
        if int(first) > int(last):
            raise ValueError(f"{quoted(pattern)}: a range counts upwards")
        total += (int(last) - int(first)) // int(match[3] or 1) + 1
    return total


def expand(pattern: str, *, limit: int = MAX_HOSTS) -> tuple[str, ...]:
    """The names a pattern stands for, in the order of their numbers; a text without a range is its own only name.

    ValueError, fit for people, for a malformed range, one that names a host twice, or more than `limit` names.
    """
    if not is_range(pattern):
        return (pattern,)
    total = count(pattern)
    if total > limit:
        raise ValueError(f"{quoted(pattern)} is {total:,} hosts; at most {MAX_HOSTS:,} are possible")
    pieces = _BRACKETS.split(pattern)
    axes = [RangeSet(inner).striter() for inner in pieces[1::2]]
    texts = pieces[::2]
    names = tuple(
        texts[0] + "".join(number + text for number, text in zip(numbers, texts[1:], strict=True))
        for numbers in product(*axes)
    )
    if len(names) != total:
        raise ValueError(f"{quoted(pattern)} names a host twice")
    return names


def fold(names: Iterable[str]) -> str:
    """Names as short as they can be shown, `web[01-12],job01`, in the order in which they first came.

    Exact: zero padding is kept, and names that hold no number, or are no host names at all, stay as they are.
    """
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for name in dict.fromkeys(names):
        pieces = _NUMBER.split(name) if re.fullmatch(r"[A-Za-z0-9._-]+", name) else [name]
        groups.setdefault(tuple(pieces[::2]), []).append(pieces[1::2])
    return ",".join(part for texts, rows in groups.items() for part in _fold_group(texts, rows))


def _fold_group(texts: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """Names that differ in numbers only, folded along the one position that leaves the fewest parts."""
    candidates = [_along(axis, rows) for axis in range(len(texts) - 1)]
    if not candidates:
        return [texts[0]]
    # The last position on a tie: 10.0.0.[1-2] reads better than 10.0.[0-1].2.
    axis, lines = min(reversed(list(enumerate(candidates))), key=lambda candidate: len(candidate[1]))
    parts = []
    for rest, numbers in lines.items():
        folded = numbers[0]
        if len(numbers) > 1:
            folded = f"[{RangeSet.fromlist(numbers)}]"
        row = [*rest[:axis], folded, *rest[axis:]]
        parts.append(texts[0] + "".join(number + text for number, text in zip(row, texts[1:], strict=True)))
    return parts


def _along(axis: int, rows: list[list[str]]) -> dict[tuple[str, ...], list[str]]:
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        lines.setdefault((*row[:axis], *row[axis + 1 :]), []).append(row[axis])
    return lines
