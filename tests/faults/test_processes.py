"""Processes that die, stop or are told to; terminals that go; clocks that jump: a known end, and nobody left."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.gauge import Gauge
from tests.faults.kernel import compile_shim
from tests.faults.kit import SECRET_ENV, Scene, assert_aborted, check_invariants
from tests.faults.terminal import Terminal
from tests.release.running import PROGRAM
from tests.release.trees import make_heavy, walk
from tests.support.proc import wait_until

pytestmark = [pytest.mark.sshd, pytest.mark.cold]


def served_whole(scene: Scene, live: dict[str, str | None]) -> None:
    """What is to hold after a run that told us nothing in JSON."""
    assert scene.lab.live == live
    for place in scene.lab:
        if place.live:
            assert walk(place.root / "current") == scene.whole[place.live.removeprefix("releases/")]
        assert place.runs_left == []
        assert not (place.root / ".deployctl/lock.owner").exists()
    scene.lab.assert_idle()


def test_worker_killed_mid_put(make_scene: MakeScene) -> None:
    """Seen within a second; its host has failed, with the signal's name; the next connection cleans up."""
    scene = make_scene(settled=False)
    make_heavy(scene.tree, 1000)
    place = scene.lab["h02"]
    place.program(
        "scp",
        "#!/bin/sh\nprintf '\\0'; read -r line; printf '\\0'; for target; do :; done\nhead -c 200000 >\"$target\"; exec cat >/dev/null\n",
    )
    running = scene.start()
    wait_until(lambda: any(part.stat().st_size >= 200_000 for part in place.parts), 20, "half an upload")
    running.worker_of(place.port).signal(signal.SIGKILL)
    killed_at = time.monotonic()
    running.wait_for_host("h02", "upload", "failed")
    assert time.monotonic() - killed_at < 2
    ended = scene.end(running)
    assert_aborted(scene, ended, "h02", "upload", 60, "SIGKILL")
    assert not (place.root / ".deployctl/lock.owner").exists()  # taken away by the worker that came after it
    (place.programs / "scp").unlink()
    scene.converge()


def test_giving_a_lock_back_hangs(make_scene: MakeScene) -> None:
    """It is waited for in bounds, at no other host's cost and at no worker's; the lock ends with the connection."""
    scene = make_scene(3)
    sign = scene.lab["h02"].hold("unlock.rm")
    running, gauge = scene.start("push", "--forks", "1"), Gauge()
    gauge.watch(running, 60)
    ended = scene.end(running)
    sign.unlink()
    assert ended.code == 0, ended.stderr
    assert gauge.count("worker") == 1
    check_invariants(scene, ended, lost=["h02"])
    scene.lab["h02"].mend()
    scene.change()
    scene.converge()


@pytest.mark.parametrize("megabytes", [260, 420])
def test_out_of_memory(scene: Scene, megabytes: int) -> None:
    """Whatever it is that can't be had: the run ends, and says so; what is live is whole."""
    running = scene.start(prefix=["sh", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "sh"])
    scene.learn([])
    code = running.process.wait(60)
    events = running.events
    while running._read(time.monotonic() + 5):
        pass
    scene.learn(events)
    print(f"{megabytes} MiB: exit {code}")  # noqa: T201 - said with -s
    assert code in {0, 11, 20, 21, 22}
    if code:
        assert running.stderr()
    wait_until(lambda: not running.family(), 3, "the end of the family")
    live = set(scene.lab.live.values())
    assert len(live) == 1 or code == 22
    for place in scene.lab:
        assert walk(place.root / "current") == scene.whole[str(place.live).removeprefix("releases/")]
    scene.converge()


