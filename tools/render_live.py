"""Draw docs/live.svg: the live display as a push shows it, from the program's own renderer.

python tools/render_live.py             write docs/live.svg
python tools/render_live.py play [N]    play a push to N hosts in this terminal (12 unless said); `fail` after N: with a failure
"""

from __future__ import annotations

import heapq
import io
import os
import random
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from deployctl.inventory import fold
from deployctl.output import make_reporter
from deployctl.output.frame import Frame
from deployctl.output.view import RunView

RELEASE, BEFORE = "20261123T204315Z-1a2b3c4d", "20261120T101500Z-99887766"
SIZE = 12_400_000
NO_SPACE = "no space left on /srv (needs 120 MB, has 4 MB)"
PICTURE_S = 5.5
Event = dict[str, Any]


def push(count: int, forks: int, *, fails: bool = False, seed: int = 4) -> Iterator[tuple[float, Event]]:
    """Events of a made-up push with the second at which each happens; the same ones for the same seed."""
    chance = random.Random(seed)
    names = [f"web{number:0{max(2, len(str(count)))}}" for number in range(1, count + 1)]
    yield (
        0.0,
        {
            "event": "run_started",
            "command": "push",
            "app": "shop",
            "hosts": names,
            "forks": forks,
            "source": "build",
        },
    )
    work = _Staging(names, chance, forks, names[len(names) // 2] if fails else "")
    now_s = yield from work.events()
    if fails:
        yield now_s + 0.3, _finished(work.ended, "aborted", 20, now_s)
        return
    for name in names:
        yield now_s, _host(name, "activate", "running")
    ends = sorted((now_s + 0.3 + chance.random() * 2, name) for name in names)
    for at_s, name in ends:
        yield at_s, _host(name, "activate", "ok")
    ended = {name: {"state": "ok", "code": 0, "message": "success", "live": RELEASE} for name in names}
    yield ends[-1][0] + 0.4, _finished(ended, "released", 0, ends[-1][0])


class _Staging:
    def __init__(self, names: list[str], chance: random.Random, forks: int, failing: str) -> None:
        self.names = names
        self.chance = chance
        self.forks = forks
        self.failing = failing
        self.ended: dict[str, Any] = {}

    def events(self) -> Generator[tuple[float, Event], None, float]:
        """Every host's phases, `forks` hosts at a time, with progress twice a second; returns when it was over."""
        queue: list[tuple[float, int, str, Event]] = []
        free = [0.1 + 0.02 * number for number in range(self.forks)]
        heapq.heapify(free)
        sending: dict[str, tuple[float, float]] = {}
        for number, name in enumerate(self.names):
            at_s = heapq.heappop(free)
            for phase, took_s in self._phases(name):
                queue.append((at_s, number, name, _host(name, phase, "running", bytes=SIZE)))
                if phase == "upload":
                    sending[name] = (at_s, at_s + took_s)
                at_s += took_s
                queue.append((at_s, number, name, _host(name, phase, "ok", bytes=SIZE)))
            heapq.heappush(free, at_s)
        stop_s = min(
            (at_s for at_s, _, name, event in queue if name == self.failing and event["phase"] == "stage"),
            default=1e9,
        )
        last_s = min(stop_s, max(at_s for at_s, *_ in queue))
        ticks: list[tuple[float, int, str, Event]] = [
            (tick / 2, -1, "", {}) for tick in range(1, int(last_s * 2) + 1)
        ]
        for at_s, _, name, event in sorted([*queue, *ticks], key=lambda entry: entry[:2]):
            if at_s > last_s:
                break
            if name == self.failing and at_s == stop_s:
                continue
            yield at_s, event or self._progress(at_s, sending)
        if self.failing:
            yield from self._stopped(last_s, sending)
        return last_s

    def _phases(self, name: str) -> list[tuple[str, float]]:
        slow = 2.5 if name.endswith("7") else 1
        chance = self.chance
        times = {"connect": 0.2, "probe": 0.15, "upload": 2.2 * slow, "stage": 0.6}
        return [(phase, took_s * (0.6 + 0.8 * chance.random())) for phase, took_s in times.items()]

    def _progress(self, at_s: float, sending: dict[str, tuple[float, float]]) -> Event:
        share = {name: min(1.0, max(0.0, (at_s - a) / (b - a))) for name, (a, b) in sending.items()}
        hosts = {name: [int(SIZE * part), SIZE] for name, part in share.items() if 0 < part < 1}
        done = int(sum(share.values()) * SIZE)
        return {
            "event": "progress",
            "bytes_done": done,
            "bytes_total": SIZE * len(self.names),
            "hosts": hosts,
        }

    def _stopped(self, at_s: float, sending: dict[str, tuple[float, float]]) -> Iterator[tuple[float, Event]]:
        hint = "free space on the host, or run `deployctl prune`"
        failed = _host(self.failing, "upload", "failed", hint=hint) | {"code": 31, "message": NO_SPACE}
        yield at_s, failed
        for name in self.names:
            begun = sending[name][0] < at_s
            state = "failed" if name == self.failing else "cancelled" if begun else "skipped"
            self.ended[name] = {"state": state, "code": 0, "message": "", "live": BEFORE if begun else None}
            if name != self.failing:
                yield at_s + 0.2, _host(name, "upload" if begun else "connect", state)


def _host(name: str, phase: str, state: str, **data: Any) -> Event:
    event = {"event": "host", "host": name, "phase": phase, "state": state, "code": 0, "message": "success"}
    return event | {"data": data, "elapsed_s": 1.0, "release": RELEASE}


def _finished(hosts: dict[str, Any], outcome: str, code: int, took_s: float) -> Event:
    event = {
        "event": "run_finished",
        "outcome": outcome,
        "exit_code": code,
        "release": RELEASE,
        "hosts": hosts,
    }
    return event | {
        "bytes_sent": SIZE * len(hosts),
        "elapsed_s": took_s,
        "skew_s": 0.21 if code == 0 else None,
    }


def picture(file: Path) -> None:
    now_s = 0.0
    view = RunView(lambda: now_s)
    for at_s, event in push(12, 6):
        if at_s > PICTURE_S:
            break
        now_s = at_s
        view.apply(event)
    console = Console(record=True, width=92, file=io.StringIO(), color_system="standard", force_terminal=True)
    for line in Frame(view, PICTURE_S, 92, 30, fold).lines():
        console.print(line)
    svg = console.export_svg(title="deployctl push ./build", unique_id="live")
    file.write_text(svg.replace("<svg ", '<svg xml:space="preserve" ', 1), encoding="utf-8")


def play(count: int, *, fails: bool) -> None:
    reporter = make_reporter("auto", verbosity=0, stdout=sys.stdout, stderr=sys.stderr, environ=os.environ)
    begun_s = time.monotonic()
    try:
        for at_s, event in push(count, min(32, max(4, count // 2)), fails=fails):
            while time.monotonic() - begun_s < at_s:
                reporter.tick()
                time.sleep(0.05)
            reporter.event(event)
    finally:
        reporter.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(int((*sys.argv[2:3], "12")[0]), fails="fail" in sys.argv)
    else:
        picture(Path(__file__).parent.parent / "docs" / "live.svg")
