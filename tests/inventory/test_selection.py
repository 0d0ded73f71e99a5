"""`--limit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployctl.errors import Exit, UsageError
from deployctl.inventory import Inventory, fold, select
from tests.inventory.files import HEAD, load

TEXT = (
    HEAD
    + """\
groups:
  web: {hosts: ["web[01-12].example.com", "::1"]}
  jobs: {hosts: [job01, "web01.example.com"]}
  empty: {hosts: []}
"""
)


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return load(tmp_path, TEXT)


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        (None, "web[01-12].example.com,::1,job01"),
        ("all", "web[01-12].example.com,::1,job01"),
        ("*", "web[01-12].example.com,::1,job01"),
        ("web", "web[01-12].example.com,::1"),
        ("jobs", "web01.example.com,job01"),
        ("job01", "job01"),
        ("job01,web03.example.com", "web03.example.com,job01"),
        ("job01 , web03.example.com", "web03.example.com,job01"),
        ("web[01,03-04].example.com,job01", "web[01,03-04].example.com,job01"),
        ("web[11-99].example.com", "web[11-12].example.com"),
        ("web[01-02]*", "web[01-02].example.com"),
        ("web0?.*", "web[01-09].example.com"),
        ("job*", "web01.example.com,job01"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("!web", "job01"),
        ("!web,!jobs,all", ""),
        ("web,!web[02-12]*", "web01.example.com,::1"),
        ("!web[02-12]*,web", "web01.example.com,::1"),
        ("!jobs,!web[01-10]*,!::1", "web[11-12].example.com"),
    ],
)
def test_select(inventory: Inventory, pattern: str | None, chosen: str) -> None:
    if not chosen:
        with pytest.raises(UsageError, match="leaves no host"):
            select(inventory, pattern)
    else:
        assert fold(host.name for host in select(inventory, pattern)) == chosen


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("wbe", "--limit: 'wbe' matches no group and no host (did you mean 'web'?)"),
        ("web,nothing", "--limit: 'nothing' matches no group and no host"),
        ("all,!job02", "--limit: 'job02' matches no group and no host (did you mean 'job01'?)"),
        (
            "web02",
            "--limit: 'web02' matches no group and no host (did you mean 'web02.example.com'?)",
        ),
        ("job[1-2]", "--limit: 'job[1-2]' matches no group and no host (did you mean 'job01'?)"),
        ("x*", "--limit: 'x*' matches no group and no host"),
        ("empty", "--limit: the group 'empty' holds no host"),
        ("", "--limit '' has an empty part"),
        ("web,", "--limit 'web,' has an empty part"),
        ("!", "--limit '!' has an empty part"),
        ("web,!web", "--limit 'web,!web' leaves no host"),
        ("web[1-999999999]", "--limit: 'web[1-999999999]' is 999,999,999 hosts; at most 10,000 are possible"),
        ("web[a-b]", "--limit: 'web[a-b]' is not a range; write it like web[01-20] or web[1,3,7-9]"),
        ("\x1b[31m", "--limit: '\\x1b[31m' matches no group and no host"),
    ],
)
def test_what_selects_nobody_is_wrong_usage(inventory: Inventory, pattern: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(inventory, pattern)
    assert caught.value.message == message
    assert caught.value.exit_code is Exit.USAGE
