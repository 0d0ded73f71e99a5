"""How much a run and what it leaves take: memory, descriptors, processes, bytes on disks."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.release.running import Running, command_line


@dataclass
class Use:
    """The most, and for memory also the first and last, that was seen of one process of a run."""

    role: str
    first_kib: int = 0
    last_kib: int = 0
    peak_kib: int = 0
    descriptors: int = 0


@dataclass
class Gauge:
    """Reads a run to its end and looks at its processes twice a second."""

    uses: dict[int, Use] = field(default_factory=dict)

    def watch(self, running: Running, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        looked_at = 0.0
        while running._read(deadline):
            if time.monotonic() - looked_at > 0.5:
                self.look(running)
                looked_at = time.monotonic()

    def look(self, running: Running) -> None:
        for process in running.family():
            found = re.match(rb"deployctl: (\w+) \d+", command_line(process.pid))
            role = found[1].decode() if found else "parent" if process.pid == running.process.pid else "other"
            use = self.uses.setdefault(process.pid, Use(role))
            kib, peak_kib, descriptors = memory_of(process.pid)
            use.first_kib = use.first_kib or kib
            use.last_kib = kib or use.last_kib
            use.peak_kib = max(use.peak_kib, peak_kib)
            use.descriptors = max(use.descriptors, descriptors)

    def most(self, role: str) -> Use:
        """The largest process of a role."""
        return max((use for use in self.uses.values() if use.role == role), key=lambda use: use.peak_kib)

    def count(self, role: str) -> int:
        return sum(use.role == role for use in self.uses.values())


def memory_of(pid: int) -> tuple[int, int, int]:
    """Memory now and at most, in KiB, and open descriptors; zeros for a process that has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - ten times as fast
    except OSError:
        return 0, 0, 0
    found = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+)", text))
    return int(found.get("VmRSS", 0)), int(found.get("VmHWM", 0)), descriptors


def disk_bytes(*tops: Path) -> tuple[int, int]:
    """Bytes and entries below some directories, as `du` counts them."""
    size_bytes = entries = 0
    for top in tops:
        for directory, names, files in os.walk(top):
            for name in names + files:
                size_bytes += os.lstat(os.path.join(directory, name)).st_blocks * 512  # noqa: PTH118
                entries += 1
    return size_bytes, entries
