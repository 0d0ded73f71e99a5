"""Writing an inventory for a test, and loading it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from deployctl.errors import InventoryError
from deployctl.inventory import Inventory, load_inventory

HOME = {"HOME": "/home/me"}
HEAD = "app: shop\npath: /srv/shop\n"
SMALL = HEAD + "groups: {web: {hosts: [web01]}}\n"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The folder as the working directory, so that messages name the file alone."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def load(folder: Path, text: str | bytes) -> Inventory:
    content = text if isinstance(text, bytes) else dedent(text).encode()
    (folder / "hosts.yaml").write_bytes(content)
    with inside(folder):
        return load_inventory("hosts.yaml", environ=HOME)


def problems(folder: Path, text: str | bytes) -> list[str]:
    """Every line of the report, without the name of the file."""
    with pytest.raises(InventoryError) as caught:
        load(folder, text)
    lines = list(caught.value.problems)
    assert all(line.startswith("hosts.yaml:") and "\n" not in line for line in lines)
    return [line.removeprefix("hosts.yaml:") for line in lines]
