"""From the first switch on: what a death at any moment of it leaves, and what brings hosts together again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployctl.host.script import Script
from tests.faults.conftest import MakeScene
from tests.faults.kernel import need
from tests.faults.kit import Scene, assert_failed, check_invariants
from tests.life.moments import configure
from tests.release.lab import PATH
from tests.release.running import Running
from tests.release.trees import walk
from tests.support.keys import make_key
from tests.support.proc import wait_until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.sshd


def kill(running: Running) -> None:
    """Kill the parent, and wait until its workers have gone with it."""
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.family(), 5, "the end of the workers")


def test_crash_between_stage_and_switch(scene: Scene) -> None:
    """Nothing has changed; the next push sends nothing again."""
    scene.lab["h01"].hold("activate")
    running = scene.start("push", "--batch", "1")
    running.wait_for_host("h01", "activate")
    scene.learn(running.events)
    kill(running)
    scene.lab["h01"].mend()
    scene.lab.assert_idle()
    assert scene.lab.live == scene.before.live
    done = scene.converge()
    assert done.bytes_sent == 0


@pytest.mark.parametrize("count", [1, 2])
def test_crash_after_some_switches(make_scene: MakeScene, count: int) -> None:
    """1 or N-1 of N have switched: `status` says which serves what with 22, the next push brings them together."""
    scene = make_scene(3)
    held = f"h0{count + 1}"
    scene.lab[held].hold("activate.mv")
    running = scene.start("push", "--batch", "1")
    running.wait_for_host(held, "activate")
    wait_until(
        lambda: '"switch"' in scene.lab[held].history.splitlines()[-1], 10, "the record before the switch"
    )
    scene.learn(running.events)
    kill(running)
    scene.lab[held].mend()
    scene.lab.assert_idle()
    switched = [name for name, live in scene.lab.live.items() if live != scene.before.live[name]]
    assert switched == scene.lab.names[:count]
    status = scene.start("status").finish()
    assert status.code == 22
    told = {event["host"]: event["data"]["live"] for event in status.events if event["event"] == "host"}
    assert {name: f"releases/{live}" for name, live in told.items()} == scene.lab.live
    scene.converge()
    assert scene.start("status").finish().code == 0


def test_host_lost_at_the_switch(scene: Scene) -> None:
    """Its answer never came: it is read anew, and all are put back."""
    sign = scene.lab["h02"].hold("activate.mv")
    running = scene.start()
    running.wait_for_host("h02", "activate")
    running.wait_for_host("h01", "activate", "ok")
    scene.server("h02").kill_sessions()
    ended = scene.end(running)
    sign.unlink()
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert_failed(ended, "h02", "activate", 20)
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended)
    scene.lab["h02"].mend()
    scene.converge()


def test_byte_flip_between_stage_and_switch(scene: Scene) -> None:
    """Found by the command that switches; the host before it in the batches is put back, and the next push is whole."""
    sign = scene.lab["h01"].hold("activate")
    running = scene.start("push", "--batch", "1")
    running.wait_for_host("h01", "activate")
    [release] = {str(event["release"]) for event in running.events if event["release"]}
    file = scene.lab["h02"].root / "releases" / release / "index.html"
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    sign.unlink()
    ended = scene.end(running)
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert_failed(ended, "h02", "activate", 33, "changed after it was staged")
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended)
    scene.lab["h01"].mend()
    scene.converge()


@pytest.mark.parametrize(
    ("how", "name", "code"), [("key", "h01", 20), ("key", "h02", 21), ("refused", "h02", 21)]
)
def test_the_command_to_switch_never_came(
    scene: Scene, tmp_path: Path, how: str, name: str, code: int
) -> None:
    """Between stage and switch a host has another key, or refuses connections: whatever it served, it serves."""
    at = ("h02", "stage.tar") if name == "h01" else ("h01", "activate")  # who is waited for meanwhile
    sign, server = scene.lab[at[0]].hold(at[1]), scene.server(name)
    running = scene.start("push", "--batch", "1", "--timeout", "20s")
    running.wait_for_host(name, "stage", "ok")
    running.wait_for_host(at[0], at[1].partition(".")[0])
    own = server.keys
    server.stop_listener()
    server.kill_sessions()
    if how == "key":
        server.keys = (make_key(tmp_path / "other_host_key"),)
        server.start()
    sign.unlink()
    ended = scene.end(running)
    assert (ended.code, ended.outcome) == (code, "reverted" if code == 21 else "aborted"), ended.stderr
    said = "nothing was switched there"
    assert_failed(ended, name, "activate", 12 if how == "key" else 10, said)
    assert scene.lab.live == scene.before.live
    assert "revert:running" not in ended.phases(name)  # there is nothing to take back
    check_invariants(scene, ended, lost=[name])
    server.stop_listener()
    server.keys = own
    server.start()
    scene.lab[at[0]].mend()
    scene.converge()


def test_host_lost_on_the_way_back(make_scene: MakeScene) -> None:
    """22, who serves what, and the command that mends it, which does."""
    scene = make_scene(3)
    scene.lab["h03"].gate("activate.mv")
    scene.lab["h02"].hold("revert.mkdir")
    running = scene.start()
    running.wait_for_host("h02", "revert")
    server = scene.server("h02")
    server.stop_listener()
    server.kill_sessions()
    ended = scene.end(running)
    assert (ended.code, ended.outcome) == (22, "mixed")
    assert "deployctl push" in ended.stderr + str(ended.last.get("mend"))
    assert ended.serving["h02"] is None
    check_invariants(scene, ended, lost=["h02"])
    server.start()
    for place in scene.lab:
        place.mend()
    scene.converge()


TOOLS = ("mkdir", "rm", "ln", "mv", "readlink", "tail", "sync")


def watchers(scene: Scene, name: str) -> list[int]:
    """Processes on a host that wait for the end of a command's input, to kill what it runs: only they have it as their 3."""
    return [pid for pid in scene.server(name).command_pids() if Path(f"/proc/{pid}/fd/3").exists()]


