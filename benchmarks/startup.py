"""What `deployctl --help` costs beyond importing click: the median ratio of runs taken in turn.

    python benchmarks/startup.py [ROUNDS]

Exits 1 when it is 2.5 or more: then an import at the top of a module belongs inside a function.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CLICK = (sys.executable, "-c", "import click")
HELP = (sys.executable, "-m", "deployctl", "--help")
LIMIT = 2.5


def seconds(command: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for command in (CLICK, HELP):
        seconds(command)  # bytecode is written, files are in memory
    pairs = [(seconds(CLICK), seconds(HELP)) for _ in range(rounds)]
    click_s, help_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(help_s / click_s for click_s, help_s in pairs)
    print(f"import click {click_s * 1000:.0f} ms, deployctl --help {help_s * 1000:.0f} ms, ratio {ratio:.2f}")
    return int(ratio >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
