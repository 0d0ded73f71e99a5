from __future__ import annotations

import io
import json
from collections.abc import Iterable
from datetime import UTC

import pytest

from deployctl.output import make_reporter
from deployctl.output.plain import PlainReporter
from deployctl.output.reporter import Mode
from deployctl.output.stream import SafeStream
from tests.output import events as e


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(events: Iterable[e.Event], verbosity: int = 0) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    reporter = PlainReporter(
        SafeStream(out), SafeStream(err), verbosity=verbosity, fold=e.fold, clock=e.FakeClock(), timezone=UTC
    )
    for event in events:
        reporter.event(event)
    reporter.close()
    return out.getvalue(), err.getvalue()


def test_a_good_push() -> None:
    out, err = shown(e.good_push(["web01"]))
    assert err == ""
    assert out == (
        "20:43:15 push shop from ./build: 1 host: web01 (5 workers)\n"
        "20:43:16 web01 probe    ok           1.2 s\n"
        "20:43:16 web01 upload   ok           1.2 s  12.4 MB\n"
        "20:43:16 web01 stage    ok           1.2 s\n"
        "20:43:16 web01 activate ok           1.2 s\n"
        "20:43:16 web01 check    ok           1.2 s\n"
        "shop 20261123T204315Z-1a2b3c4d is live on 1 host: web01\n"
        "sent 37.2 MB in 8.2 s\n"
    )


def test_verbose_shows_every_change_once() -> None:
    events = e.good_push()
    out, _ = shown(events, verbosity=1)
    changes = sum(event["event"] == "host" for event in events)
    assert len(out.splitlines()) == 1 + changes + 2


def test_quiet_shows_failures_and_the_end() -> None:
    out, err = shown(e.aborted_push(), verbosity=-1)
    assert out.splitlines()[:2] == [
        "20:43:16 web03 upload   failed       1.2 s  no space left on /srv (needs 120 MB, has 4 MB)",
        "push aborted: no live host changed",
    ]
    assert err == (f"deployctl: error: web03: upload: {e.NO_SPACE}\ndeployctl: hint: {e.NO_SPACE_HINT}\n")


def test_what_a_host_says_cannot_move_the_terminal() -> None:
    evil = "\x1b]0;owned\x07 \x1b[2J rm\r\n\udcff\u202e"
    out, err = shown(
        [
            e.started(["web01"]),
            e.failed("web01", "upload", 61, evil),
            e.log("web01", "\x1b[32mgreen\x1b[0m 10%\r20%\r\n\x1b[2Jtwo\n"),
            e.finished("aborted", e.end("web01", "failed", None, 61, evil), message=evil),
        ]
    )
    for text in (out, err):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "web01 | 20%\nweb01 | \\x1b[2Jtwo\n" in out
    assert "\\x1b]0;owned\\x07 \\x1b[2J rm\\r\\n\\xff\\u202e" in err


def test_progress_lines_come_every_ten_seconds_at_most() -> None:
    out, clock = io.StringIO(), e.FakeClock()
    reporter = PlainReporter(SafeStream(out), SafeStream(None), verbosity=0, fold=e.fold, clock=clock)
    reporter.event(e.started())
    reporter.event(e.host("web01", "upload", "running"))
    for tenth in range(301):
        clock.now_s = 100 + tenth / 10
        reporter.event(e.progress(tenth * 100_000, 60_000_000))
        reporter.tick()
    lines = [line[9:] for line in out.getvalue().splitlines()[1:]]
    assert lines == [
        "staged 0 of 3, 10.0 of 60.0 MB at 1.0 MB/s, 0:50 left; in work: web01",
        "staged 0 of 3, 20.0 of 60.0 MB at 1.0 MB/s, 0:40 left; in work: web01",
        "staged 0 of 3, 30.0 of 60.0 MB at 1.0 MB/s, 0:30 left; in work: web01",
    ]


