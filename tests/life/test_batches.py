"""Activation in batches: each with its hooks and checks before the next; a failure puts back every one."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.life.moments import Diary, hooks, spoken
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import PROGRAM
from tests.release.trees import make_site

pytestmark = pytest.mark.sshd


@pytest.fixture
def hooked(lab: Lab, diary: Diary) -> Lab:
    """Three hosts that note activating, activated and their check."""
    hooks(lab, diary.hooks("activating", "activated"), check={"run": diary.line("check"), "timeout": "5s"})
    return lab


@pytest.mark.hosts(3)
def test_each_batch_is_done_before_the_next_begins(hooked: Lab, site: Path, diary: Diary) -> None:
    done = hooked.push(site, "--batch", "1,50%", "--batch-wait", "700ms")
    new = done.release
    assert done.code == 0
    expected = []
    for batch in (["h01"], ["h02"], ["h03"]):
        expected += [["activating", host, new, "nothing"] for host in batch]
        expected += [[moment, host, new, new] for moment in ("activated", "check") for host in batch]
    assert diary.lines == expected
    switched = [
        event["ts"]
        for event in done.events
        if event["event"] == "host" and (event["phase"], event["state"]) == ("activate", "ok")
    ]
    assert len(switched) == 3
    seconds = [float(text[-7:-1]) for text in switched]
    assert all((b - a) % 60 >= 0.7 for a, b in itertools.pairwise(seconds))


@pytest.mark.hosts(3)
def test_a_batch_of_two_goes_together(hooked: Lab, site: Path, diary: Diary) -> None:
    assert hooked.push(site, "--batch", "1,100%").code == 0
    moments = [(line[0], line[1] == "h01") for line in diary.lines]
    assert moments == [
        ("activating", True),
        ("activated", True),
        ("check", True),
        *[(moment, False) for moment in ("activating", "activated", "check") for _ in range(2)],
    ]


@pytest.mark.hosts(3)
def test_a_failure_in_a_later_batch_reverts_every_batch(lab: Lab, site: Path, diary: Diary) -> None:
    old = lab.push(site).release
    make_site(site, "two")
    fail = {"run": f'{diary.line("check")}; [ "$DEPLOYCTL_HOST" != h02 ]', "timeout": "100ms"}
    hooks(lab, diary.hooks("activated"), check=fail)
    failed = lab.push(site, "--batch", "1")
    new = failed.release
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.states == {"h01": "reverted", "h02": "failed", "h03": "cancelled"}
    assert lab.live == lab.serves(old)
    assert failed.serving == lab.everywhere(old)
    forward = [(line[0], line[1]) for line in diary.lines if line[2] == new]
    assert forward[:3] == [("activated", "h01"), ("check", "h01"), ("activated", "h02")]
    assert sorted(line[1] for line in diary.lines if line[2] == old) == ["h01", "h02"]
    assert diary.moments("h03") == []


@pytest.mark.hosts(3)
def test_an_activating_hook_that_fails_in_a_later_batch(lab: Lab, site: Path) -> None:
    hooks(lab, {"activating": ['[ "$DEPLOYCTL_HOST" != h02 ]']})
    failed = lab.push(site, "--batch", "1")
    assert (failed.code, failed.outcome) == (21, "reverted")
    assert failed.states == {"h01": "reverted", "h02": "failed", "h03": "cancelled"}
    assert lab.live == lab.everywhere(None)


@pytest.mark.hosts(3)
def test_a_signal_in_the_pause_reverts(hooked: Lab, site: Path) -> None:
    running = hooked.start("push", site, "--batch", "1", "--batch-wait", "1m")
    running.wait_for_host("h01", "check", "ok")
    running.signal(signal.SIGINT)
    ended = running.finish(timeout_s=20)
    assert (ended.code, ended.outcome) == (130, "interrupted")
    assert ended.states == {"h01": "reverted", "h02": "cancelled", "h03": "cancelled"}
    assert hooked.live == hooked.everywhere(None)


@pytest.mark.parametrize("text", ["0", "1,x", "0%", "101%", "-1", "1,,2", "", "1.5", "10%%"])
def test_a_bad_list_is_refused_before_any_contact(make_lab: MakeLab, site: Path, text: str) -> None:
    lab = make_lab(1)
    for command, argument in (("push", site), ("activate", "abcd")):
        refused = lab.start(command, argument, f"--batch={text}").finish()
        assert (refused.code, len(refused.events)) == (2, 1)
        assert "--batch" in refused.last["message"]
    assert not (lab["h01"].root / ".deployctl").exists()


def test_without_a_terminal_there_is_nobody_to_ask(make_lab: MakeLab, site: Path) -> None:
    lab = make_lab(1)
    refused = lab.push(site, "--confirm")
    assert (refused.code, len(refused.events)) == (2, 1)
    assert "terminal" in refused.last["message"]
    assert lab.push(site, "--confirm", "--yes").code == 0
    assert spoken(lab, "push", make_site(site, "two"), "--confirm", "--dry-run")[0] == 2


# ---- on a terminal


class Terminal:
    """A run on a terminal of its own."""

    def __init__(self, lab: Lab, *arguments: str | Path) -> None:
        self.said = ""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execve(
                PROGRAM[0],
                [*PROGRAM, *map(str, arguments), "-i", str(lab.inventory)],
                {**os.environ, "TERM": "xterm"},
            )

    def read_until(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 30
        while self.said.count(text) < times:
            assert time.monotonic() < deadline, self.said
            if select.select([self._end], [], [], 0.2)[0]:
                self.said += os.read(self._end, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def exit_code(self) -> int:
        with contextlib.suppress(OSError):  # EIO: the other end has closed
            while data := os.read(self._end, 65536):
                self.said += data.decode(errors="replace")
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def asked(make_lab: MakeLab, site: Path) -> Iterator[tuple[Lab, Terminal]]:
    """Two hosts, a release on both, a second one on its way that stands at the first question."""
    lab = make_lab(2)
    lab.push(site)
    make_site(site, "two")
    terminal = Terminal(lab, "push", site, "--batch", "1", "--confirm")
    yield lab, terminal
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)


def test_yes_goes_on(asked: tuple[Lab, Terminal]) -> None:
    lab, terminal = asked
    old = lab["h02"].live
    terminal.read_until("[y/N]")
    assert lab.live == lab.everywhere(old)
    terminal.type("y\n")
    terminal.read_until("[y/N]", 2)
    assert lab["h01"].live != old
    assert lab["h02"].live == old
    terminal.type("yes\n")
    assert terminal.exit_code() == 0
    assert lab["h01"].live == lab["h02"].live != old


@pytest.mark.parametrize("answer", ["n\n", "\n", "what\n", "\x04"], ids=["n", "nothing", "odd", "end"])
def test_no_at_the_first_question_changes_nothing(asked: tuple[Lab, Terminal], answer: str) -> None:
    lab, terminal = asked
    before = lab.live
    terminal.read_until("[y/N]")
    terminal.type(answer)
    assert terminal.exit_code() == 20
    assert lab.live == before
    assert "the answer was no" in terminal.said


def test_no_between_batches_reverts(asked: tuple[Lab, Terminal]) -> None:
    lab, terminal = asked
    before = lab.live
    terminal.read_until("[y/N]")
    terminal.type("y\n")
    terminal.read_until("[y/N]", 2)
    assert lab.live != before
    terminal.type("n\n")
    assert terminal.exit_code() == 21
    assert lab.live == before


def test_control_c_at_the_question_reverts(asked: tuple[Lab, Terminal]) -> None:
    lab, terminal = asked
    before = lab.live
    terminal.read_until("[y/N]")
    terminal.type("y\n")
    terminal.read_until("[y/N]", 2)
    terminal.type("\x03")
    assert terminal.exit_code() == 130
    assert lab.live == before
