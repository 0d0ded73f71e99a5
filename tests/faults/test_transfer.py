"""What happens on the way and on the host's disk: noticed, told in bounded time, and nothing of it ever live."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.kernel import ip, need, own_network
from tests.faults.kit import Scene, assert_aborted, assert_failed, check_invariants
from tests.release.lab import Place, tool_directory
from tests.release.trees import make_heavy, walk
from tests.support.proc import wait_until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.sshd

LIMIT = ("--timeout", "2s")


def arrived(place: Place) -> int:
    """Bytes of the upload that are on the host's disk."""
    try:
        return sum(part.stat().st_size for part in place.parts)
    except FileNotFoundError:
        return 0


def under_way(place: Place, size_bytes: int = 100_000) -> None:
    wait_until(lambda: arrived(place) > size_bytes, 20, "an upload under way")


@pytest.fixture
def heavy(make_scene: MakeScene) -> Scene:
    """A first release that does not get smaller by packing."""
    scene = make_scene(settled=False)
    make_heavy(scene.tree, 4000)
    return scene


@pytest.fixture
def slow(heavy: Scene) -> Iterator[Proxy]:
    """Stands before h02 of `heavy` and lets 1 MB a second through."""
    with Proxy(("127.0.0.1", heavy.server("h02").port), buffer=65536) as proxy:
        heavy.lab.through("h02", proxy.port)
        proxy.up(rate=1_000_000)
        yield proxy


def test_frozen_before_the_exec_reply(scene: Scene) -> None:
    """The server accepts the request to switch and never answers it."""
    sign = scene.lab["h01"].hold("stage.tar")
    running = scene.start("push", "--timeout", "3s")
    running.wait_for_host("h02", "stage", "ok")
    running.wait_for_host("h01", "stage")
    scene.server("h02").freeze()
    sign.unlink()
    ended = scene.end(running)
    assert_failed(ended, "h02", "activate", 11)
    assert ended.code == 22
    scene.server("h02").thaw()
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended, limit_s=30, lost=["h02"])
    scene.lab["h01"].mend()
    scene.converge()


def test_frozen_while_its_end_is_waited_for(scene: Scene) -> None:
    """The command to stage is at work when the server freezes."""
    sign = scene.lab["h02"].hold("stage.tar")
    running = scene.start("push", "--timeout", "3s")
    running.wait_for_host("h02", "stage")
    scene.server("h02").freeze()
    frozen_at = time.monotonic()
    ended = scene.end(running)
    assert time.monotonic() - frozen_at < 3 + 10
    scene.server("h02").thaw()
    sign.unlink()
    assert_aborted(scene, ended, "h02", "stage", 11, "3 s")
    scene.lab["h02"].mend()
    scene.converge()


def test_frozen_mid_put(heavy: Scene, slow: Proxy) -> None:
    running = heavy.start("push", *LIMIT)
    under_way(heavy.lab["h02"])
    heavy.server("h02").freeze()
    frozen_at = time.monotonic()
    ended = heavy.end(running)
    assert time.monotonic() - frozen_at < 2 + 10
    heavy.server("h02").thaw()
    assert_aborted(heavy, ended, "h02", "upload", 11, "no progress")


@pytest.mark.cold  # a run that is forked elsewhere has another network
def test_link_cut_mid_put(sshd_farm: object, request: pytest.FixtureRequest) -> None:
    """The cable is out: no reset, no answer, for both hosts; and in again."""
    with own_network():
        make: MakeScene = request.getfixturevalue("make_scene")
        scene = make(settled=False, ssh={"connect_timeout": "2s"})
        make_heavy(scene.tree, 6000)
        with Proxy(("127.0.0.1", scene.server("h02").port), buffer=65536) as proxy:
            scene.lab.through("h02", proxy.port)
            proxy.up(rate=1_000_000)
            running = scene.start("push", *LIMIT)
            under_way(scene.lab["h02"])
            ip("link", "set", "lo", "down")
            cut_at = time.monotonic()
            ended = scene.end(running)
            assert time.monotonic() - cut_at < 2 + 10
            ip("link", "set", "lo", "up")
            failed = [name for name, state in ended.states.items() if state == "failed"]
            assert failed  # both are cut: whichever is noticed first ends the run
            assert {ended.failure(name)[1] for name in failed} == {11}
            assert ended.code == 20
            for server in scene.lab.servers:
                server.kill_sessions()
            check_invariants(scene, ended, lost=scene.lab.names)
            proxy.up(rate=None)
            scene.converge()


def test_reset_mid_put(heavy: Scene, slow: Proxy) -> None:
    """Noticed at once; what had arrived is no release and no part that counts."""
    running = heavy.start()
    under_way(heavy.lab["h02"])
    slow.reset()
    reset_at = time.monotonic()
    running.wait_for_host("h02", "upload", "failed")
    assert time.monotonic() - reset_at < 5
    ended = heavy.end(running)
    assert_aborted(heavy, ended, "h02", "upload", 20)
    assert heavy.lab["h02"].releases == []
    slow.up(rate=None)
    heavy.converge()


