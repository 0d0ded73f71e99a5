"""The list of faults in rows.md cannot rot: what it names exists, and what exists is named."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.faults.conftest import ROWS, rows

TESTS = Path(__file__).parents[1]
SECTIONS = {
    "Reaching hosts": 21,
    "Transfer and target": 22,
    "Source and packing": 15,
    "Processes, signals, machine": 18,
    "Activation, state, hooks": 18,
    "Inventory and terminal": 12,
}


def functions_of(path: Path) -> set[str]:
    return {
        f"{path.relative_to(TESTS)}::{node.name}"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def named() -> set[str]:
    return {
        test.strip()
        for section, table in rows().items()
        if section != "What may be skipped"
        for _, tests in table
        if not tests.startswith("- ")
        for test in tests.split(",")
    }


def test_every_row_has_its_tests_or_a_reason() -> None:
    """And the list has as many rows as the one it was made from; a row more is welcome, here and there."""
    found = rows()
    assert {section: len(found[section]) for section in SECTIONS} == SECTIONS
    for table in found.values():
        for fault, tests in table:
            assert tests, fault
            assert "::" in tests or tests.startswith("- ") or table is found["What may be skipped"], fault


def test_every_test_that_is_named_exists() -> None:
    files = {test.partition("::")[0] for test in named()}
    assert named() <= {test for file in files for test in functions_of(TESTS / file)}


def test_every_test_of_this_folder_is_named() -> None:
    here = {
        test
        for path in ROWS.parent.glob("test_*.py")
        if path != Path(__file__)
        for test in functions_of(path)
    }
    assert here - named() == set()
