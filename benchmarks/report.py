"""The figures as a table for people, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.measure import Figures
from benchmarks.scenarios import Scenario

OURS = "deployctl"
Runs = Mapping[str, Sequence[Figures]]  # tool to its figures, round by round


def ratio(runs: Runs, tool: str) -> float:
    """Our wall time over the tool's, the median of the rounds' ratios."""
    pairs = zip(runs[OURS], runs[tool], strict=True)
    return statistics.median(ours.wall_s / theirs.wall_s for ours, theirs in pairs)


def table(scenario: Scenario, hosts: int, runs: Runs, absent: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of one scenario's section."""
    rounds = len(runs[OURS])
    yield f"## {scenario.title[0].upper()}{scenario.title[1:]}, {hosts} hosts"
    yield ""
    yield "One round." if rounds == 1 else f"Median of {rounds} rounds, all tools in turn in each."
    yield ""
    yield "| tool | wall s | from, to | ours over it | wanted | client CPU s | largest process MiB | on the wire MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for tool, figures in runs.items():
        walls = [each.wall_s for each in figures]
        ours = "" if tool == OURS else f"{ratio(runs, tool):.2f}"
        wanted = f"{scenario.wanted[tool]:.2f}" if tool in scenario.wanted else ""
        cpu_s, peak, wire = (
            statistics.median(getattr(each, key) for each in figures)
            for key in ("cpu_s", "peak_mib", "wire_mb")
        )
        yield (
            f"| {tool} | {statistics.median(walls):.2f} | {min(walls):.2f}, {max(walls):.2f} | {ours} | {wanted} "
            f"| {cpu_s:.2f} | {peak:.0f} | {wire:.1f} |"
        )
    yield ""
    for tool, reason in absent.items():
        yield f"- {tool}: {reason}"
    if absent:
        yield ""
