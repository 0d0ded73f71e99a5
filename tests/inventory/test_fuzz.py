"""Whatever the file holds, it loads or is an InventoryError with proper lines."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.errors import InventoryError
from deployctl.inventory import json_schema, load_inventory
from tests.inventory.test_example import EXAMPLE, _keys

MANY = int(os.environ.get("DEPLOYCTL_TEST_FUZZ", "1"))  # `make fuzz` takes more
LINE = re.compile(r"hosts\.yaml(:[0-9]+:[0-9]+)?: [^\n]+")
WORDS = [
    *sorted(_keys(json_schema())),
    "<<",
    "web",
    "x-a",
    "1",
    "",
    "a[1-3]",
    "[",
    "::1",
    "{host}",
    "/srv",
    "~",
    "\0",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.sampled_from(WORDS)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=10,
)
PIECES = st.sampled_from(
    [*"[]{}&*!|>%@`'\",:?-#\t\n ", ": ", "- ", "\n  ", "!!int ", "&a ", "*a", "<<: ", "0x", "\\U"]
)
EXAMPLE_TEXT = EXAMPLE.read_text()


def _loads_or_says_why(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hosts.yaml"
        path.write_bytes(content)
        lines = _report(path)
        assert lines != ()
        for line in lines or ():
            assert LINE.fullmatch(line.removeprefix(f"{folder}/")), line


def _report(path: Path) -> tuple[str, ...] | None:
    try:
        load_inventory(path, environ={})
    except InventoryError as error:
        return error.problems
    return None


@settings(max_examples=100 * MANY, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(content: bytes) -> None:
    _loads_or_says_why(content)


@settings(max_examples=100 * MANY, deadline=None)
@given(st.lists(PIECES | st.sampled_from(WORDS), max_size=25))
def test_any_syntax(pieces: list[str]) -> None:
    _loads_or_says_why("".join(pieces).encode())


@settings(max_examples=80 * MANY, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=8))
def test_any_data(data: dict[str, object]) -> None:
    _loads_or_says_why(yaml.safe_dump({"app": "shop", "path": "/srv", **data}).encode())


@settings(max_examples=60 * MANY, deadline=None)
@given(st.integers(0, len(EXAMPLE_TEXT)), st.integers(0, 40), PIECES | st.text(max_size=5))
def test_the_example_with_a_hole(start: int, length: int, filling: str) -> None:
    content = EXAMPLE_TEXT[:start] + filling + EXAMPLE_TEXT[start + length :]
    _loads_or_says_why(content.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("item", [0, None, [], {}, "", {"name": []}])
def test_odd_hosts(item: object) -> None:
    _loads_or_says_why(
        yaml.safe_dump({"app": "shop", "path": "/srv", "groups": {"g": {"hosts": [item]}}}).encode()
    )
