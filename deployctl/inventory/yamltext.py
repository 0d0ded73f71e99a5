"""PyYAML, held to limits, with its complaints in our words.

Owns the loader (nesting, aliases, nodes, one document) and the wording of YAML mistakes; refuses to know what the
document means. Messages never repeat text of the file beyond one character: it may be a password without quotes.
"""

from __future__ import annotations

import re

import yaml
from yaml.events import AliasEvent, StreamEndEvent
from yaml.nodes import Node

from deployctl.inventory.problems import Mark

MAX_ALIASES = 100

_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-9.]+)+")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# What PyYAML says (its beginning), and what we say.
_WORDS = (
    ("found character '\\t'", "a tab; indent with spaces"),
    ("found a tab character", "a tab; indent with spaces"),
    ("mapping values are not allowed", "a second ': ' in one line; put a text that holds ': ' in quotes"),
    ("found undefined alias", "an alias without its anchor; a text that begins with * needs quotes"),
    ("found duplicate anchor", "an anchor of this name is there already"),
    ("found undefined tag handle", "unknown tag; a text that begins with ! needs quotes"),
    ("could not find expected ':'", "a key without ': ' after it, or wrong indentation"),
    ("expected <block end>", "wrong indentation, or a key or '-' is missing"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("expected the node content, but found ':'", "a text that begins with ':' or '[' needs quotes"),
    ("expected ',' or ']'", "a '[' is not closed, or a ',' is missing"),
    ("expected ',' or '}'", "a '{' is not closed, or a ',' is missing"),
)


class LoadError(Exception):
    """The file can't be read further; `text` says why."""

    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark = mark
        self.text = text


class Loader(yaml.SafeLoader):
    """Composes nodes as SafeLoader does, and stops at a limit before memory, stack or time do."""

    def __init__(self, text: str, *, max_depth: int, max_nodes: int) -> None:
        super().__init__(text)
        self.max_depth = max_depth
        self.max_nodes = max_nodes
        self.depth = 0
        self.nodes = 0
        self.aliases = 0

    def single_node(self) -> Node | None:
        """The root of the only document, None for an empty stream; LoadError for a second document."""
        self.get_event()  # type: ignore[no-untyped-call]
        node: Node | None = None
        if not self.check_event(StreamEndEvent):
            node = self.compose_document()
        if not self.check_event(StreamEndEvent):
            raise LoadError(self._place(), "a second document; an inventory is one document")
        return node

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.nodes += 1
        self.aliases += self.check_event(AliasEvent)
        if self.aliases > MAX_ALIASES:
            raise LoadError(self._place(), f"more than {MAX_ALIASES} aliases")
        if self.nodes > self.max_nodes:
            raise LoadError(self._place(), f"too large: more than {self.max_nodes:,} values")
        if self.depth > self.max_depth:
            raise LoadError(self._place(), f"nested deeper than {self.max_depth} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def _place(self) -> Mark:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return Mark(mark.line + 1, mark.column + 1)


def undecodable(content: bytes) -> LoadError | None:
    """Why the bytes can't be the text of an inventory, or None if they can."""
    if content.startswith(b"\xef\xbb\xbf"):
        return LoadError(Mark(1, 1), "begins with a byte order mark; save it as UTF-8 without one")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return LoadError(Mark(1, 1), "is UTF-16; save it as UTF-8")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return LoadError(_end_of(content[: error.start].decode()), "is not UTF-8; save it as UTF-8")
    match = _UNPRINTABLE.search(text)
    if match is None:
        return None
    what = "a NUL character" if match[0] == "\0" else f"a control character (U+{ord(match[0]):04X})"
    return LoadError(_end_of(text[: match.start()]), f"holds {what}")


def _end_of(text: str) -> Mark:
    return Mark(text.count("\n") + 1, len(text) - text.rfind("\n"))


def syntax_error(error: yaml.YAMLError) -> LoadError:
    """PyYAML's complaint as ours, with its place."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return LoadError(Mark(1, 1), "not valid YAML")
    place = error.problem_mark or error.context_mark
    mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
    problem = error.problem or ""
    for beginning, words in _WORDS:
        if problem.startswith(beginning):
            return LoadError(mark, f"not valid YAML: {words}")
    if problem.endswith("that cannot start any token"):
        return LoadError(
            mark, f"not valid YAML: a text can't begin with {problem.split()[2]} unless it is in quotes"
        )
    return LoadError(mark, f"not valid YAML: {problem or 'syntax error'}")


def octal_or_odd(value: object, text: str) -> str | None:
    """Why a number is probably not what its writer meant, or None if it is plain."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    shown = text if len(text) <= 20 else text[:19] + "…"
    if _SEXAGESIMAL.fullmatch(text):
        return f"{shown} is a number of base 60 in YAML; put it in quotes: '{shown}'"
    if isinstance(value, float) or _PLAIN_INT.fullmatch(text):
        return "is too large a number" if len(text) > 20 else None
    kind = "octal" if re.fullmatch(r"[-+]?0[0-7_]+", text) else "no plain number"
    return f"{shown} is {kind} in YAML; write it without leading zeros, or in quotes for text: '{shown}'"
