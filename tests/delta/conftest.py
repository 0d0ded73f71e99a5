"""Labs whose hosts have this or that userland, and whose releases share their files or copy them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.delta.kit import Site
from tests.life.kit import busybox_tools
from tests.release.conftest import MakeLab, make_lab
from tests.release.lab import Lab, tool_directory

__all__ = ["make_lab", "make_with", "tree"]

MakeWith = Callable[..., Lab]


@pytest.fixture
def tree(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def make_with(make_lab: MakeLab, tmp_path: Path) -> MakeWith:
    """`make_with("busybox", "hard")`: a lab of hosts with such tools and such an inventory."""

    def make(tools: str = "gnu", links: str = "copy", count: int = 1, **overrides: object) -> Lab:
        path, wrapper = None, None
        if tools == "busybox":
            path = str(busybox_tools(tmp_path / "tools"))
            (tmp_path / "tools" / "zstd").unlink(missing_ok=True)
            wrapper = f"RUN_WITH='{shutil.which('busybox')} sh'"
        elif tools in ("gzip", "no xargs"):
            lacks = "zstd" if tools == "gzip" else "xargs"
            path = "{}:" + str(tool_directory(tmp_path / "tools", without=(lacks,)))
        release = {"links": links, **overrides.pop("release", {})}  # type: ignore[dict-item]
        lab = make_lab(count, path=path, wrapper=wrapper, release=release, **overrides)
        if tools == "no printf":
            find = shutil.which("find")
            for place in lab:
                place.program("find", f'#!/bin/sh\ncase "$*" in *-printf*) exit 1;; esac\nexec {find} "$@"\n')
        return lab

    return make
