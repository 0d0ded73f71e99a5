"""Durations and sizes as people write them.

Owns the two notations; refuses to know which option or key a text came from.
"""

from __future__ import annotations

import re

# poll() counts milliseconds in 31 bits, about 596 hours; a longer wait would overflow somewhere below us.
LONGEST_S = 500 * 3600.0

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))? ?([a-z]*)", re.IGNORECASE)
_BYTES: dict[str, int] = {"b": 1} | {
    f"{letter}{tail}": int(base**power)
    for power, letter in enumerate("kmgt", start=1)
    for tail, base in (("b", 1000), ("ib", 1024))
}


def duration_s(text: str) -> float:
    """Seconds in a text such as `500ms`, `10s`, `5m`, `1h` or `2.5`; a bare number is seconds.

    ValueError, fit for people, for anything else and for more than 500 hours.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a duration; write it like 500ms, 10s, 5m or 1h")
    number, unit = float(match[1]), match[2] or "s"
    seconds = number / 1000 if unit == "ms" else number * _SECONDS[unit]
    if seconds > LONGEST_S:
        raise ValueError(f"{_quoted(text)} is too long; 500h is the longest")
    return seconds


def size_bytes(text: str) -> int:
    """Bytes in a text such as `64KiB`, `10MB`, `1.5GiB` or `4096`; a bare number is bytes.

    KB, MB, GB and TB count in thousands, KiB, MiB, GiB and TiB in 1024s, in any case. ValueError, fit for people,
    for anything else, for a bare letter (`64K`) and for what is no whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a size; write it like 64KiB or 10MB")
    whole, fraction, unit = match[1], match[2] or "", match[3].lower() or "b"
    if unit in {"k", "m", "g", "t"}:
        big = unit.upper()
        raise ValueError(f"{_quoted(text)} could mean two sizes; write {big}iB (of 1024) or {big}B (of 1000)")
    if unit not in _BYTES:
        raise ValueError(f"{_quoted(text)} is not a size; write it like 64KiB or 10MB")
    if unit == "b" and fraction.strip("0"):
        raise ValueError(f"{_quoted(text)} is not a whole number of bytes")
    return int(whole + fraction) * _BYTES[unit] // int("1" + "0" * len(fraction))


def _quoted(text: str) -> str:
    short = text if len(text) <= 40 else text[:39] + "…"
    return ascii(short) if not short.isprintable() else f"'{short}'"
