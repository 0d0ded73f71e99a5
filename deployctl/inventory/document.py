"""A YAML file to plain data that remembers where every key and value stands.

Owns reading the file safely: its size, its encoding, the limits on nesting, aliases and nodes, duplicate keys, tags and
merge keys. Refuses to know which keys the inventory has.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from deployctl.errors import InventoryError
from deployctl.inventory.problems import KeyPath, Mark, Problems, printable, quoted
from deployctl.inventory.yamltext import Loader, LoadError, octal_or_odd, syntax_error, undecodable

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
MAX_NODES = (
    100_000  # keys too, aliases as often as they are used; enough for 10,000 hosts as mappings of four keys
)

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "timestamp")}
_constructor = yaml.constructor.SafeConstructor()
_CONSTRUCT: dict[str, Callable[[ScalarNode], Any]] = {
    _TAG + "bool": _constructor.construct_yaml_bool,
    _TAG + "int": _constructor.construct_yaml_int,
    _TAG + "float": _constructor.construct_yaml_float,
}
_MISSING_HINT = "name the inventory with -i FILE or in DEPLOYCTL_INVENTORY"


@dataclass
class Document:
    """One file as plain data, with a mark for the key and for the value at every key path, and scalars as written."""

    problems: Problems
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)

    def mark(self, path: KeyPath, *, key: bool = False) -> Mark:
        """Where the value (or the key) at this path stands; for a path not in the file, where its parent does."""
        while path:
            first, second = (self.keys, self.values) if key else (self.values, self.keys)
            found = first.get(path) or second.get(path)
            if found:
                return found
            path, key = path[:-1], True
        return Mark(1, 1)

    def line(self, path: KeyPath) -> int:
        return self.mark(path).line

    def wrong(self, path: KeyPath, text: str, *, key: bool = False) -> None:
        self.problems.add(self.mark(path, key=key), path, text)


def read_document(path: str | os.PathLike[str]) -> Document:
    """The file as a Document; what does not stop the reading is left in its `problems`.

    InventoryError for what does: no readable file, not UTF-8, not YAML, more than one document, beyond the limits.
    """
    name = printable(os.fspath(path))
    text = _decode(_read(path, name), name)
    document = Document(Problems(name))
    try:
        document.data = _Expander(document).plain(_compose(text), (), 0)
    except LoadError as error:
        document.problems.add(error.mark, (), error.text)
        document.problems.raise_if_any()
    return document


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        # Non-blocking, so that a FIFO without a writer is refused instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _refuse_irregular(os.fstat(descriptor).st_mode, name)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        missing = isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ENOTDIR}
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a file name"
        text = "no such file" if missing else f"cannot be read: {reason}"
        raise InventoryError([f"{name}: {text}"], hint=_MISSING_HINT if missing else None) from error
    if len(content) > MAX_BYTES:
        raise InventoryError([f"{name}: is larger than 1 MiB"])
    return content


def _refuse_irregular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise InventoryError([f"{name}: is a directory, not a file"], hint=_MISSING_HINT)
    if not stat.S_ISREG(mode):
        raise InventoryError([f"{name}: is not a regular file"])


def _decode(content: bytes, name: str) -> str:
    problem = undecodable(content)
    if problem:
        raise InventoryError([f"{name}:{problem.mark.line}:{problem.mark.column}: {problem.text}"])
    return content.decode()


def _compose(text: str) -> MappingNode:
    loader = Loader(text, max_depth=MAX_DEPTH, max_nodes=MAX_NODES)
    try:
        return _root(loader.single_node())
    except yaml.YAMLError as error:
        raise syntax_error(error) from error
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, a version of 5,000 digits
        place = loader.get_mark()
        raise LoadError(
            Mark(place.line + 1, place.column + 1), "not valid YAML: bad number or escape"
        ) from error
    finally:
        loader.dispose()


def _root(node: Node | None) -> MappingNode:
    if node is None:
        raise LoadError(Mark(1, 1), "the file is empty")
    if not isinstance(node, MappingNode):
        raise LoadError(_mark(node), "must be a mapping of keys (app, path, groups, …) at the top")
    return node


def _mark(node: Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _fail(node: Node, text: str) -> NoReturn:
    raise LoadError(_mark(node), text)


class _Expander:
    """Turns nodes into plain data below one budget of nodes, so that aliases can't multiply without end."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.left = MAX_NODES
        self.open: set[int] = set()  # nodes being expanded: an alias to one of them has no end

    def plain(self, node: Node, path: KeyPath, depth: int) -> Any:
        self._count(node, depth)
        self.document.values[path] = _mark(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if node.tag not in {_TAG + "map", _TAG + "seq"} or node.tag.endswith("map") != isinstance(
            node, MappingNode
        ):
            self.document.wrong(path, _tag_text(node))
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path, depth)
            if isinstance(node, SequenceNode):
                return [self.plain(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))
        return None

    def _count(self, node: Node, depth: int) -> None:
        self.left -= 1
        if self.left < 0:
            _fail(node, f"too large: more than {MAX_NODES:,} values once its aliases are filled in")
        if id(node) in self.open:
            _fail(node, "holds an alias to itself")
        if depth > MAX_DEPTH:
            _fail(node, f"nested deeper than {MAX_DEPTH} levels")

    def _mapping(self, node: MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, key_node, value_node in self._pairs(node, path, depth):
            if key in result or key.startswith("x-"):
                continue
            result[key] = None
            self.document.keys[*path, key] = _mark(key_node)
            result[key] = self.plain(value_node, (*path, key), depth + 1)
        return result

    def _pairs(self, node: MappingNode, path: KeyPath, depth: int) -> Iterator[tuple[str, Node, Node]]:
        """Keys with their nodes, a mapping's own before those it merges: the first of a name is the one that counts."""
        seen: dict[str, Mark] = {}
        merges: list[Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.document.problems.add(
                    _mark(key_node), path, "a key must be text, not a list or a mapping"
                )
                continue
            key = str(key_node.value)
            if key in seen:
                text = f"duplicate key (first on line {seen[key].line})"
                self.document.problems.add_other(_mark(key_node), (*path, key), text)
                continue
            seen[key] = _mark(key_node)
            if key_node.tag == _TAG + "merge":
                merges.append(value_node)
            elif problem := _unusable(key):
                self.document.problems.add_other(_mark(key_node), (*path, key), problem)
            else:
                yield key, key_node, value_node
        for merge in merges:
            yield from self._merged(merge, path, depth + 1)

    def _merged(self, node: Node, path: KeyPath, depth: int) -> Iterator[tuple[str, Node, Node]]:
        self._count(node, depth)
        self.open.add(id(node))
        if isinstance(node, MappingNode):
            yield from self._pairs(node, path, depth)
        elif isinstance(node, SequenceNode) and all(isinstance(item, MappingNode) for item in node.value):
            for item in node.value:
                yield from self._merged(item, path, depth + 1)
        else:
            self.document.problems.add(
                _mark(node), (*path, "<<"), "must be an alias to a mapping, or a list of them"
            )
        self.open.discard(id(node))

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text = str(node.value)
        self.document.texts[path] = text
        if problem := _unusable(text):
            self.document.wrong(path, problem)
            return None
        if node.tag == _TAG + "null":
            self.document.wrong(path, "has no value; give it one or leave the key out", key=True)
            return None
        if node.tag not in _SCALARS:
            self.document.wrong(path, _tag_text(node))
            return None
        if node.tag in {_TAG + "str", _TAG + "timestamp"} or _is_var(path):
            return text
        return self._typed(node, path, text)

    def _typed(self, node: ScalarNode, path: KeyPath, text: str) -> Any:
        if len(text) > 400:  # Python refuses to turn more than some thousand digits into a number
            self.document.wrong(path, "is too long for a number")
            return None
        try:
            value: bool | int | float = _CONSTRUCT[node.tag](node)
        except (ValueError, KeyError, OverflowError, yaml.YAMLError):
            self.document.wrong(path, f"{quoted(text)} is not a value of its tag")
            return None
        if problem := octal_or_odd(value, text):
            self.document.wrong(path, problem)
            return None
        return value


def _is_var(path: KeyPath) -> bool:
    """Whether a scalar is the text of a variable, which stays as it is written: `010`, `1.50`, `yes`."""
    return _names_var(path) or (path[-1:] == ("value",) and _names_var(path[:-1]))


def _names_var(path: KeyPath) -> bool:
    top = ("vars",) if len(path) == 2 else ("groups",)
    return len(path) in {2, 4, 6} and path[-2] == "vars" and path[:1] == top


def _unusable(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half of a surrogate pair, which is no character"
    return None


def _tag_text(node: Node) -> str:
    # Only a tag of YAML's own is repeated: `!hunter2` may be a password that lacks its quotes.
    name = f" !!{printable(node.tag.removeprefix(_TAG))}" if node.tag.startswith(_TAG) else ""
    return f"tag{name} is not supported here; a text that begins with ! needs quotes"
