"""Variables of a host, and that secret ones stay secret."""

from __future__ import annotations

import pytest

from deployctl.errors import InventoryError
from deployctl.inventory import resolve_vars, secret_values, shown
from deployctl.model import Host, Var

HOST = Host(
    name="web01",
    address="web01",
    path="/srv",
    vars={
        "MODE": Var("production"),
        "TOKEN": Var(env="API_TOKEN", secret=True),
        "REGION": Var(env="REGION"),
        "KEY": Var("one\n  two\n", secret=True),
        "EMPTY": Var("", secret=True),
    },
)


def test_values_come_from_the_file_and_the_environment() -> None:
    values = resolve_vars(HOST, {"API_TOKEN": "hunter2", "REGION": "", "OTHER": "x"})
    assert values == {
        "MODE": "production",
        "TOKEN": "hunter2",
        "REGION": "",
        "KEY": "one\n  two\n",
        "EMPTY": "",
    }


def test_every_missing_variable_is_named_and_no_value() -> None:
    with pytest.raises(InventoryError) as caught:
        resolve_vars(HOST, {"API_TOKENS": "hunter2"})
    assert caught.value.problems == (
        "web01: vars.TOKEN: the environment variable API_TOKEN is not set",
        "web01: vars.REGION: the environment variable REGION is not set",
    )
    assert "hunter2" not in f"{caught.value}{caught.value.hint}"


def test_a_value_that_is_no_text_is_refused() -> None:
    with pytest.raises(InventoryError) as caught:
        resolve_vars(HOST, {"API_TOKEN": "\udcff", "REGION": "x"})
    assert caught.value.problems == ("web01: vars.TOKEN: the environment variable API_TOKEN is not UTF-8",)


def test_secret_values_are_whole_texts_and_their_lines() -> None:
    found = secret_values([HOST, HOST], {"API_TOKEN": "hunter2", "REGION": "eu"})
    assert found == {"hunter2", "one\n  two\n", "one", "two"}
    assert secret_values([HOST], {}) == {"one\n  two\n", "one", "two"}


def test_what_is_shown() -> None:
    assert [shown(var) for var in HOST.vars.values()] == ["production", "$API_TOKEN", "$REGION", "***", "***"]