@pytest.mark.parametrize("way", ["up", "down"])
def test_one_way_loss(heavy: Scene, slow: Proxy, way: str) -> None:
    running = heavy.start("push", *LIMIT)
    under_way(heavy.lab["h02"])
    slow.up(rate=1_000_000, mode="drop" if way == "up" else "pass")
    slow.down(mode="drop" if way == "down" else "pass")
    lost_at = time.monotonic()
    ended = heavy.end(running)
    assert time.monotonic() - lost_at < 2 + 10 + 5  # the rest of the file may still go out on a deaf line
    assert ended.failure("h02")[:2] in {("upload", 11), ("stage", 11), ("upload", 20)}
    slow.reset()
    check_invariants(heavy, ended, lost=["h02"])


def test_one_byte_a_second(heavy: Scene, slow: Proxy) -> None:
    """Bytes move, but fewer than 1 KiB a second: that is standing still."""
    running = heavy.start("push", *LIMIT)
    under_way(heavy.lab["h02"])
    slow.up(rate=10)
    began_at = time.monotonic()
    ended = heavy.end(running)
    assert time.monotonic() - began_at < 2 + 10
    slow.reset()
    assert_aborted(heavy, ended, "h02", "upload", 11, "1 KiB/s")


def test_byte_flip_on_the_way(heavy: Scene, slow: Proxy) -> None:
    """The cipher notices; nothing of it is believed, and the next push is whole."""
    running = heavy.start("push", *LIMIT)
    under_way(heavy.lab["h02"])
    slow.up(rate=1_000_000, flip=True)
    ended = heavy.end(running)
    assert ended.failure("h02")[0] == "upload"
    assert ended.failure("h02")[1] in {11, 20}
    check_invariants(heavy, ended, lost=["h02"])
    slow.up(flip=False, rate=None)
    heavy.converge()


@pytest.mark.parametrize("absent", ["scp", "tar"])
def test_a_missing_tool(make_scene: MakeScene, tmp_path: Path, absent: str) -> None:
    """Told by name before anything is sent to any host."""
    scene = make_scene(settled=False)
    place = scene.lab["h02"]
    path = shlex.quote(str(tool_directory(tmp_path / "tools", without=[absent])))
    place.program("sh", f'#!/bin/sh\nPATH={path} exec /bin/sh "$@"\n')
    ended = scene.push()
    assert_aborted(scene, ended, "h02", "probe", 30, absent)
    assert ended.bytes_sent == 0
    assert not any(place.releases or place.incoming for place in scene.lab)
    (place.programs / "sh").unlink()
    scene.converge()


def test_file_size_limit(make_scene: MakeScene) -> None:
    """`ulimit -f` on the host ends scp in the middle of the file."""
    scene = make_scene(settled=False, wrappers={"h02": "ulimit -f 256"})
    make_heavy(scene.tree, 1000)
    ended = scene.push()
    assert ended.failure("h02")[0] == "upload"
    assert ended.failure("h02")[1] in {20, 31}
    assert ended.code == 20
    check_invariants(scene, ended)
    assert scene.lab["h02"].parts == []


def injected(place: Place, tool: str, call: str, error: str, when: str = "1+") -> None:
    """Every such call of one tool on a host fails: K7."""
    real = shutil.which(tool)
    assert real
    inject = f"inject={call}:error={error}:when={when}"
    place.program(
        tool,
        f'#!/bin/sh\nexec {need("strace")} -f -qq -o /dev/null -e trace={call} -e {inject} {real} "$@"\n',
    )


def test_quota(heavy: Scene) -> None:
    place = heavy.lab["h02"]
    injected(place, "scp", "write", "EDQUOT", "3")  # the first that goes to the file
    injected(place, "dd", "write", "EDQUOT")
    ended = heavy.push("--timeout", "10s")
    assert_aborted(heavy, ended, "h02", "upload", 31, "no space left")


def test_fsync_error(scene: Scene) -> None:
    """The disk lost what it had taken: the host has failed, nothing is switched."""
    place = scene.lab["h02"]
    kept = place.releases
    injected(place, "sync", "fsync", "EIO")
    ended = scene.push()
    assert_aborted(scene, ended, "h02", "stage", 32, "did not take releases/", "Input/output error")
    assert place.releases == kept  # what may read well from memory alone is not there to be found
    injected(place, "dd", "write", "EDQUOT")
    again = scene.push()
    assert_aborted(scene, again, "h02", "stage", 31, "no space left", "Input/output error")
    (place.programs / "sync").unlink()
    (place.programs / "dd").unlink()
    scene.converge()


