"""Numbers as people read them.

Owns units and rounding; refuses to know what is counted.
"""

from __future__ import annotations


def size(count_bytes: float) -> str:
    """`12.4 MB`; kB below 0.1 MB, GB from 10 GB on."""
    if count_bytes < 1000:
        return f"{count_bytes:.0f} B"
    if count_bytes < 100_000:
        return f"{count_bytes / 1e3:.1f} kB"
    if count_bytes < 10e9:
        return f"{count_bytes / 1e6:.1f} MB"
    return f"{count_bytes / 1e9:.1f} GB"


def size_of(done_bytes: float, total_bytes: float) -> str:
    """`3.1 of 12.4 MB`: both in the unit of the total, so that the text keeps its shape."""
    whole = size(total_bytes)
    number, unit = whole.split(" ")
    divisor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    done = f"{done_bytes / divisor:.0f}" if unit == "B" else f"{done_bytes / divisor:.1f}"
    return f"{done.rjust(len(number))} of {whole}"


def seconds(duration_s: float) -> str:
    """`1.2 s`, `2 min 05 s`, `1 h 02 min`."""
    if duration_s < 0.095:
        return f"{duration_s:.2f} s"
    if duration_s < 99.95:
        return f"{duration_s:.1f} s"
    whole = round(duration_s)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(duration_s: float) -> str:
    """`0:08`, `12:04`, `1:02:03`: a width that does not change with every second."""
    whole = max(0, int(duration_s))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"
