"""Puts the figures of the last `make bench` together as docs/benchmarks.md."""

from __future__ import annotations

import sys
from pathlib import Path

HEAD = """# How fast it is, beside what people use instead

`make bench` measures this and writes this page; the raw figures are in [benchmarks/](benchmarks/). All tools release the
same trees to the same sshd processes on this one machine, in turn, several times over. What is released lies on a disk, and has been
read before; hosts keep their directories in memory, so that no disk is measured. Since hosts and tools share the processors, a second that a host spends is a second
that everybody waits: with hosts of their own, all tools are faster, and those that are bound by the network come closer
to each other.

"ours over it" is deployctl's time over that tool's, the median of the rounds; "wanted" is what it should be at most.
`ssh + tar` is what OpenSSH alone needs: one archive, or one of what changed upon `cp -a` or `cp -al`, to all hosts at
once, with nothing checked, locked, switched together or put back. Where ours is not what was wanted, [performance.md](performance.md) says
what the time goes into.

"""

SCALE = """# What it costs with more of everything

Wall time and processor time of the machine that releases, and the memory that each of its processes has to itself (unique
set size, looked at twenty times a second).

![cost against hosts, files and bytes](benchmarks/scale.svg)

"""


UPLINK = """A push fills the link that it has: as root, hosts and deployctl in network namespaces of their own, the link between them
narrowed with TBF; counted over the middle nine tenths of what travels.

"""


def write(results: Path, page: Path) -> None:
    text = HEAD + (results / "results.md").read_text() + "\n"
    uplink = results / "uplink.md"
    if uplink.exists():
        title, _, rest = uplink.read_text().partition("\n\n")
        text += f"{title}\n\n{UPLINK}{rest}\n"
    page.write_text(text + SCALE + (results / "scale.md").read_text())


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
