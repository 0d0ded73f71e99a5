"""One command measured as a whole: wall time, processor time and memory on this side, bytes on the wire."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    wall_s: float
    cpu_s: float  # of the tool and all its children; hosts are not among them
    peak_mib: float  # of the largest of these processes
    wire_mb: float  # over loopback, both ways, headers and acknowledgements too

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def loopback_bytes() -> int:
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return 0  # not Linux
    return next(int(line.split()[1]) for line in (each.replace(":", ": ") for each in lines) if "lo:" in line)


def run(command: Sequence[str], environ: dict[str, str] | None = None) -> Figures:
    """Run it and return its figures; CalledProcessError with what it said when it fails."""
    wire = loopback_bytes()
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environ or {})},
    ) as process:
        said = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said[-2000:])
    return Figures(
        wall_s,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        (loopback_bytes() - wire) / 1e6,
    )
