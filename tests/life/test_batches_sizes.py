"""Sizes of batches and who gets a hook: pure, so every corner is cheap."""

from __future__ import annotations

import pytest

from deployctl.inventory import Hook
from deployctl.model import Host
from deployctl.release.hooks import batches, on_hosts


@pytest.mark.parametrize(
    ("text", "hosts", "sizes"),
    [
        (None, 7, [7]),
        (None, 0, []),
        ("1,10%,100%", 1, [1]),
        ("1,10%,100%", 5, [1, 1, 3]),  # a tenth of five is one host, not none
        ("1,10%,100%", 30, [1, 3, 26]),
        ("25%", 8, [2, 2, 2, 2]),
        ("33%", 10, [3, 3, 3, 1]),
        ("1", 3, [1, 1, 1]),
        (" 2 , 50% ", 6, [2, 3, 1]),
        ("100", 3, [3]),
    ],
)
def test_sizes_add_up_and_the_last_is_repeated(text: str | None, hosts: int, sizes: list[int]) -> None:
    assert batches(text, hosts) == sizes


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-1", "+1", "1.5", "one", "1,", "%", "\u0661"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a number of hosts nor a percentage"):
        batches(text, 10)


def host(name: str, *groups: str) -> Host:
    return Host(name=name, address=name, path="/srv/shop", groups=groups)


def test_once_is_the_first_host_that_the_groups_allow() -> None:
    hosts = [host("a", "web"), host("b", "web", "jobs"), host("c", "jobs")]
    hooks = [
        Hook("all"),
        Hook("first", once=True),
        Hook("jobs", once=True, groups=("jobs",)),
        Hook("none", groups=("db",)),
    ]
    found = {name: [each["run"] for each in each_host] for name, each_host in on_hosts(hooks, hosts).items()}
    assert found == {"a": ["all", "first"], "b": ["all", "jobs"], "c": ["all"]}
