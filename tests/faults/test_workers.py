"""Workers that die, stop, leave or cannot be had: their hosts have failed, the others end in a known state."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kernel import compile_shim
from tests.faults.kit import Scene, assert_aborted, assert_failed, check_invariants

pytestmark = pytest.mark.sshd


def test_idle_worker_killed(make_scene: MakeScene) -> None:
    """Its host is staged and waits for the others."""
    scene = make_scene(3)
    sign = scene.lab["h02"].hold("stage.tar")
    running = scene.start()
    running.wait_for_host("h02", "stage")
    running.wait_for_host("h01", "stage", "ok")
    running.worker_of(scene.lab["h01"].port).signal(signal.SIGKILL)
    killed_at = time.monotonic()
    ended = scene.end(running)
    assert time.monotonic() - killed_at < 10
    sign.unlink()
    assert_failed(ended, "h01", "stage", 60, "SIGKILL")
    assert (ended.code, ended.states["h02"]) == (20, "cancelled")
    check_invariants(scene, ended)
    scene.lab["h02"].mend()
    scene.converge()


def test_worker_stopped(scene: Scene) -> None:
    """It sends nothing any more: killed once its command is long past its limit, and its host has failed."""
    sign = scene.lab["h02"].hold("stage.tar")
    running = scene.start("push", "--timeout", "1s")
    running.wait_for_host("h02", "stage")
    running.worker_of(scene.lab["h02"].port).signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    ended = scene.end(running)
    assert time.monotonic() - stopped_at < 1 + 15 + 10
    sign.unlink()
    assert_aborted(scene, ended, "h02", "stage", 60, "was killed")
    scene.lab["h02"].mend()
    scene.converge()


# Loaded by Python itself at the start: workers leave when they are to stage.
LEAVES = """
import os
import deployctl.host.agent as agent
agent.STEPS["stage"] = lambda *_: os._exit(0)
"""


def test_worker_leaves_without_a_result(scene: Scene, tmp_path: Path) -> None:
    """With status 0: that is no success."""
    (tmp_path / "sitecustomize.py").write_text(LEAVES)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    ended = scene.push(env={"PYTHONPATH": path})
    assert (ended.code, ended.outcome) == (20, "aborted")
    failed = [name for name, state in ended.states.items() if state == "failed"]
    assert failed
    for name in failed:
        assert ended.failure(name)[1] == 60
        assert "exited with status 0 without a result" in ended.failure(name)[2]
    check_invariants(scene, ended)
    scene.converge()


REFUSED_FORKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
pid_t fork(void) {
  static int count;
  static pid_t (*real)(void);
  if (!real) real = dlsym(RTLD_NEXT, "fork");
  if (++count > atoi(getenv("FAULTS_FORKS"))) {
    errno = EAGAIN;
    return -1;
  }
  return real();
}
"""


def test_fork_refused(make_scene: MakeScene, tmp_path: Path) -> None:
    """With what reads the inventory, the packer and one worker all is done; without a worker nothing is."""
    scene = make_scene(3)
    env = {"LD_PRELOAD": str(compile_shim(REFUSED_FORKS, tmp_path))}
    done = scene.push(env={**env, "FAULTS_FORKS": "3"})
    assert done.code == 0, done.stderr
    check_invariants(scene, done)
    scene.change()
    for forks in ("2", "1", "0"):
        ended = scene.push(env={**env, "FAULTS_FORKS": forks})
        assert ended.code == 20, ended.stderr
        assert "cannot fork a worker" in ended.stderr
        assert "ulimit -u" in ended.stderr
        check_invariants(scene, ended)
    scene.converge()
