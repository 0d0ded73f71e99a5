"""The examples that people copy run, and say what they show."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from deployctl.engine import pool

GUIDE = Path(__file__).parents[2] / "docs/pool.md"


def docstring_example() -> str:
    """The indented block, from its first import to its end."""
    text = pool.__doc__ or ""
    return textwrap.dedent(
        "\n".join(line for line in text.splitlines() if line.startswith("    ") or not line)
    )


def guide_example() -> str:
    [example] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return str(example)


@pytest.mark.parametrize("example", [docstring_example(), guide_example()], ids=["docstring", "guide"])
def test_the_example_runs(example: str) -> None:
    shown: dict[str, Any] = {}
    exec(compile(example, "example", "exec"), shown)
    sizes = [os.path.getsize(path) for path in ("/etc/passwd", "/etc/group")]  # noqa: PTH202
    assert shown["results"] == [{"code": 0, "message": "success", "data": size} for size in sizes]


def test_the_example_is_the_same_in_both() -> None:
    assert docstring_example().split() == guide_example().split()


def test_what_the_example_says_of_a_failure() -> None:
    with pool.WorkerPool(1) as workers:
        workers.submit("missing", os.path.getsize, filename="/no/such/file")
        [result] = workers.wait("missing", interrupt=False)
    assert result["code"] == 61
    assert result["message"].startswith("FileNotFoundError: ")
    assert result["data"] is None