def test_a_switch_that_was_given_up_comes_late(scene: Scene) -> None:
    """A busy host is slow to kill what was cancelled: the switch must not happen after it was told to be taken back."""
    sign, cleaning = scene.lab["h01"].hold("activate.mv"), scene.lab["h01"].hold("clean")
    running = scene.start("push", "--batch", "1")
    running.wait_for_host("h01", "activate")
    wait_until(lambda: switching(scene, "h01"), 10, "the last step of the switch")
    slow = watchers(scene, "h01")
    assert slow
    for pid in slow:
        os.kill(pid, signal.SIGSTOP)
    running.worker_of(scene.lab["h02"].port).signal(signal.SIGKILL)
    running.wait_for(
        lambda event: (
            event["event"] == "host"
            and (event["host"], event["state"]) in {("h01", "reverted"), ("h01", "failed")}
        )
    )
    sign.unlink()
    wait_until(lambda: not switching(scene, "h01"), 10, "the end of what was held")
    cleaning.unlink()
    for pid in slow:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    ended = scene.end(running)
    scene.lab["h01"].mend()
    assert (ended.code, ended.outcome) == (21, "reverted")
    check_invariants(scene, ended, lost=scene.lab.names)
    scene.converge()


def switching(scene: Scene, name: str) -> bool:
    """Whether the gate before the rename holds it, or the rename is under way."""
    for pid in scene.server(name).command_pids():
        with contextlib.suppress(OSError):
            if b"switch/current" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


CALLS = (
    "execve",
    "mkdir",
    "mkdirat",
    "unlinkat",
    "symlinkat",
    "rename",
    "renameat2",
    "write",
    "fsync",
    "sync",
    "exit_group",
)
KILLS = [
    *((tool, call, 1) for tool in TOOLS for call in CALLS),
    *(("sh", call, number) for call in ("write", "clone", "vfork", "exit_group") for number in range(1, 13)),
]
EVERY = int(os.environ.get("DEPLOYCTL_TEST_EVERY", "16"))  # `make crash` takes 1


