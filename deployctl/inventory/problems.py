"""What is wrong with an inventory file, collected and put into lines.

Owns the form `FILE:LINE:COLUMN: key.path: what is wrong` and the near-miss hints; refuses to know any rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple

from deployctl.errors import InventoryError

Key = str | int
KeyPath = tuple[Key, ...]
ROOT: KeyPath = ()

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_WIDEST = 60  # characters of a wrong value that a message repeats


class Mark(NamedTuple):
    """A place in the file; both count from 1, columns in characters."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing that is wrong; sorts by its place in the file."""

    mark: Mark
    path: KeyPath
    text: str

    def line(self, file: str) -> str:
        where = f"{file}:{self.mark.line}:{self.mark.column}"
        return f"{where}: {key_path(self.path)}: {self.text}" if self.path else f"{where}: {self.text}"


@dataclass
class Problems:
    """Collects problems; at most one for each key path, the first told, so that one mistake is one line."""

    file: str
    found: dict[KeyPath, Problem] = field(default_factory=dict)
    others: list[Problem] = field(default_factory=list)

    def add(self, mark: Mark, path: KeyPath, text: str) -> None:
        self.found.setdefault(path, Problem(mark, path, text))

    def add_other(self, mark: Mark, path: KeyPath, text: str) -> None:
        """Like `add`, for what is wrong at a place of its own and says nothing of the value at the path."""
        self.others.append(Problem(mark, path, text))

    def raise_if_any(self) -> None:
        """Raise InventoryError with every problem found so far, sorted by position."""
        problems = sorted([*self.found.values(), *self.others], key=_position)
        if problems:
            lines = [problem.line(self.file) for problem in problems]
            raise InventoryError(list(dict.fromkeys(lines)))


def _position(problem: Problem) -> tuple[Mark, str]:
    return problem.mark, key_path(problem.path)


def key_path(path: Sequence[Key]) -> str:
    """`groups.web.hosts[2].port` for `("groups", "web", "hosts", 2, "port")`; odd keys stand in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _PLAIN_KEY.fullmatch(part) else quoted(part))
    return text


def printable(text: str) -> str:
    """The text with everything a terminal would act on escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str) -> str:
    """The text in single quotes, shortened and escaped for a message of one line."""
    short = text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
    return f"'{printable(short)}'"


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    choices = {choice.casefold(): choice for choice in known}
    found = get_close_matches(word.casefold()[:100], choices, n=1, cutoff=0.6)
    return choices[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'port'?)` where a known word is near, else nothing."""
    near = near_miss(word, known)
    return f" (did you mean {quoted(near)}?)" if near else ""
