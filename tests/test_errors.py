"""Exit codes and kinds of failure: unique, documented, and given to every error."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import deployctl
from deployctl import errors
from deployctl.errors import Code, DeployctlError, Exit, HostError, InventoryError, SourceError, TaskFailed

GUIDE = (Path(__file__).parents[1] / "docs/exit-codes.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = GUIDE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def every_error(base: type[DeployctlError] = DeployctlError) -> Iterator[type[DeployctlError]]:
    for module in pkgutil.walk_packages(deployctl.__path__, "deployctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    yield base
    for error in base.__subclasses__():
        yield from every_error(error)


@pytest.mark.parametrize("codes", [Exit, Code])
def test_codes_are_unique(codes: type[Exit | Code]) -> None:
    assert len(codes.__members__) == len(set(codes)), "two names for one code"


def test_exit_codes_leave_room_for_those_of_the_shell() -> None:
    assert [code for code in Exit if code in {126, 127, 128} or code > 255] == []
    assert (Exit.HUP, Exit.INT, Exit.TERM) == (128 + 1, 128 + 2, 128 + 15)


@pytest.mark.parametrize(("heading", "codes"), [("Exit codes", Exit), ("Failures of a host", Code)])
def test_every_code_is_documented_once_in_order(heading: str, codes: type[Exit | Code]) -> None:
    table = rows(heading)
    assert [int(row[0]) for row in table] == sorted(codes)
    for row in table:
        assert len(row) == 4
        assert all(row), row


def test_every_error_has_an_exit_code_and_says_nothing_but_its_message() -> None:
    found = set(every_error())
    assert {"UsageError", "InventoryError", "SourceError", "HostError", "TaskFailed"} <= {
        e.__name__ for e in found
    }
    for error in found:
        assert isinstance(error.exit_code, Exit), error
        assert error.exit_code != Exit.OK, error


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"^\s+[├└]? ?(\w+) +(\d+|-) ", f"{errors.__doc__}\n", re.MULTILINE))
    defined = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, DeployctlError)]
    assert set(drawn) | {"DeployctlError"} == {error.__name__ for error in defined}
    for error in defined:
        if drawn.get(error.__name__, "-") != "-":
            assert int(drawn[error.__name__]) == error.exit_code


def test_what_errors_carry() -> None:
    plain = DeployctlError("it broke", hint="mend it")
    assert (str(plain), plain.message, plain.hint) == ("it broke", "it broke", "mend it")
    assert InventoryError(["a", "b"]).problems == ("a", "b")
    assert InventoryError(["a", "b"]).message == "a\nb"
    assert SourceError("a").problems == ("a",)
    assert SourceError(["a", "b"]).message == "a\nb"
    host = HostError(Code.NO_SPACE, "no space", data={"needs": 1})
    assert (host.code, host.data) == (31, {"needs": 1})
    failed = TaskFailed("k", {"code": 61, "message": "it broke", "data": None})
    assert (failed.message, failed.key, failed.result["code"]) == ("k: it broke", "k", 61)


def test_codes_are_json_as_they_are() -> None:
    assert json.dumps([Exit.ABORTED, Code.NO_SPACE]) == "[20, 31]"
