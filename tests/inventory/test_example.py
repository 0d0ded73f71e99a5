"""The example that people copy, the JSON Schema for their editor, and that both say the same as the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployctl.inventory import json_schema, load_inventory
from tests.inventory.checker import valid
from tests.inventory.files import SMALL, load, problems

EXAMPLE = Path(__file__).parents[2] / "hosts.example.yaml"
PAGE = Path(__file__).parents[2] / "docs" / "inventory.md"


def _keys(node: Any) -> set[str]:
    """Every key that the schema names."""
    if isinstance(node, list):
        return set().union(*map(_keys, node))
    if not isinstance(node, dict):
        return set()
    found = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
    return found.union(*map(_keys, node.values()))


def test_the_example_loads_without_a_warning() -> None:
    inventory = load_inventory(EXAMPLE)
    assert inventory.warnings == ()
    assert len(inventory.hosts) == 22
    assert all(inventory.release.hooks.values())


def test_every_key_of_the_format_is_in_the_example_and_on_the_page() -> None:
    keys = _keys(json_schema())
    assert len(keys) > 40
    example, page = EXAMPLE.read_text(), PAGE.read_text()
    assert {key for key in keys if f"{key}:" not in example} == set()
    assert {key for key in keys if f"`{key}`" not in page and f"{key}:" not in page} == set()


def test_the_example_fits_the_schema() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert valid(schema, yaml.safe_load(EXAMPLE.read_text()), schema)


GOOD = [
    "x-note: [1, {}]",
    "vars: {A: 1, B: true, C: 1.5, x-note: {}}",
    "ssh: {connect_timeout: 5, x-note: 1}",
    "release: {check: {url: http://x}}",
    "release: {check: [{run: x}], hooks: {staged: [x, {run: y, timeout: 1.5s}]}}",
]
WRONG = [
    "relase: {}",
    "ssh: {prot: 22}",
    "ssh: {port: '22'}",
    "ssh: {port: 70000}",
    "ssh: {user: }",
    "ssh: {host_keys: off}",
    "vars: {'A B': 1}",
    "vars: {A: [1]}",
    "vars: {A: {env: B, value: c}}",
    "release: {check: {}}",
    "release: {check: {url: http://x, run: y}}",
    "release: {hooks: {staged: x}}",
    "release: {hooks: {staged: [{once: true}]}}",
    "release: {keep: 0}",
    "release: {shared: {dirs: [/x]}}",
]


@pytest.mark.parametrize("line", GOOD)
def test_loader_and_schema_accept_the_same(tmp_path: Path, line: str) -> None:
    text = f"{SMALL}{line}\n"
    load(tmp_path, text)
    schema = json_schema()
    assert valid(schema, yaml.safe_load(text), schema)


@pytest.mark.parametrize("line", WRONG)
def test_loader_and_schema_refuse_the_same(tmp_path: Path, line: str) -> None:
    text = f"{SMALL}{line}\n"
    problems(tmp_path, text)
    schema = json_schema()
    assert not valid(schema, yaml.safe_load(text), schema)
