"""The house rules of imports, read from the source: who may know whom, and which package is used where.

cli → release → engine, host        inventory and artifact are read by release; errors and model by all
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deployctl"

# Which rooms each room may import from, besides its own.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "engine": {"errors", "model"},
    "artifact": {"errors", "model"},
    "inventory": {"errors", "model"},
    "host": {"errors", "model", "engine"},
    "output": {"errors", "model", "inventory"},
    "release": {"errors", "model", "engine", "host", "inventory", "artifact"},
    "demo": {"errors", "model"},
    "cli": {"errors", "model", "inventory", "release", "output", "demo", "deployctl"},
    "__init__": {"errors", "engine", "inventory", "release"},  # the public names
    "__main__": {"cli", "output"},
}

# Where a room may import from another no more than these names.
ONLY: dict[tuple[str, str], set[str]] = {
    ("host", "engine"): {"deployctl.engine.child.Line", "deployctl.engine.child.Message"},
    ("output", "inventory"): {"deployctl.inventory.fold"},
    ("cli", "deployctl"): {"deployctl.__version__"},
    ("__main__", "output"): {
        "deployctl.output.stream.ClosedStream",
        "deployctl.output.stream.detach_broken_stdout",
        "deployctl.output.stream.fill_closed_streams",
    },
}

# Imports that stand inside a function, so that nobody pays who does not need them.
LAZY = {("output", "inventory"), ("__main__", "cli"), ("__main__", "output")}

# Where each package, and what of the standard library is dangerous elsewhere, may be imported: rooms or files.
AT_HOME: dict[str, set[str]] = {
    "click": {"cli"},
    "ClusterShell": {"inventory"},
    "pydantic": {"inventory"},
    "pydantic_core": {"inventory"},
    "yaml": {"inventory"},
    "paramiko": {"host", "demo"},
    "cryptography": {"host", "demo"},
    "scp": {"host/upload.py"},
    "rich": {"output"},
    "zstandard": {"artifact"},
    "pathspec": {"artifact"},
    "platformdirs": {"release"},
    "setproctitle": {"engine", "demo"},
    "multiprocessing": {"engine"},
    "importlib": {
        "__init__",
        "inventory/__init__.py",
        "cli/main.py",
        "engine/pool.py",
        "host/script.py",
        "host",
    },
}


@dataclass(frozen=True)
class Import:
    """One imported name, `module.name`, and where."""

    room: str
    file: str
    line: int
    module: str
    name: str
    lazy: bool

    def __str__(self) -> str:
        return f"deployctl/{self.file}:{self.line}: imports {self.name}"

    @property
    def target(self) -> str:
        """The room that is imported from; `deployctl` for the package itself."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else parts[0]


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in sorted(PACKAGE.rglob("*.py")) for found in _imports_of(path))


def _imports_of(path: Path) -> Iterator[Import]:
    file = path.relative_to(PACKAGE)
    room = file.parts[0] if len(file.parts) > 1 else file.stem
    for node, lazy in _import_nodes(ast.parse(path.read_text()), lazy=False):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.name) for alias in node.names]
        else:
            module = "." * node.level + (node.module or "")
            names = [(module, f"{module}.{alias.name}") for alias in node.names]
        for module, name in names:
            yield Import(room, str(file), node.lineno, module, name, lazy)


def _import_nodes(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import below, and whether it stands inside a function; expressions hold none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, lazy
        elif not isinstance(child, ast.expr):
            yield from _import_nodes(
                child, lazy=lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            )


def ours() -> list[Import]:
    return [found for found in imports() if found.module.split(".")[0] == "deployctl"]


def test_every_room_is_in_the_table() -> None:
    assert {found.room for found in imports()} | {"errors", "model"} == set(MAY_IMPORT)


def test_nobody_imports_upwards() -> None:
    wrong = [
        str(found)
        for found in ours()
        if found.target != found.room and found.target not in MAY_IMPORT[found.room]
    ]
    assert wrong == []


@pytest.mark.parametrize(("room", "target"), ONLY)
def test_where_little_may_be_known_no_more_is(room: str, target: str) -> None:
    between = [found for found in ours() if (found.room, found.target) == (room, target)]
    assert [str(found) for found in between if found.name not in ONLY[room, target]] == []
    assert {found.name for found in between} == ONLY[room, target], "the table allows what nobody needs"


def test_what_is_costly_is_imported_late() -> None:
    early = [str(found) for found in ours() if (found.room, found.target) in LAZY and not found.lazy]
    assert early == []


def test_packages_are_used_where_they_belong() -> None:
    wrong = []
    for found in imports():
        package = found.module.split(".")[0]
        if package in sys.stdlib_module_names and package not in AT_HOME:
            continue
        if package not in {"deployctl", "__future__"} and not {found.room, found.file} & AT_HOME.get(
            package, set()
        ):
            wrong.append(str(found))
    assert wrong == []


def test_the_table_of_packages_names_none_that_is_not_used() -> None:
    assert set(AT_HOME) <= {found.module.split(".")[0] for found in imports()}


def test_every_import_is_written_out() -> None:
    assert [
        str(found) for found in imports() if found.module.startswith(".") or found.name.endswith(".*")
    ] == []


def test_the_rooms_below_know_no_test() -> None:
    assert [str(found) for found in imports() if found.module.split(".")[0] in {"tests", "benchmarks"}] == []