@pytest.mark.timeout(3600 if EVERY == 1 else 240)
def test_killed_at_every_call_of_the_switch(scene: Scene, tmp_path: Path) -> None:
    """SIGKILL at each system call of the switch that could change a disk: `current` is the old release or the new."""
    staged = scene.push("--no-activate")
    assert staged.code == 0
    place = scene.lab["h01"]
    old, new = str(place.live), f"releases/{staged.release}"
    values = {
        "ID": staged.release,
        "TREE": hashlib.sha256(
            (place.root / ".deployctl/manifests" / staged.release).read_bytes()
        ).hexdigest(),
        "RECORD": '{"event": "switch"}',
    }
    seen = set()
    kills = [
        ("", "", 0),
        *KILLS[::EVERY],
        ("mv", "rename", 1),
        ("mv", "renameat2", 1),
        ("mv", "exit_group", 1),
    ]
    for tool, call, number in kills:
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-a", place.root, copy], check=True)
        script = Script.build("activate", values, run="0123456789abcdef", root=str(copy))
        switch_and_kill(script, tool, call, number, tmp_path / "bin")
        live = os.readlink(copy / "current")  # noqa: PTH115 - a Path would tidy it
        assert live in {old, new}, (tool, call, number, live)
        assert walk(copy / "current") == scene.whole[live.removeprefix("releases/")]
        seen.add(live)
        shutil.rmtree(copy)
    assert seen == {old, new}
    print(f"killed at {len(kills) - 1} calls of the switch")  # noqa: T201 - said with -s


def switch_and_kill(script: Script, tool: str, call: str, number: int, programs: Path) -> None:
    """Run the command that switches; its shell, or a tool of it, is killed when it makes that call for the nth time."""
    kill = [
        need("strace"),
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace=?{call}",
        "-e",
        f"inject=?{call}:signal=SIGKILL:when={number}",
    ]
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    if tool and tool != "sh":
        real = shutil.which(tool, path=PATH)
        (programs / tool).write_text(f'#!/bin/sh\nexec {shlex.join([*kill, str(real)])} "$@"\n')
        (programs / tool).chmod(0o755)
    process = subprocess.Popen(
        [*([*kill, "-f"] if tool == "sh" else []), "sh", "-s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": f"{programs}:{PATH}"},
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(script.text.encode())
    process.stdin.flush()
    # Until it has told its end, or has none to tell: strace stays for the one that waits for the end of our input.
    deadline = time.monotonic() + (0.6 if tool == "sh" else 30)
    said = b""
    while f"{script.nonce} exit ".encode() not in said:
        if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            break
        said += data
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait(30)
    process.stdout.close()


@pytest.mark.parametrize("text", ["releases/gone", "current", "/srv/elsewhere/42"])
def test_current_leads_nowhere(scene: Scene, text: str) -> None:
    """Dangling, a loop, somewhere else: kept with its exact text when the release fails, replaced when it succeeds."""
    place = scene.lab["h02"]
    (place.root / "current").unlink()
    place.link(text)
    before = scene.lab.live
    scene.lab["h01"].gate("activate.mv")
    ended = scene.push()
    assert ended.code in {20, 21}
    assert scene.lab.live == before
    scene.lab["h01"].mend()
    done = scene.push()
    assert done.code == 0, done.stderr
    assert scene.lab.live == scene.lab.serves(done.release)


def test_lock_that_cannot_be_written(scene: Scene) -> None:
    """Told as what it is, never taken for free."""
    place = scene.lab["h02"]
    (place.root / ".deployctl/lock").unlink()
    (place.root / ".deployctl/lock").mkdir()
    ended = scene.push()
    assert ended.code == 20
    assert ended.failure("h02")[1] in {32, 33, 50}
    assert scene.lab.live == scene.before.live
    (place.root / ".deployctl/lock").rmdir()
    check_invariants(scene, ended)
    scene.converge()


def test_service_that_is_dead_after_its_hook(scene: Scene) -> None:
    """The hook says 0, the check says otherwise: reverted before anything is confirmed."""
    configure(
        scene.lab,
        release={"hooks": {"activated": ["true"]}, "check": {"run": "test ! -e wrong", "timeout": "1s"}},
    )
    (scene.tree / "wrong").write_text("")
    ended = scene.push()
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert {event["code"] for event in ended.events if event.get("state") == "failed"} == {41}
    check_invariants(scene, ended)
    (scene.tree / "wrong").unlink()
    scene.converge()


def test_skew_of_the_switches(make_scene: MakeScene) -> None:
    """A host 200 ms away: connections stand already, so the switches are one round trip apart, and the spread is told."""
    scene = make_scene(3)
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(("127.0.0.1", scene.server("h02").port)))
        scene.lab.through("h02", proxy.port)
        proxy.both(delay_s=0.1)
        done = scene.push()
    assert done.code == 0, done.stderr
    assert 0.1 < done.last["skew_s"] < 3
    check_invariants(scene, done)