def test_commands_that_read_print_their_result_alone() -> None:
    facts = {
        "live": e.RELEASE,
        "digest": "1a2b",
        "confirmed": True,
        "since": "2026-11-23T20:43:15.123Z",
        "user": "ann",
    }
    hosts = ["web01", "web02"]
    out, _ = shown(
        [
            e.started(hosts, "status"),
            *(e.host(name, "status", data=facts) for name in hosts),
            e.finished("ok", e.end("web01") | e.end("web02")),
        ],
        verbosity=1,
    )
    assert out == (
        f"HOSTS       LIVE                       SINCE                 BY\n"
        f"web[01-02]  {e.RELEASE}  2026-11-23 20:43:15Z  ann\n"
    )


BUILD = "build hook `npm run build` ended with status 1"
RELEASED = "released hook `./notify` ended with status 5"


@pytest.mark.parametrize(
    ("mode", "verbosity", "out_has", "err_has"),
    [
        ("live", 0, False, True),
        ("live", 1, True, False),
        ("plain", -1, False, True),
        ("plain", 0, True, False),
    ],
)
def test_a_hook_here_that_fails_shows_its_last_lines_once(
    mode: Mode, verbosity: int, out_has: bool, err_has: bool
) -> None:
    def ended(*events: e.Event, warning: str = "") -> tuple[str, str]:
        out, err = Terminal() if mode == "live" else io.StringIO(), io.StringIO()
        environ = {"TERM": "xterm"}
        reporter = make_reporter(
            mode,
            verbosity=verbosity,
            stdout=out,
            stderr=err,
            environ=environ,
            fold=e.fold,
            clock=e.FakeClock(),
        )
        for event in events[:-1]:
            reporter.event(event)
        reporter.note("warning", "something else")
        if warning:
            reporter.note("warning", warning)
        reporter.event(events[-1])
        reporter.close()
        return out.getvalue(), err.getvalue()

    out, err = ended(
        e.started(),
        here("build", *(f"step {number}" for number in range(30))),
        e.finished("refused", {}, 11, message=BUILD),
    )
    assert ("here | step 29\n" in out) is out_has
    tail = "".join(f"here | step {number}\n" for number in range(20, 30)) if err_has else ""
    assert err == f"deployctl: warning: something else\n{tail}deployctl: error: {BUILD}\n"
    out, err = ended(
        e.started(),
        here("build", "built"),
        here("released", "nobody answers"),
        e.finished("released", e.end("web01")),
        warning=RELEASED,
    )
    assert ("here | nobody answers\n" in out) is out_has
    tail = "here | nobody answers\n" if err_has else ""
    assert err == f"deployctl: warning: something else\n{tail}deployctl: warning: {RELEASED}\n"
    _, err = ended(e.started(), here("build", "built"), *e.aborted_push()[1:])
    assert "here |" not in err


def here(moment: str, *lines: str) -> e.Event:
    return {**e.log("", "\n".join(lines), phase=moment), "host": None}


def test_events_nobody_knows_and_odd_values_are_passed_over() -> None:
    out, err = shown(
        [
            {"event": "novelty"},
            {},
            {"event": "host"},
            {"event": "host", "host": "x", "state": "failed", "code": "nine", "data": [1]},
            {"event": "progress", "bytes_total": "many", "hosts": {"x": 3}},
            {"event": "log"},
            {"event": "run_finished"},
        ],
        verbosity=1,
    )
    assert "ended: no outcome was reported" in out
    assert err.startswith("deployctl: error: x: ")


def test_json_is_one_line_of_ascii_for_each_event_and_nothing_else() -> None:
    out, err = io.StringIO(), io.StringIO()
    reporter = make_reporter("json", verbosity=1, stdout=out, stderr=err, environ={}, fold=e.fold)
    events = [
        *e.aborted_push(),
        e.log("web01", "grün \udcff \x1b[2J\n"),
        {"event": "odd", "n": float("nan"), "s": {1}},
    ]
    for event in events:
        reporter.event(event)
        reporter.note("warning", "a\nword")
        reporter.tick()
    reporter.close()
    assert out.getvalue().isascii()
    lines = out.getvalue().splitlines()
    assert [json.loads(line) for line in lines[:-1]] == events[:-1]
    assert json.loads(lines[-1]) == {"event": "odd", "n": None, "s": [1]}
    assert f"deployctl: error: web03: upload: {e.NO_SPACE}\n" in err.getvalue()
    assert "deployctl: warning: a\nword\n" in err.getvalue()