# The packer gets nothing of a MiB or more, or is killed for wanting it.
NO_MEMORY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
void *malloc(size_t size) {
  static void *(*real)(size_t);
  char name[16] = "";
  if (!real) real = dlsym(RTLD_NEXT, "malloc");
  if (size < 1 << 20 || prctl(PR_GET_NAME, name) || strncmp(name, "deployctl: pack", 15)) return real(size);
  if (getenv("FAULTS_OOM")) raise(SIGKILL);
  errno = ENOMEM;
  return 0;
}
"""


@pytest.mark.parametrize("how", ["no memory", "killed"])
def test_packer_out_of_memory(scene: Scene, tmp_path: Path, how: str) -> None:
    """It gets no memory, or the kernel kills it for what it takes: SOURCE cannot be packed here, no host was changed."""
    killed = {"FAULTS_OOM": "kill"} if how == "killed" else {}
    shim = compile_shim(NO_MEMORY, tmp_path)
    ended = scene.push(env={"LD_PRELOAD": str(shim), **killed})
    assert (ended.code, ended.outcome) == (11, "refused"), ended.stderr
    said = (
        "SIGKILL (out of memory?)" if killed else "no memory to pack SOURCE with on this machine: MemoryError"
    )
    assert said in ended.last["message"]
    assert "ulimit -v" in ended.last["hint"]
    assert not re.search("defect|while the run was ended", ended.stderr)
    check_invariants(scene, ended)
    scene.converge()


def test_idle_packer_killed(scene: Scene) -> None:
    """Nothing is wanted of it any more: the release goes on."""
    sign = scene.lab["h02"].hold("activate")
    running = scene.start()
    running.wait_for_host("h02", "activate")
    [packer] = running.named("packer")
    packer.signal(signal.SIGKILL)
    wait_until(lambda: not running.named("packer"), 5, "its end")
    sign.unlink()
    done = scene.end(running)
    assert done.code == 0, done.stderr
    check_invariants(scene, done)


@pytest.mark.parametrize("moment", ["stage.tar", "activate.mv"])
def test_control_c_on_a_terminal(scene: Scene, moment: str) -> None:
    """The whole group hears it: workers leave it to the parent, which stops, puts back and says so."""
    live = scene.lab.live
    sign = scene.lab["h02"].hold(moment)
    with Terminal(scene, "push", scene.tree, "-o", "live") as terminal:
        terminal.read_until(lambda: held(scene, moment))
        terminal.press("\x03")
        told_at = time.monotonic()
        assert terminal.exit_code() == 130
        assert time.monotonic() - told_at < 7.5  # what a CI system gives
        assert "\x1b[?25h" in terminal.said, "the cursor is back"
        assert "nterrupted" in terminal.said
    sign.unlink(missing_ok=True)
    served_whole(scene, live)
    scene.lab["h02"].mend()
    scene.converge()


def held(scene: Scene, moment: str) -> bool:
    """Whether the step that is to be stopped at has begun on h02, and h01 is as far."""
    place, other = scene.lab["h02"], scene.lab["h01"]
    if moment.startswith("stage"):
        return any(path.name == "tree" for path in place.root.glob(".deployctl/incoming/*/*"))
    return '"switch"' in place.history.splitlines()[-1] and '"switch"' in other.history.splitlines()[-1]


def test_control_c_twice(scene: Scene) -> None:
    """Leaves at once, and says what is known."""
    scene.lab["h02"].hold("activate.mv")
    scene.lab["h01"].hold("revert.mkdir")
    with Terminal(scene, "push", scene.tree, "-o", "plain") as terminal:
        terminal.read_until(lambda: held(scene, "activate.mv"))
        terminal.read_until(lambda: scene.lab["h01"].live not in scene.whole)
        terminal.press("\x03")
        time.sleep(0.3)  # two signals that come as one are one
        terminal.press("\x03")
        told_at = time.monotonic()
        assert terminal.exit_code() in {22, 130}
        assert time.monotonic() - told_at < 7.5
    scene.lab["h01"].mend()
    scene.lab["h02"].mend()
    scene.converge()


def test_hang_up(scene: Scene) -> None:
    """The terminal is gone in the middle of it: 129, as Ctrl-C."""
    live = scene.lab.live
    sign = scene.lab["h02"].hold("stage.tar")
    with Terminal(scene, "push", scene.tree, "-o", "live") as terminal:
        terminal.read_until(lambda: held(scene, "stage.tar"))
        terminal.hang_up()
        assert terminal.exit_code() == 129
    sign.unlink()
    served_whole(scene, live)


def test_terminated(scene: Scene) -> None:
    """TERM in the middle of the switch, one host having switched: 143, and every host is back."""
    sign = scene.lab["h02"].hold("activate.mv")
    running = scene.start()
    running.wait_for_host("h02", "activate")
    running.wait_for_host("h01", "activate", "ok")
    running.signal(signal.SIGTERM)
    told_at = time.monotonic()
    ended = scene.end(running)
    assert time.monotonic() - told_at < 7.5
    sign.unlink()
    assert (ended.code, ended.outcome) == (143, "interrupted")
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended)
    scene.lab["h02"].mend()
    scene.converge()


def test_ci_cancels(scene: Scene) -> None:
    """INT, 7.5 s later TERM, 2.5 s later KILL, to the first process alone, which `exec` makes ours: done before the second."""
    sign = scene.lab["h02"].hold("activate.mv")
    running = scene.start(prefix=["bash", "-c", 'exec "$@"', "bash"])
    running.wait_for_host("h02", "activate")
    running.wait_for_host("h01", "activate", "ok")
    running.signal(signal.SIGINT)
    told_at = time.monotonic()
    ended = scene.end(running)
    assert time.monotonic() - told_at < 7.5
    sign.unlink()
    assert (ended.code, ended.outcome) == (130, "interrupted")
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended)


def test_fork_under_a_live_display(scene: Scene) -> None:
    """No warning of a fork beside threads, which is an error here; a worker that dies is replaced meanwhile."""
    env = {"PYTHONWARNINGS": "error::DeprecationWarning", "PYTHONDEVMODE": ""}
    with Terminal(scene, "push", scene.tree, "-o", "live", env=env) as terminal:
        assert terminal.exit_code() == 0, terminal.said
        assert "Warning" not in terminal.said
    assert all(walk(place.root / "current") == walk(scene.tree) for place in scene.lab)
    scene.lab.assert_idle()


CLOCK_JUMPS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) {
  static long calls;
  return ++calls > 25 ? atol(getenv("FAULTS_JUMP_S")) : 0;
}
int clock_gettime(clockid_t which, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(which, at);
  if (!result && which == CLOCK_REALTIME) at->tv_sec += jump();
  return result;
}
"""


