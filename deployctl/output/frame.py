"""One picture of a run for a terminal of a given size.

Owns the layout, from the promise (staged everywhere, then live everywhere) down to single hosts; pure: the same view, time
and size give the same lines. No line is wider than asked, no picture taller.

    push shop 20261123T204315Z-1a2b3c4d to 20 hosts                    0:08, about 0:10 left

    staged  ━━━━━━━━━━━━━━━╸─────────────────   12/20  744.0 of 1200.0 MB  45.1 MB/s
    live    ─────────────────────────────────    0/20

    ▸ web07  upload    ━━━━━━━╸────────────  41 %   5.1 of 12.4 MB     8 s
    ✗ web03  upload    failed
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from deployctl.output import numbers
from deployctl.output.causes import Fold, causes
from deployctl.output.stream import printable
from deployctl.output.view import HostView, RunView

MOST_COLUMNS = 120  # wider, the eye loses the line
_STAGING = ("waiting", "connect", "probe", "upload", "stage", "ready")
_SWITCHING = ("ready", "activate", "check", "live")
_REVERTING = ("live", "revert", "reverted")
_CAUSES = 3


@dataclass(frozen=True, slots=True)
class Glyphs:
    full: str
    half: str
    empty: str
    ok: str
    failed: str
    work: str
    idle: str
    stopped: str
    back: str
    more: str


UNICODE = Glyphs("━", "╸", "─", "✓", "✗", "▸", "·", "-", "↩", "…")
ASCII = Glyphs("#", "#", ".", "+", "x", ">", ".", "-", "<", "..")


@dataclass(slots=True)
class Frame:
    """What a picture needs beside the view: the size of the terminal in cells, and letters it can show."""

    view: RunView
    now_s: float
    width: int
    height: int
    fold: Fold
    glyphs: Glyphs = UNICODE

    def lines(self) -> list[Text]:
        self.width = min(self.width, MOST_COLUMNS)
        top = [self._header(), Text(), *self._bars()]
        failures = self._failures()
        room = self.height - len(top) - 1
        # Room for one failure is left in any case, so that one does not turn the whole picture over.
        if len(self.view.hosts) <= room - 3:
            body = [Text(), *self._rows(self.view.hosts.values())]
            body += [Text(), *failures[: room - len(self.view.hosts) - 1]] if failures else []
        else:
            body = [self._counts(), *([Text(), *failures] if failures else []), Text()]
            body += self._working(self.height - len(top) - len(body))
        lines = [*top, *body][: self.height]
        for line in lines:
            line.truncate(self.width, overflow="ellipsis" if self.glyphs is UNICODE else "crop")
        return lines

    # --- the whole run

    def _header(self) -> Text:
        view = self.view
        line = Text().append(printable(" ".join(filter(None, (view.command, view.app)))), style="bold")
        hosts = f" to {numbers.hosts(len(view.hosts))}" if view.hosts else ""
        if self.width >= 56 and view.release:
            line.append(f" {view.release}", style="cyan")
        line.append(hosts)
        right = numbers.clock(self.now_s - view.begun_s)
        left_s = view.left_s()
        if left_s and view.bytes_done < view.bytes_total and self.width >= 72:
            right += f", about {numbers.clock(left_s)} left"
        line.truncate(max(0, self.width - len(right) - 1))
        line.pad_right(self.width - line.cell_len - len(right))
        return line.append(right, style="dim")

    def _bars(self) -> list[Text]:
        view, whole = self.view, len(self.view.hosts)
        if view.command in {"push", "rollback", "activate"}:
            bars = []
            if view.command == "push":
                tail = self._bytes()
                bars.append(self._bar("staged", view.staging(), len(view.staged), whole, "cyan", tail))
            if view.reverting:
                done, of = len(view.reverted), len(view.reverting)
                bars.append(self._bar("back", done / of, done, of, "yellow"))
            elif not (view.started.get("dry_run") or view.started.get("activate") is False):
                bars.append(self._bar("live", len(view.live) / max(1, whole), len(view.live), whole, "green"))
            return bars
        return [
            self._bar("done", len(view.done) / max(1, whole), len(view.done), whole, "green", self._bytes())
        ]

    def _bytes(self) -> str:
        view = self.view
        if not view.bytes_total or self.width < 56:
            return ""
        told = numbers.size_of(view.bytes_done, view.bytes_total)
        if self.width >= 72 and view.bytes_done < view.bytes_total and (rate := view.rate()):
            told += f"  {numbers.size(rate)}/s"
        return told

    def _bar(self, label: str, share: float, done: int, whole: int, colour: str, tail: str = "") -> Text:
        digits = len(str(len(self.view.hosts)))
        reserved = 0 if self.width < 56 else 20 if self.width < 72 else 34
        room = max(4, self.width - 8 - (2 * digits + 3) - reserved)
        line = Text(f"{label:<8}")
        line.append_text(self._track(share, room, colour))
        line.append(f"  {done:>{digits}}/{whole}", style="" if done else "dim")
        return line.append(f"  {tail}" if tail else "", style="dim")

    def _track(self, share: float, room: int, colour: str) -> Text:
        halves = int(min(1.0, max(0.0, share)) * room * 2)
        full, half = divmod(halves, 2)
        line = Text().append(self.glyphs.full * full + self.glyphs.half * half, style=colour)
        return line.append(self.glyphs.empty * (room - full - half), style="dim")

    def _counts(self) -> Text:
        """How many hosts are in which phase: the same words in the same places, so that only numbers move."""
        view = self.view
        found = Counter(word_of(view, host) for host in view.hosts.values())
        stages = _REVERTING if view.reverting else _SWITCHING if view.live - view.unchanged else _STAGING
        if view.command not in {"push", "rollback", "activate"}:
            stages = ("waiting", view.command, "done")
        rest = [word for word in ("failed", "stopped", "skipped", "unchanged") if found[word]]
        if self.width >= 72:
            line = Text(" " * 8)
        else:
            line = Text()
            found["working"] = sum(found.pop(word, 0) for word in stages[1:-1])
            stages = (stages[0], "working", stages[-1])
        digits = len(str(len(view.hosts)))
        for word in (*stages, *rest):
            style = "red" if word == "failed" else "" if found[word] else "dim"
            line.append(f"{word} {found[word]:<{digits}}  ", style=style)
        return line

    def _failures(self) -> list[Text]:
        if self.height < 10:
            return []
        found = causes(self.view.failures)
        lines: list[Text] = []
        for cause in found[:_CAUSES]:
            said = f"{self.glyphs.failed} {cause.line(self.fold, self.width // 3)}"
            width = max(10, self.width)
            wrapped = textwrap.wrap(
                said, width, subsequent_indent="  ", max_lines=2, placeholder=self.glyphs.more
            )
            lines += [Text(line, style="red") for line in wrapped]
        if len(found) > _CAUSES:
            lines.append(
                Text(f"{self.glyphs.more} {len(found) - _CAUSES} more kinds of failure", style="red")
            )
        return lines

    # --- hosts

    def _working(self, room: int) -> list[Text]:
        """Hosts in work, the one begun first at the top: it is the slowest, and rows keep their order."""
        running = list(self.view.running.values())
        if len(running) <= room:
            return self._rows(running)
        if room < 2:
            return []
        more = f"{self.glyphs.more} {len(running) - room + 1} more in work"
        return [*self._rows(running[: room - 1]), Text(more, style="dim")]

    def _rows(self, hosts: Iterable[HostView]) -> list[Text]:
        longest = max((cell_len(name) for name in self.view.hosts), default=0)
        name_width = min(longest, max(8, self.width // 3))
        return [self._row(host, name_width) for host in hosts]

    def _row(self, host: HostView, name_width: int) -> Text:
        word = word_of(self.view, host)
        glyph, style = self._mark(word)
        line = Text().append(f"{glyph} ", style=style)
        line.append(_sized(printable(host.name), name_width), style="dim" if word == "waiting" else "")
        if host.name not in self.view.running:
            return line.append("  ").append(word, style="dim" if word == "ready" else style)
        line.append(f"  {word:<9}")
        amount = 18 if self.width >= 100 else 0
        room = min(30, self.width - line.cell_len - 5 - amount - 8)
        room = room if room >= 8 else 0
        column = line.cell_len + room + 5 + amount
        if host.total_bytes and word == "upload":
            share = min(1.0, host.done_bytes / host.total_bytes)
            line.append_text(self._track(share, room, "cyan")).append(f" {share:>4.0%}")
            if amount:
                line.append(f"  {numbers.size_of(host.done_bytes, host.total_bytes)}", style="dim")
        line.pad_right(max(0, column - line.cell_len))
        return line.append(f" {numbers.clock(self.now_s - host.since_s):>7}", style="dim")

    def _mark(self, word: str) -> tuple[str, str]:
        glyphs = self.glyphs
        marks = {
            "failed": (glyphs.failed, "red"),
            "live": (glyphs.ok, "green"),
            "done": (glyphs.ok, "green"),
            "unchanged": (glyphs.ok, "green"),
            "ready": (glyphs.ok, "cyan"),
            "stopped": (glyphs.stopped, "dim"),
            "skipped": (glyphs.stopped, "dim"),
            "reverted": (glyphs.back, "yellow"),
            "revert": (glyphs.work, "yellow"),
            "waiting": (glyphs.idle, "dim"),
        }
        return marks.get(word, (glyphs.work, "cyan"))


def word_of(view: RunView, host: HostView) -> str:
    """One word for where a host is: its phase while in work, else what came of it."""
    name = host.name
    ends = {"failed": "failed", "cancelled": "stopped", "skipped": "skipped", "reverted": "reverted"}
    if host.state in ends:
        return ends[host.state]
    if name in view.running:
        return host.phase
    sets = (
        ("reverted", view.reverted), ("unchanged", view.unchanged), ("live", view.live),
        ("ready", view.staged), ("done", view.done),
    )  # fmt: skip
    return next((word for word, members in sets if name in members), "waiting")


def _sized(name: str, width: int) -> str:
    return set_cell_size(name, width) if cell_len(name) <= width else set_cell_size(name, width - 1) + "~"