def test_fsync_error_in_the_switch(scene: Scene) -> None:
    """A switch that the disk did not take has failed: all are put back, also where that is not taken either."""
    place = scene.lab["h02"]
    injected(place, "sync", "fsync", "EIO")
    real = place.programs / "sync-fails"
    (place.programs / "sync").rename(real)
    place.gate("activate.sync", f'exec {shlex.quote(str(real))} "$@"')
    place.gate("revert.sync", f'exec {shlex.quote(str(real))} "$@"')
    ended = scene.push()
    assert (ended.code, ended.outcome) == (21, "reverted")
    assert_failed(ended, "h02", "activate", 32, "did not take the switch for good", "Input/output error")
    assert "h02: revert: the disk did not take what was put back for good" in ended.stderr
    assert scene.lab.live == scene.before.live
    check_invariants(scene, ended)
    place.mend()
    scene.converge()


def test_a_sync_that_takes_no_files(scene: Scene) -> None:
    """Or none at all: nothing can be learned from it, and the release goes on as on any other host."""
    none, refuses = scene.lab
    path = shlex.quote(str(tool_directory(none.programs.with_name("tools"), without=["sync"])))
    none.program("sh", f'#!/bin/sh\nPATH={path}; export PATH\nexec /bin/sh "$@"\n')
    refuses.program("sync", '#!/bin/sh\n[ $# = 0 ] || { echo "usage: sync" >&2; exit 1; }\n')
    scene.converge()


def test_a_start_file_that_never_returns(make_scene: MakeScene) -> None:
    scene = make_scene(settled=False, wrappers={"h02": "sleep 999"})
    ended = scene.push(*LIMIT)
    assert ended.failure("h02")[:2] == ("probe", 11)
    scene.server("h02").stop()  # such a login outlives any connection, with or without us
    assert_aborted(scene, ended, "h02", "probe", 11)


# An scp that takes so many bytes and dies; `line` is what announces the file: C0600 SIZE NAME.
TAKES = r"""#!/bin/sh
printf '\0'; read -r line; printf '\0'
set -- "$@" "${line#* }"
for last; do :; done; size=${last%% *}
for target; do [ "$target" = "$last" ] || file=$target; done
head -c $((SIZE)) >"$file"; exit 1
"""


@pytest.mark.parametrize("size", ["0", "1", "32768", "size - 1", "size"])
def test_upload_cut_and_resumed(make_scene: MakeScene, size: str) -> None:
    """Whatever has arrived is proven before it counts; the next push sends what is missing to h02 alone."""
    scene = make_scene(settled=False)
    make_heavy(scene.tree, 100)
    place = scene.lab["h02"]
    place.program("scp", TAKES.replace("SIZE", size))
    ended = scene.push()
    assert ended.code == 20
    assert ended.failure("h02")[0] == "upload"
    check_invariants(scene, ended)
    assert place.parts == []
    (place.programs / "scp").unlink()
    done = scene.converge()
    assert (done.sent("h02") or 0) > 100_000


def test_stale_writer(heavy: Scene, tmp_path: Path) -> None:
    """An scp that outlived its connection writes on, into nothing that counts."""
    place = heavy.lab["h02"]
    sign, done = tmp_path / "stale", tmp_path / "stale-done"
    sign.touch()
    place.program(
        "scp",
        f"""#!/bin/sh
trap '' HUP INT TERM PIPE
for target; do :; done
exec 5>"$target"
printf '\\0'; read -r line; printf '\\0'
while [ -e {shlex.quote(str(sign))} ]; do sleep 0.02; done
echo garbage >&5; echo garbage >"$target"; touch {shlex.quote(str(done))}
""",
    )
    running = heavy.start()
    running.wait_for_host("h02", "upload")
    wait_until(lambda: bool(place.parts), 10, "the open file")
    heavy.server("h02").kill_sessions()
    ended = heavy.end(running)
    assert ended.failure("h02")[:2] == ("upload", 20)
    (place.programs / "scp").unlink()
    again = heavy.push()
    assert again.code == 0, again.stderr
    sign.unlink()
    wait_until(done.exists, 10, "the end of the stale writer")
    check_invariants(heavy, again)
    assert walk(place.root / "current") == walk(heavy.tree)


@pytest.mark.parametrize("damage", ["zeros", "truncated", "flipped"])
def test_archive_damaged_after_it_arrived(heavy: Scene, damage: str) -> None:
    """Tar alone would take zeros and flipped bytes for good."""
    place = heavy.lab["h02"]
    part = f"{place.root}/.deployctl/incoming/*/part"
    harm = {
        "zeros": 'head -c "$(wc -c <"$p")" /dev/zero >"$p.0" && mv "$p.0" "$p"',
        "truncated": 'head -c 5000 "$p" >"$p.0" && mv "$p.0" "$p"',
        "flipped": 'printf X | dd of="$p" bs=1 seek=70000 conv=notrunc 2>/dev/null',
    }[damage]
    place.gate("stage", f"for p in {part}; do {harm}; done")
    ended = heavy.push()
    assert_aborted(heavy, ended, "h02", "stage", 33)
    place.mend()
    heavy.converge()
