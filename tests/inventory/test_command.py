"""`deployctl inventory`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deployctl.cli.inventory import command
from deployctl.errors import DeployctlError, InventoryError, UsageError
from deployctl.inventory import json_schema
from tests.inventory.files import HEAD

TEXT = (
    HEAD
    + """\
ssh: {user: deploy}
groups:
  web:
    hosts: ["web[01-02]", {name: six, address: "::1", port: 2222}]
    vars: {MODE: production, TOKEN: {env: API_TOKEN, secret: true}, KEY: {value: hunter2, secret: true}, TWO: "a\\nb"}
  jobs:
    hosts: [job01, web01]
  none: {hosts: []}
"""
)
TABLE = """\
NAME   ADDRESS  PORT  USER    PATH       GROUPS
web01  web01    -     deploy  /srv/shop  web,jobs
web02  web02    -     deploy  /srv/shop  web
six    ::1      2222  deploy  /srv/shop  web
job01  job01    -     deploy  /srv/shop  jobs

VARS
web[01-02],six: MODE=production
web[01-02],six: TOKEN=$API_TOKEN
web[01-02],six: KEY=***
web[01-02],six: TWO="a\\nb"
"""
WARNING = "deployctl: warning: hosts.yaml:10:3: groups.none: holds no host\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hosts.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEPLOYCTL_INVENTORY", raising=False)
    monkeypatch.setenv("API_TOKEN", "hunter3")
    return tmp_path


def _run(*arguments: str, fails: type[DeployctlError] | None = None) -> Result:
    result = CliRunner().invoke(command, arguments)
    if fails is None:
        assert result.exception is None, result.output
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, fails)
    assert "hunter" not in result.output
    return result


def _lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("arguments", [(), ("-o", "auto"), ("-o", "live"), ("--output", "plain")])
def test_the_table(folder: Path, arguments: tuple[str, ...]) -> None:
    result = _run(*arguments)
    assert result.stdout == TABLE
    assert result.stderr == WARNING


def test_a_limit_and_another_file(folder: Path) -> None:
    (folder / "hosts.yaml").rename(folder / "prod.yaml")
    result = _run("-i", "prod.yaml", "-l", "job*,!web01")
    assert result.stdout == (
        "NAME   ADDRESS  PORT  USER    PATH       GROUPS\njob01  job01    -     deploy  /srv/shop  jobs\n"
    )


def test_the_file_may_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "hosts.yaml").rename(folder / "prod.yaml")
    monkeypatch.setenv("DEPLOYCTL_INVENTORY", "prod.yaml")
    assert _run().stdout == TABLE


def test_json_is_one_object_a_line_and_nothing_else(folder: Path) -> None:
    result = _run("-o", "json", "-l", "web01,six")
    assert result.stderr == WARNING
    web01, six, last = _lines(result)
    assert {key: web01[key] for key in web01 if key not in {"run", "elapsed_s", "ts", "data"}} == {
        "schema": 1,
        "event": "host",
        "release": None,
        "host": "web01",
        "phase": "inventory",
        "state": "ok",
        "code": 0,
        "message": "success",
    }
    assert web01["data"] == {
        "name": "web01",
        "address": "web01",
        "port": None,
        "user": "deploy",
        "path": "/srv/shop",
        "groups": ["web", "jobs"],
        "identity_file": None,
        "known_hosts": None,
        "host_keys": "strict",
        "jump": None,
        "fingerprint": None,
        "connect_timeout_s": None,
        "retries": 2,
        "vars": {"MODE": "production", "TOKEN": "$API_TOKEN", "KEY": "***", "TWO": "a\nb"},
    }
    assert six["data"]["port"] == 2222
    assert (last["event"], last["outcome"], last["exit_code"]) == ("run_finished", "ok", 0)
    assert list(last["hosts"]) == ["web01", "six"]
    assert len({line["run"] for line in (web01, six, last)}) == 1


def test_json_ends_with_run_finished_when_the_inventory_is_wrong(folder: Path) -> None:
    (folder / "hosts.yaml").write_text("app: 1\n")
    (last,) = _lines(_run("-o", "json", fails=InventoryError))
    assert (last["event"], last["outcome"], last["exit_code"]) == ("run_finished", "refused", 10)
    assert last["hosts"] == {}


def test_json_ends_with_run_finished_when_nobody_is_selected(folder: Path) -> None:
    (last,) = _lines(_run("-o", "json", "-l", "nobody", fails=UsageError))
    assert (last["event"], last["outcome"], last["exit_code"]) == ("run_finished", "failed", 2)


def test_errors_print_nothing_on_standard_output(folder: Path) -> None:
    assert _run("-l", "wbe", fails=UsageError).stdout == ""
    assert _run("-i", "nope.yaml", fails=InventoryError).stdout == ""


def test_the_schema_needs_no_inventory(folder: Path) -> None:
    (folder / "hosts.yaml").unlink()
    assert json.loads(_run("schema").stdout) == json_schema()


def test_a_terminal_without_unicode_gets_escapes(folder: Path) -> None:
    (folder / "hosts.yaml").write_text(
        "app: shop\npath: /srv/caf\u00e9\ngroups: {g: {hosts: [a]}}\n", "utf-8"
    )
    result = CliRunner(charset="ascii").invoke(command, [])
    assert result.exception is None
    assert "/srv/caf\\xe9" in result.stdout
