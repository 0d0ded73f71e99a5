"""Draws scale.json, as benchmarks/scale.py wrote it: `python benchmarks/plot.py scale.json scale.svg`. Needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "deployctl"  # the same figures give the same file


def draw(scale: Path, picture: Path) -> None:
    found = json.loads(scale.read_text())
    series = [each for key, each in found.items() if key != "machine"]
    figure, rows = plt.subplots(2, len(series), figsize=(4 * len(series), 6), layout="constrained")
    for number, each in enumerate(series):
        at = [point["at"] for point in each["points"]]
        times, memory = rows[0][number], rows[1][number]
        times.set_title(each["title"], fontsize=9)
        for key, label in (("wall_s", "wall time"), ("cpu_s", "client processor time")):
            times.plot(at, [point[key] for point in each["points"]], marker="o", markersize=3, label=label)
        for key, label in (
            ("parent_mib", "parent"),
            ("worker_mib", "largest worker"),
            ("packer_mib", "packer"),
        ):
            memory.plot(at, [point[key] for point in each["points"]], marker="o", markersize=3, label=label)
        for axes, unit in ((times, "s"), (memory, "MiB")):
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.set_xlabel(each["unit"], fontsize=8)
            axes.set_ylabel(unit, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7, frameon=False)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
