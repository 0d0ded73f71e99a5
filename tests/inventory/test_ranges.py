"""Ranges to names and back."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.inventory import fold
from deployctl.inventory.ranges import expand, is_range

PARTS = st.sampled_from(["a", "b", ".", "-", "0", "1", "2", "9", "10", "01", "001", "0000000000"])
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=5).map("".join), max_size=12)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web01", "web01"),
        ("web[1-3]", "web1 web2 web3"),
        ("web[08-11].x", "web08.x web09.x web10.x web11.x"),
        ("a[1,3,7-9]", "a1 a3 a7 a8 a9"),
        ("a[1-10/3]", "a1 a4 a7 a10"),
        ("a[0-1]b[0-1]", "a0b0 a0b1 a1b0 a1b1"),
        ("a[1-2][3-4]", "a13 a14 a23 a24"),
        ("10.0.0.[1-2]", "10.0.0.1 10.0.0.2"),
        ("[1-2]", "1 2"),
        ("::1", "::1"),
        ("[::1]", "[::1]"),
    ],
)
def test_expand(pattern: str, names: str) -> None:
    assert expand(pattern) == tuple(names.split())


def test_a_huge_range_is_counted_and_not_expanded() -> None:
    with pytest.raises(ValueError, match="is 999,999,998,000,000,001 hosts; at most 10,000"):
        expand("a[1-999999999]b[1-999999999]")


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ("", ""),
        ("web01 web02 web03 job01", "web[01-03],job01"),
        ("job01 web02 web01", "job01,web[01-02]"),
        ("web9 web10 web11", "web[9-11]"),
        ("a1b1 a1b2 a2b1", "a1b[1-2],a2b1"),
        ("10.0.0.1 10.0.0.2 10.0.1.2", "10.0.0.[1-2],10.0.1.2"),
        ("::1 ::2 web1", "::1,::2,web1"),
        ("a a b", "a,b"),
        ("web1 web1", "web1"),
        ("odd[name @x a%b", "odd[name,@x,a%b"),
    ],
)
def test_fold(names: str, folded: str) -> None:
    assert fold(names.split()) == folded


def test_fold_takes_any_text() -> None:
    assert fold(["a,b", "[1-", "é1", "x 1", "x 2"]) == "a,b,[1-,é1,x 1,x 2"


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_fold_is_exact(names: list[str]) -> None:
    parts: list[str] = []
    for piece in fold(names).split(","):
        # A comma inside brackets belongs to its part.
        if parts and parts[-1].count("[") > parts[-1].count("]"):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    again = [name for part in parts if part for name in (expand(part) if is_range(part) else (part,))]
    assert sorted(again) == sorted(set(names))


def test_no_settings_of_clustershell_are_read() -> None:
    code = (
        "import sys, deployctl.cli.inventory; print([m for m in sys.modules if m.startswith('ClusterShell')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['ClusterShell', 'ClusterShell.RangeSet']"
