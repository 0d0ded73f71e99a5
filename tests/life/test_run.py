"""`deployctl run` on real servers: what each host prints and returns, and that nothing of it outlives the run."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.life.moments import spoken
from tests.release.conftest import MakeLab
from tests.release.lab import Lab
from tests.release.running import PROGRAM, Pushed
from tests.support import proc
from tests.support.proc import wait_until

pytestmark = pytest.mark.sshd


def run(lab: Lab, *arguments: str, timeout_s: float = 60) -> Pushed:
    return lab.start("run", *arguments).finish(timeout_s=timeout_s)


def printed(ran: Pushed, host: str, stream: str = "stdout") -> list[str]:
    return [
        event["text"]
        for event in ran.events
        if event["event"] == "log" and event["host"] == host and event["stream"] == stream
    ]


def statuses(ran: Pushed) -> dict[str, int]:
    """The exit status that each host's line tells."""
    return {
        event["host"]: event["data"]["status"]
        for event in ran.events
        if event["event"] == "host" and event["phase"] == "run" and "status" in event["data"]
    }


@pytest.mark.hosts(3)
def test_every_host_runs_it_and_its_output_bears_the_host_s_name(lab: Lab) -> None:
    ran = run(lab, 'echo "$DEPLOYCTL_HOST of $DEPLOYCTL_APP"; echo trouble >&2; pwd; cat')
    assert (ran.code, ran.outcome) == (0, "ok")
    for server in lab.servers:
        home = str(server.directory / "home")
        assert printed(ran, server.name) == [f"{server.name} of shop", home]
        assert printed(ran, server.name, "stderr") == ["trouble"]
    assert statuses(ran) == {"h01": 0, "h02": 0, "h03": 0}
    assert all(ran.phases(name)[-2:] == ["run:running", "run:ok"] for name in lab.names)
    assert not any(list(place.root.iterdir()) for place in lab)


def test_words_are_joined_as_ssh_joins_them(make_lab: MakeLab) -> None:
    lab = make_lab(1)
    assert printed(run(lab, "echo", "one  two", "| tr a-z A-Z"), "h01") == ["ONE TWO"]


@pytest.mark.hosts(3)
def test_one_that_fails_stops_no_other(lab: Lab) -> None:
    ran = run(lab, '[ "$DEPLOYCTL_HOST" != h02 ] || { echo no good; exit 7; }')
    assert (ran.code, ran.outcome) == (20, "failed")
    assert ran.states == {"h01": "ok", "h02": "failed", "h03": "ok"}
    assert ran.failure("h02") == ("run", 40, "the command ended with status 7")
    assert statuses(ran) == {"h01": 0, "h02": 7, "h03": 0}
    assert printed(ran, "h02") == ["no good"]


@pytest.mark.hosts(3)
def test_an_unreachable_host_and_a_changed_key_stop_no_other(lab: Lab) -> None:
    lab.servers[0].stop()
    known = lab.inventory.parent / "known_hosts"
    lines = known.read_text().splitlines()
    keys = [line.split(" ", 1) for line in lines]
    known.write_text("".join(f"{names} {keys[0 if names == keys[1][0] else 2][1]}\n" for names, _ in keys))
    ran = run(lab, "echo here")
    assert (ran.code, ran.outcome) == (20, "failed")
    assert {name: host["code"] for name, host in ran.hosts.items()} == {"h01": 10, "h02": 12, "h03": 0}
    assert printed(ran, "h03") == ["here"]
    assert printed(ran, "h02") == []


def test_much_output_without_an_end_of_line_arrives_whole(make_lab: MakeLab) -> None:
    lab = make_lab(1)
    ran = run(lab, "head -c 700000 /dev/zero | tr '\\0' x; echo; seq 20000")
    lines = printed(ran, "h01")
    assert sum(line.count("x") for line in lines) == 700_000
    assert [line for line in lines if line.isdigit()] == [str(number) for number in range(1, 20_001)]


