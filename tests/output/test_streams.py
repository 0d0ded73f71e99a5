"""Streams that are closed, full, slow or short of letters: the run goes on and its exit code stays."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deployctl.output import make_reporter, printable
from deployctl.output.numbers import clock, seconds, size, size_of
from deployctl.output.reporter import Mode
from deployctl.output.stream import SafeStream
from tests.output import events as e

SCRIPT = """
import sys, os
from deployctl.output import make_reporter, detach_broken_stdout, fill_closed_streams
from tests.output import events as e
fill_closed_streams()
reporter = make_reporter(sys.argv[1], verbosity=1, stdout=sys.stdout, stderr=sys.stderr, environ={}, fold=e.fold)
for event in e.good_push([f"web{i:03}" for i in range(200)]):
    reporter.event(event)
    reporter.tick()
reporter.note("warning", "pr\\u00fcfung \\udcff \\u2713")
reporter.close()
if sys.stdout is not None:
    print("left in the buffer", end="")
detach_broken_stdout()
sys.exit(21)
"""
ROOT = Path(__file__).parents[2]


def run_in_shell(redirection: str, mode: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -W error -c "$SCRIPT" {mode} {redirection}'
    keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**keep, "SCRIPT": SCRIPT, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("mode", ["plain", "json"])
@pytest.mark.parametrize(
    "redirection",
    [">&-", ">/dev/full", "| head -1 >/dev/null; exit ${PIPESTATUS[0]}", "2>&-", ">&- 2>&- <&-"],
)
def test_a_broken_stream_changes_nothing_else(redirection: str, mode: str) -> None:
    done = run_in_shell(redirection, mode)
    assert done.returncode == 21
    if "2>" not in redirection:
        assert done.stderr.splitlines() == ["deployctl: warning: prüfung \\xff ✓"]


@pytest.mark.parametrize("mode", ["plain", "json"])
def test_letters_the_terminal_lacks_are_escaped(mode: str) -> None:
    done = run_in_shell("", mode, LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 21
    assert done.stderr == "deployctl: warning: pr\\xfcfung \\xff \\u2713\n"


def test_latin_1() -> None:
    raw = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(raw, encoding="latin-1"))
    stream.line("prüfung ✓ \udcff")
    assert raw.getvalue() == b"pr\xfcfung \\u2713 \\udcff\n"


class Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, reading: int) -> None:
        super().__init__()
        self._reading = reading
        self._taken: list[bytes] = []
        self.start()

    def run(self) -> None:
        while block := os.read(self._reading, 65536):
            self._taken.append(block)

    def all(self) -> bytes:
        self.join()
        os.close(self._reading)
        return b"".join(self._taken)


def test_a_slow_reader_does_not_stop_the_run_and_gets_every_line() -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        out = io.StringIO()
        reporter = make_reporter("plain", verbosity=1, stdout=stream, stderr=out, environ={}, fold=e.fold)
        names = [f"web{i:03}" for i in range(500)]
        for event in e.good_push(names):
            reporter.event(event)
            reporter.tick()  # comes here although nobody reads: far more than a pipe holds
        reader = Reader(reading)
        reporter.close()
    taken = reader.all()
    text = taken.decode()
    assert len(text) > 250_000
    assert text.count(" web499 ") == 13
    assert text.splitlines()[-1].startswith("sent 37.2 MB")


@pytest.mark.parametrize("mode", ["plain", "json"])
def test_a_reader_that_stops_costs_output_of_hooks_and_nothing_else(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployctl.output.stream._HELD_MOST", 400_000)
    reading, writing = os.pipe()
    gives_up = threading.Timer(20, os.close, [reading])  # whoever waits before the end, waits for this
    gives_up.start()
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        err = io.StringIO()
        reporter = make_reporter(mode, verbosity=1, stdout=stream, stderr=err, environ={}, fold=e.fold)
        *events, last = e.good_push([f"web{i:03}" for i in range(500)])
        for number, event in enumerate(events):
            reporter.event(event)
            reporter.event(e.log("web001", f"noise {number} {'x' * 1000}"))
        reporter.event(last)
        assert gives_up.is_alive(), "it waited for its reader"
        gives_up.cancel()
        reader = Reader(reading)
        reporter.close()
    taken = reader.all()
    lines = taken.decode().splitlines()
    assert 100 < sum("noise" in line for line in lines) < 1000
    assert sum("web499" in line and "noise" not in line for line in lines) == (13 if mode == "plain" else 15)
    assert ("sent 37.2 MB" if mode == "plain" else "run_finished") in lines[-1]
    assert err.getvalue() == (
        "deployctl: warning: the reader of standard output is far behind: output of hooks and commands is left out\n"
    )
    assert reporter.lost == "its reader was too slow"


def test_a_stream_somebody_made_non_blocking_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        safe = SafeStream(stream)
        for number in range(20_000):
            safe.line(f"{number:08}")
        assert not safe.idle()
        taken = b""
        while not safe.idle():
            taken += os.read(reading, 65536)
            safe.drain()
    while block := os.read(reading, 65536):
        taken += block
    os.close(reading)
    assert taken.decode().split() == [f"{number:08}" for number in range(20_000)]


def test_a_defect_in_the_display_is_a_warning() -> None:
    out, err = io.StringIO(), io.StringIO()

    def broken(names: object) -> str:
        raise ZeroDivisionError("no fold today")

    reporter = make_reporter("plain", verbosity=0, stdout=out, stderr=err, environ={}, fold=broken)
    for event in e.good_push():
        reporter.event(event)
    reporter.close()
    assert err.getvalue() == "deployctl: warning: the display failed: ZeroDivisionError: no fold today\n"
    assert "web01 upload   ok" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "safe"),
    [("a b", "a b"), ("é✓", "é✓"), ("\x1b[2J", "\\x1b[2J"), ("a\nb\t", "a\\nb\\t"), ("\udc80", "\\x80"),
     ("\u202e\u200b\U000e0001", "\\u202e\\u200b\\U000e0001"), ("\x9b1m", "\\x9b1m"), ("\ud800", "\\ud800")],
)  # fmt: skip
def test_printable(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_numbers() -> None:
    assert [size(n) for n in (0, 999, 1000, 99_999, 100_000, 12_400_000, 9_999_900_000, 12e9)] == [
        "0 B", "999 B", "1.0 kB", "100.0 kB", "0.1 MB", "12.4 MB", "9999.9 MB", "12.0 GB",
    ]  # fmt: skip
    assert size_of(3_100_000, 12_400_000) == " 3.1 of 12.4 MB"
    assert [seconds(n) for n in (0, 0.04, 1.204, 59.96, 125, 3720)] == [
        "0.00 s", "0.04 s", "1.2 s", "60.0 s", "2 min 05 s", "1 h 02 min",
    ]  # fmt: skip
    assert [clock(n) for n in (0, 8.9, 724, 3723)] == ["0:00", "0:08", "12:04", "1:02:03"]