@pytest.mark.parametrize("jump", [86_400, -86_400])
def test_clock_jumps(scene: Scene, tmp_path: Path, jump: int) -> None:
    """A day forward or back in every process of the run: no limit is taken for passed, no host is blamed."""
    shim = compile_shim(CLOCK_JUMPS, tmp_path)
    done = scene.push("--timeout", "30s", env={"LD_PRELOAD": str(shim), "FAULTS_JUMP_S": str(jump)})
    assert done.code == 0, done.stderr
    days = {event["ts"][:10] for event in done.events}
    assert len(days) > 1, "the clock did not jump in the middle of the run"
    check_invariants(scene, done)
    scene.change()
    scene.converge()


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM", "CI"])
def test_terminals_without_colour(scene: Scene, name: str) -> None:
    """`NO_COLOR`, `TERM=dumb`, and CI without a terminal: lines, and no sequence that colours or moves."""
    env = {"NO_COLOR": {"NO_COLOR": "1"}, "TERM": {"TERM": "dumb"}, "CI": {"CI": "true"}}[name]
    with Terminal(scene, "push", scene.tree, env=env) as terminal:
        assert terminal.exit_code() == 0
    coloured = re.findall(r"\x1b\[[0-9;]*m", terminal.said)
    if name != "CI":
        assert set(coloured) <= {"\x1b[m", "\x1b[0m", "\x1b[1m", "\x1b[2m"}
    if name == "TERM":
        assert "\x1b" not in terminal.said


def test_standard_output_closed_or_full(scene: Scene) -> None:
    """A command that is called for what it prints fails when nobody got it; a release counts by what it did."""
    hosts = shlex.join(["-i", str(scene.lab.inventory)])
    live = scene.lab.live
    telling = [f"{command} {hosts}" for command in ("status", "status -o json", "check", "inventory")]
    lost = [f"{words} >&-" for words in (*telling, f"run {hosts} true", "--help")]
    for words in (*lost, f"status {hosts} >/dev/full"):
        code, said = spoken_in_shell(words)
        assert code == 1, (words, said)
        assert "/dev/full" in words or "standard output: it is closed" in said, (words, said)
    assert scene.lab.live == live
    code, said = spoken_in_shell(f"push {shlex.quote(str(scene.tree))} {hosts} >&-")
    assert code == 0, said
    scene.change()
    code, said = spoken_in_shell(
        f"push {shlex.quote(str(scene.tree))} {hosts} -o json | head -n 1 >/dev/null"
    )
    assert code == 0, said
    assert all(walk(place.root / "current") == walk(scene.tree) for place in scene.lab)
    scene.lab.assert_idle()


def spoken_in_shell(words: str) -> tuple[int, str]:
    """Return the exit code and standard error of a command line whose standard output goes where its words say."""
    line = f"{shlex.join(PROGRAM)} {words}"
    env = {**os.environ, **SECRET_ENV}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == ""
    assert not re.search("Traceback|Exception ignored", done.stderr), done.stderr
    return done.returncode, done.stderr
