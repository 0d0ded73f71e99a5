"""Durations and sizes."""

from __future__ import annotations

import pytest

from deployctl.inventory import duration_s, size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("1h", 3600),
        ("7", 7),
        ("2.5", 2.5),
        ("0", 0),
        (" 1.5 m ", 90),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1d", "1h30m", "1e3", "inf", "nan", "5 minutes", "10S", "1\u0663s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 500ms, 10s, 5m or 1h"):
        duration_s(text)


def test_a_duration_has_an_end() -> None:
    assert duration_s("500h") == 1_800_000
    with pytest.raises(ValueError, match="'501h' is too long; 500h is the longest"):
        duration_s("501h")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("0", 0),
        ("7B", 7),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("10MB", 10_000_000),
        ("1.5GiB", 1_610_612_736),
        ("1.1kB", 1100),
        ("2TiB", 2 * 1024**4),
        ("7.0", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a size; write it like 64KiB or 10MB"),
        ("-1", "'-1' is not a size; write it like 64KiB or 10MB"),
        ("10 apples", "'10 apples' is not a size; write it like 64KiB or 10MB"),
        ("64k", "'64k' could mean two sizes; write KiB (of 1024) or KB (of 1000)"),
        ("1.5", "'1.5' is not a whole number of bytes"),
        ("1\n2", "'1\\n2' is not a size; write it like 64KiB or 10MB"),
        ("x" * 80, f"'{'x' * 39}…' is not a size; write it like 64KiB or 10MB"),
    ],
)
def test_what_is_no_size(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        size_bytes(text)
    assert str(caught.value) == message
