"""The live display: its layout in every size, and that it stays where it belongs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from deployctl.output import make_reporter
from deployctl.output.frame import ASCII, UNICODE, Frame
from deployctl.output.live import LiveReporter
from deployctl.output.reporter import Mode
from deployctl.output.stream import SafeStream
from deployctl.output.view import RunView
from tests.output import events as e

SIZES = [(40, 12), (40, 24), (60, 24), (80, 24), (80, 50), (120, 40), (200, 60)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def picture(
    view: RunView, width: int, height: int, now_s: float = 108.0, glyphs: object = UNICODE
) -> list[str]:
    """The picture as a terminal of that width shows it, through a console that would break lines too long."""
    shown = ASCII if glyphs is ASCII else UNICODE
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, height=height, color_system="standard")
    for line in Frame(view, now_s, width, height, e.fold, shown).lines():
        console.print(line)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    return [line.rstrip() for line in plain.splitlines()]


def view_of(*events: e.Event, now_s: float = 100.0) -> RunView:
    clock = e.FakeClock()
    view = RunView(clock)
    for event in events:
        view.apply(event)
        clock.now_s = now_s
    return view


def busy(count: int, *, fails: bool = True) -> RunView:
    names = [f"web{number:03}.example.com" for number in range(count)]
    events = [e.started(names)]
    for number, name in enumerate(names):
        phase = ("connect", "probe", "upload", "upload", "stage")[number % 5]
        events.append(e.host(name, phase, "running", data={"bytes": 12_400_000}))
        if fails and number % 7 == 3:
            events.append(
                e.failed(name, phase, 31, f"no space left on /srv/{number % 2} (needs 120 MB, has 4 MB)")
            )
    half = {name: [6_200_000, 12_400_000] for name in names}
    events.append(e.progress(40_000_000, count * 12_400_000, hosts=half))
    return view_of(*events)


@pytest.mark.parametrize("count", [1, 5, 40, 500])
@pytest.mark.parametrize(("width", "height"), [*SIZES, (20, 5), (10, 3), (1, 1)])
def test_no_line_is_too_wide_and_no_picture_too_tall(width: int, height: int, count: int) -> None:
    for view in (busy(count), busy(count, fails=False)):
        lines = picture(view, width, height)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)


def test_a_few_hosts_have_a_row_each() -> None:
    view = view_of(
        e.started(["web01", "web02", "web03", "web04"]),
        e.host("web01", "stage"),
        e.host("web02", "upload", "running", data={"bytes": 12_400_000}),
        e.host("web03", "stage", "running"),
        e.progress(18_600_000, 49_600_000, hosts={"web02": [6_200_000, 12_400_000]}),
    )
    assert picture(view, 79, 23) == [
        "push shop 20261123T204315Z-1a2b3c4d to 4 hosts                             0:08",
        "",
        "staged  ━━━━━━━━━━━╸────────────────────  1/4  18.6 of 49.6 MB",
        "live    ────────────────────────────────  0/4",
        "",
        "✓ web01  ready",
        "▸ web02  upload   ━━━━━━━━━━━━━━━───────────────  50%    0:08",
        "▸ web03  stage                                           0:08",
        "· web04  waiting",
    ]
    assert picture(view, 40, 23, glyphs=ASCII)[2:6] == [
        "staged  ##########.................  1/4",
        "live    ...........................  0/4",
        "",
        "+ web01  ready",
    ]


def test_many_hosts_are_counted_and_only_those_in_work_have_a_row() -> None:
    lines = picture(busy(500), 120, 20)
    assert (
        lines[4] == "        waiting 0    connect 86   probe 86   upload 171  stage 86   ready 0    failed 71"
    )
    assert lines[6:10] == [
        "✗ 15 hosts: upload: no space left on /srv/1 (needs 120 MB, has 4 MB)",
        "✗ 7 hosts: connect: no space left on /srv/0 (needs 120 MB, has 4 MB)",
        "✗ 7 hosts: stage: no space left on /srv/0 (needs 120 MB, has 4 MB)",
        "… 5 more kinds of failure",
    ]
    assert lines[11].startswith("▸ web000.example.com  connect")
    assert lines[-1].endswith("more in work")
    assert len(lines) == 20


def test_failures_stay_in_view_with_their_reason() -> None:
    view = view_of(
        e.started(["web01", "web02", "web03"]),
        e.host("web01", "upload", "running"),
        e.failed("web01", "upload", 31, e.NO_SPACE),
        e.failed("web02", "upload", 31, e.NO_SPACE),
    )
    assert picture(view, 60, 24)[5:] == [
        "✗ web01  failed",
        "✗ web02  failed",
        "· web03  waiting",
        "",
        "✗ web[01-02]: upload: no space left on /srv (needs 120 MB,",
        "  has 4 MB)",
    ]


def test_a_probed_host_waits_and_one_that_is_tidied_up_stays_live() -> None:
    view = view_of(
        e.started(["web01", "web02", "web03"]),
        e.host("web01", "probe", "running"),
        e.host("web01", "probe"),
        e.host("web02", "connect", "running"),
        e.host("web02", "connect"),
        e.host("web03", "activate"),
        e.host("web03", "clean", "running"),
    )
    assert [line.split()[:3] for line in picture(view, 60, 24)[5:]] == [
        ["·", "web01", "waiting"],
        ["▸", "web02", "connect"],
        ["✓", "web03", "live"],
    ]


def test_switching_back() -> None:
    view = view_of(
        e.started(["web01", "web02"]),
        e.host("web01", "activate"),
        e.failed("web02", "activate", 40, "hook failed"),
        e.host("web01", "revert", "running"),
    )
    lines = picture(view, 60, 24)
    assert lines[3].startswith("back    ─")
    assert lines[3].endswith("0/1")
    assert lines[5].split() == ["▸", "web01", "revert", "0:08"]


@pytest.mark.parametrize(
    ("started", "labels"),
    [
        ({"command": "rollback"}, ["live"]),
        ({"command": "run"}, ["done"]),
        ({"command": "push", "dry_run": True}, ["staged"]),
    ],
)
def test_bars_of_other_commands(started: e.Event, labels: list[str]) -> None:
    lines = picture(view_of({**e.started(), **started}), 80, 24)
    assert [line.split()[0] for line in lines[2:] if line and line[0].isalpha()] == labels


def make_live(out: io.StringIO, err: io.StringIO, clock: Callable[[], float], **environ: str) -> LiveReporter:
    return LiveReporter(
        SafeStream(out), SafeStream(err), environ=environ, verbosity=0, fold=e.fold, clock=clock
    )


def test_it_draws_in_tick_alone_without_a_thread_and_restores_the_terminal() -> None:
    threads = threading.active_count()
    out, err, clock = Terminal(), io.StringIO(), e.FakeClock()
    live = make_live(out, err, clock)
    for event in e.good_push()[:-1]:
        live.event(event)
    assert out.getvalue() == ""
    for _ in range(5):
        live.tick()  # nothing changed and no time passed: one picture
    assert out.getvalue().count("push shop") == 1
    assert "\x1b[?25l" in out.getvalue()
    live.note("warning", "slow \x1b[2J host")
    live.event(e.good_push()[-1])
    live.close()
    assert threading.active_count() == threads
    assert out.getvalue().count("\x1b[?25h") == 1
    end = out.getvalue().rpartition("\x1b[?25h")[2]
    assert re.sub(r"\x1b\[[0-9;]*m", "", end) == (
        "✓ shop 20261123T204315Z-1a2b3c4d is live on 3 hosts: web[01-03]\n"
        "sent 37.2 MB in 8.2 s; all switched within 0.04 s\n"
    )
    assert err.getvalue() == "deployctl: warning: slow \\x1b[2J host\n"


def test_a_run_without_an_end_shows_the_cursor_again() -> None:
    out, clock = Terminal(), e.FakeClock()
    live = make_live(out, io.StringIO(), clock)
    live.event(e.started())
    live.tick()
    live.close()
    assert out.getvalue().endswith("\x1b[?25h")


def test_a_question_gets_a_clean_terminal_and_the_picture_comes_back() -> None:
    out, clock = Terminal(), e.FakeClock()
    live = make_live(out, io.StringIO(), clock)
    live.event(e.started())
    live.tick()
    live.pause()
    assert out.getvalue().endswith("\x1b[J\x1b[?25h")
    live.tick()
    assert out.getvalue().count("push shop") == 2


def test_no_colour_means_no_colour() -> None:
    out, err = Terminal(), Terminal()
    live = make_live(out, err, e.FakeClock(), NO_COLOR="1")
    for event in e.aborted_push():
        live.event(event)
        live.tick()
    live.note("warning", "x")
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", out.getvalue() + err.getvalue()))
    assert codes <= {"0", "1", "2", ""}


def test_a_narrower_terminal_breaks_old_lines_and_they_are_all_replaced() -> None:
    out, clock = Terminal(), e.FakeClock()
    environ = {"COLUMNS": "100", "LINES": "24"}
    live = LiveReporter(
        SafeStream(out), SafeStream(None), environ=environ, verbosity=0, fold=e.fold, clock=clock
    )
    live.event(e.started())
    live.tick()
    environ["COLUMNS"] = "50"
    clock.now_s += 1
    live.tick()
    # Of the eight lines the header and both bars were wider than 50 cells: eleven rows now.
    assert re.findall(r"\x1b\[(\d+)A\r\x1b\[J", out.getvalue()) == ["11"]


@pytest.mark.parametrize(
    ("mode", "environ", "verbosity", "drawn"),
    [
        ("auto", {"TERM": "xterm"}, 0, True),
        ("auto", {"TERM": "dumb"}, 0, False),
        ("auto", {}, 0, False),
        ("auto", {"TERM": "xterm", "CI": "true"}, 0, False),
        ("auto", {"TERM": "xterm", "CI": "false"}, 0, True),
        ("auto", {"TERM": "xterm"}, -1, False),
        ("live", {"TERM": "xterm", "CI": "true"}, 0, True),
        ("live", {"TERM": "dumb"}, 0, False),
        ("plain", {"TERM": "xterm"}, 0, False),
    ],
)
def test_the_choice_of_a_display(mode: Mode, environ: dict[str, str], verbosity: int, drawn: bool) -> None:
    for out, able in ((Terminal(), True), (io.StringIO(), False)):
        reporter = make_reporter(
            mode,
            verbosity=verbosity,
            stdout=out,
            stderr=io.StringIO(),
            environ=environ,
            fold=e.fold,
        )
        reporter.event(e.started())
        reporter.tick()
        reporter.close()
        assert ("\x1b" in out.getvalue()) == (drawn and able)


def test_rich_is_imported_for_the_live_display_alone() -> None:
    script = (
        "import io, sys; from deployctl.output import make_reporter;"
        "make_reporter('plain', verbosity=0, stdout=io.StringIO(), stderr=io.StringIO(), environ={});"
        "print('rich' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