def test_past_its_time_it_is_killed_with_its_children(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(1)
    ran = run(lab, f"sleep 300 & echo $! >{tmp_path}/child; sleep 300", "--timeout", "2s")
    assert (ran.code, ran.outcome) == (20, "failed")
    phase, code, message = ran.failure("h01")
    assert (phase, code) == ("run", 11)
    assert "did not end within 2 s and was killed" in message
    child = proc.read(int((tmp_path / "child").read_text()))
    assert child is None or child.state in "ZX"
    lab.assert_idle()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_on_every_host(make_lab: MakeLab, number: signal.Signals, code: int) -> None:
    lab = make_lab(2)
    running = lab.start("run", "echo begun; sleep 300 & sleep 300")
    for name in lab.names:
        running.wait_for(lambda e, name=name: e["event"] == "log" and e["host"] == name)  # type: ignore[misc]
    began_at = time.monotonic()
    running.signal(number)
    ended = running.finish()
    assert time.monotonic() - began_at < 8
    assert (ended.code, ended.outcome) == (code, "interrupted")
    assert set(ended.states.values()) == {"cancelled"}
    lab.assert_idle()


def test_a_killed_run_leaves_nothing_running(make_lab: MakeLab) -> None:
    lab = make_lab(1)
    running = lab.start("run", "echo begun; sleep 300 & sleep 300")
    running.wait_for(lambda e: e["event"] == "log")
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 3, "the end of the workers")
    lab.assert_idle()


def test_one_worker_takes_one_host_after_the_other(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(3)
    mark = tmp_path / "mark"
    ran = run(lab, f"mkdir {mark} && sleep 0.1 && rmdir {mark}", "--forks", "1")
    assert ran.code == 0, ran.stderr


def test_no_command_is_wrong_usage(make_lab: MakeLab) -> None:
    lab = make_lab(1)
    process = lab.start("run").process
    assert process.wait(30) == 2


@pytest.mark.parametrize("mode", ["plain", "json"])
def test_output_that_is_lost_is_no_success(make_lab: MakeLab, site: Path, mode: str) -> None:
    lab = make_lab(1)

    def at_full_disk(*words: str | Path) -> tuple[int, str]:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*PROGRAM, *map(str, words), "-i", str(lab.inventory), "-o", mode],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
        return done.returncode, done.stderr

    told = "deployctl: error: standard output: No space left on device: not all of the output is there\n"
    for words in (["run", "echo said"], ["status"], ["check"], ["history", "--local"]):
        assert at_full_disk(*words) == (1, told), words
    code, said = at_full_disk("run", "exit 3")
    assert (code, told in said) == (20, True)
    code, said = at_full_disk("push", site)  # counts by what it did
    assert (code, told in said) == (0, False)
    assert lab["h01"].live is not None


@pytest.mark.hosts(3)
def test_gathered_output_is_shown_once_for_hosts_that_said_the_same(lab: Lab) -> None:
    command = "[ $DEPLOYCTL_HOST != h03 ] || sleep 0.3; echo to err >&2; [ $DEPLOYCTL_HOST = h02 ] && echo two || echo other"
    code, said = spoken(lab, "run", "-g", command)
    rule = "-" * 15
    block = f"{rule}\nh[01,03] (2)\n{rule}\nother\nto err\n{rule}\nh02\n{rule}\ntwo\nto err\n"
    assert (code, block in said, " | " in said) == (0, True, False), said

    code, said = spoken(lab, "run", "--gather", "true")
    assert (code, rule in said) == (0, False)
    code, said = spoken(lab, "run", "-g", "[ $DEPLOYCTL_HOST = h01 ] || { echo broken; exit 3; }")
    assert (code, f"{rule}\nh[02-03] (2)\n{rule}\nbroken\n" in said) == (20, True)
    assert printed(run(lab, "-g", "echo each"), "h02") == ["each"]
