"""Releases the same trees with deployctl and with what people use instead, in turn, on the same servers.

    python -m benchmarks [SCENARIO …] [--rounds N] [--hosts N] [--tools A,B] [--write DIRECTORY]

Prints a table for each scenario; `--write` keeps it as results.md with the raw figures in results.json. Tools that are
not installed and tools that have no such scenario are named. `make bench` installs them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import scenarios
from benchmarks.farm import Farm, farm_of, machine
from benchmarks.measure import Figures, run
from benchmarks.report import OURS, Runs, table
from benchmarks.scenarios import Scenario
from benchmarks.tools import ALL, Case, Tool, Way


def once(farm: Farm, way: Way) -> Figures:
    """Bring the hosts to where the way begins, then measure it."""
    farm.empty()
    for command in way.before:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return run(way.command, way.environ)


def compare(farm: Farm, case: Case, tools: Sequence[Tool], rounds: int) -> tuple[Runs, dict[str, str]]:
    runs: dict[str, list[Figures]] = {}
    absent: dict[str, str] = {}
    taking_part = []
    for tool in tools:
        if missing := tool.missing():
            absent[tool.name] = f"not installed ({', '.join(missing)})"
        elif tool.way(case) is None:
            absent[tool.name] = "has no such scenario"
        else:
            taking_part.append(tool)
    for number in range(rounds + 1):
        for tool in [each for each in taking_part if each.name not in absent]:
            way = tool.way(case)
            assert way is not None
            try:
                figures = once(farm, way)
            except subprocess.CalledProcessError as error:
                said = (error.stdout or error.output or b"")[-300:].decode(errors="replace").strip()
                if tool.name == OURS:
                    sys.exit(f"deployctl failed: {said!r}")
                last = said.splitlines()[-1].replace(str(farm.base), "…") if said else ""
                absent[tool.name] = f"failed with status {error.returncode}: {last}"
                runs.pop(tool.name, None)
                continue
            if number:  # the first round warms caches
                runs.setdefault(tool.name, []).append(figures)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return runs, absent


def perform(scenario: Scenario, arguments: argparse.Namespace, base: Path) -> tuple[list[str], object] | None:
    case = scenario.make(base)
    if case is None:
        print(f"{scenario.name}: its trees can't be had here", file=sys.stderr)
        return None
    hosts = arguments.hosts or scenario.hosts
    with farm_of(hosts) as farm:
        wanted = arguments.tools.split(",") if arguments.tools else None
        tools = [kind(farm, arguments.bin) for kind in ALL if wanted is None or kind.name in (OURS, *wanted)]
        runs, absent = compare(farm, case, tools, arguments.rounds)
    raw = {tool: [each.to_json() for each in figures] for tool, figures in runs.items()}
    return list(table(scenario, hosts, runs, absent)), raw


def main() -> None:
    names = [each.name for each in scenarios.ALL]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "scenario", nargs="*", metavar="SCENARIO", help=f"of {', '.join(names)}; all of them without"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, help="in place of each scenario's own number")
    parser.add_argument("--tools", help="names, with commas between them; all without")
    parser.add_argument(
        "--bin", type=Path, default=Path(".bench/bin"), help="where pip installed the other tools"
    )
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.scenario) - set(names):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    chosen = [each for each in scenarios.ALL if not arguments.scenario or each.name in arguments.scenario]
    lines = [f"Measured on {dt.datetime.now(dt.UTC):%Y-%m-%d}: {machine()}.", ""]
    print(*lines, sep="\n")
    raw: dict[str, object] = {"machine": machine()}
    for scenario in chosen:
        with tempfile.TemporaryDirectory() as name:  # on a disk, where what is released lies
            done = perform(scenario, arguments, Path(name))
        if done:
            print(*done[0], sep="\n", flush=True)
            lines += done[0]
            raw[scenario.name] = done[1]
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "results.md").write_text("\n".join(lines) + "\n")
        (arguments.write / "results.json").write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
