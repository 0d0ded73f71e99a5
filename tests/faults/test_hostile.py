"""Hosts and sources that lie, flood or try to be commands: never believed, never run, never without an end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene, assert_aborted, check_invariants
from tests.life.moments import configure
from tests.release.running import Pushed
from tests.release.trees import make_heavy, walk
from tests.support.keys import make_key
from tests.support.proc import wait_until
from tests.support.wide import some

pytestmark = pytest.mark.sshd


# ---- hosts


@contextmanager
def rekeying(scene: Scene, how: str, directory: Path) -> Iterator[None]:
    """Lead h02 of the scene through a server that leaves in its second exchange of keys."""
    key = make_key(directory / "rekey_host_key")
    port_file = directory / "port"
    identity = Path(yaml.safe_load(scene.lab.inventory.read_text())["ssh"]["identity_file"])
    command = [sys.executable, "-m", "tests.faults.rekey_server", how, "--root", str(directory / "rekey")]
    command += [
        "--host-key",
        str(key.path),
        "--authorized-key",
        f"{identity}.pub",
        "--port-file",
        str(port_file),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        wait_until(lambda: port_file.exists() or process.poll() is not None, 20, "the start of the server")
        scene.lab.edit("h02", port=int(port_file.read_text()), fingerprint=key.fingerprint)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("how", ["closes", "stalls"])
def test_server_leaves_while_keys_are_renewed(make_scene: MakeScene, tmp_path: Path, how: str) -> None:
    """Stock paramiko can wait for ever here (its issue 822)."""
    scene = make_scene(settled=False)
    make_heavy(scene.tree, 3000)
    with rekeying(scene, how, tmp_path):
        ended = scene.push("--timeout", "3s")
    assert ended.code == 20
    assert ended.failure("h02")[0] == "upload"
    assert ended.failure("h02")[1] in {11, 20}
    assert ended.seconds < 3 + 15
    check_invariants(scene, ended, lost=["h02"])


@pytest.mark.parametrize("stream", [1, 2])
def test_host_that_floods(make_scene: MakeScene, stream: int) -> None:
    """Output without end, on either stream, is taken off the wire until the limit, and not kept."""
    flood = f"tr '\\0' x </dev/zero >&{stream}"
    scene = make_scene(
        settled=False, wrappers={"h02": f"case $SSH_ORIGINAL_COMMAND in scp*) ;; *) {flood};; esac"}
    )
    running = scene.start("push", "--timeout", "3s")
    peak_kib = 0
    while running._read(60 + time.monotonic()):
        peak_kib = max([peak_kib, *(resident_kib(p.pid) for p in running.family())])
    ended = scene.end(running)
    assert_aborted(scene, ended, "h02", "probe", 11)
    assert peak_kib < 200 << 10


def resident_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


FRAMED = """#!/bin/sh
# Speaks our own language: the word that frames answers is in the script that it is given.
script=$(head -c 400)
word=$(printf '%s' "$script" | sed -n "s/^D_NONCE='\\(@[0-9a-f]*\\)'.*/\\1/p")
printf '%s began probe\\n%s {}\\n' "$word" "$word"
"""
LIES = {
    "fail without a number": "fail nonsense",
    "fail with an unknown number": "fail 9999 x",
    "a status that is no number": "exit \xb2",
    "a status of many digits": "exit " + "9" * 5000,
    "a size that is no number": "kib \xb2",
    "a current that moves the terminal": "current \x1b[2J\x1b]0;owned\x07",
}


@pytest.mark.parametrize(
    "lie",
    some(
        ["fail with an unknown number", "a status of many digits", "a current that moves the terminal"],
        list(LIES),
    ),
)
def test_host_that_answers_nonsense(make_scene: MakeScene, lie: str) -> None:
    """In our own framing: one host has failed, with words that are safe to show; no defect of ours, nobody else harmed."""
    scene = make_scene(settled=False)
    scene.lab["h02"].program(
        "sh", FRAMED.replace("{}", LIES[lie]) + "printf '%s exit 0\\n' \"$word\"; cat >/dev/null\n"
    )
    ended = scene.push("--timeout", "5s")
    assert ended.code == 20
    assert ended.states["h02"] == "failed"
    assert ended.failure("h02")[1] != 61, ended.stderr
    assert "\x1b" not in ended.stderr
    check_invariants(scene, ended, lost=["h02"])


def test_host_that_lies_about_digests(scene: Scene) -> None:
    """Its tools call everything by another digest: nothing there is believed."""
    place = scene.lab["h02"]
    for tool, text in (
        ("sha256sum", "echo '{}  -'"),
        ("openssl", "echo '{} *stdin'"),
        ("shasum", "echo '{}  -'"),
    ):
        place.program(tool, "#!/bin/sh\ncat >/dev/null\n" + text.replace("{}", "de" * 32) + "\n")
    ended = scene.push()
    assert_aborted(scene, ended, "h02", "stage", 33)
    for tool in ("sha256sum", "openssl", "shasum"):
        (place.programs / tool).unlink()
    scene.converge()


SILENT_FAULTS = {
    "truncated": "head -c 3 index.html >x; mv x index.html",
    "changed": "printf 'X' | dd of=index.html conv=notrunc 2>/dev/null",
    "missing": "rm index.html",
    "added": "echo x >extra",
    "mode": "chmod 777 index.html",
    "link": "rm link; ln -s /etc/passwd link",
    "another kind": "rm index.html; mkdir index.html",
    "nothing at all": "rm -rf ./*",
}


@pytest.mark.parametrize("what", SILENT_FAULTS)
def test_tar_that_fails_silently(make_scene: MakeScene, what: str) -> None:
    """Exit 0, and the tree is not what was packed: noticed before anything is live."""
    scene = make_scene(settled=False)
    place = scene.lab["h02"]
    place.program(
        "tar",
        f'#!/bin/sh\n/usr/bin/env -i /bin/tar "$@" || exit\ncd tree && {{ {SILENT_FAULTS[what]}; }}\nexit 0\n',
    )
    ended = scene.push()
    assert_aborted(scene, ended, "h02", "stage", 33)
    (place.programs / "tar").unlink()


# ---- sources


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        path = directory / "release.tar.gz"
        with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
            for info, content in (member("fine", b"x"), *members):
                archive.addfile(info, io.BytesIO(content))
        return path

    return make


def bomb(directory: Path) -> Path:
    path = directory / "release.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1000))
    data = path.read_bytes()
    announced = data.rindex(b"PK\x01\x02") + 24
    path.write_bytes(data[:announced] + (2 << 30).to_bytes(4, "little") + data[announced + 4 :])
    return path


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "traversal": (tar_of(member("../../outside", b"x")), "../../outside"),
    "absolute": (tar_of(member("/etc/cron.d/owned", b"x")), "/etc/cron.d/owned"),
    "link out": (
        tar_of(member("out", type=tarfile.SYMTYPE, linkname="/etc"), member("out/passwd", b"x")),
        "out",
    ),
    "hard link out": (tar_of(member("out", type=tarfile.LNKTYPE, linkname="../../etc/passwd")), "etc/passwd"),
    "device": (tar_of(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), "character device"),
    "setuid": (tar_of(member("su", b"x", mode=0o4755)), "setuid"),
    "bomb": (bomb, "unpacks to more than"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_hostile_archive(make_scene: MakeScene, tmp_path: Path, kind: str) -> None:
    scene = make_scene(1, settled=False)
    make, words = ARCHIVES[kind]
    scene.tree = make(tmp_path)
    running = scene.start()
    ended = running.finish()
    assert (ended.code, ended.outcome) == (11, "refused")
    assert words in ended.stderr
    assert os.listdir(scene.here) == []  # noqa: PTH208
    assert scene.lab["h01"].releases == []
    assert not (tmp_path / "outside").exists()
    assert not Path("/etc/cron.d/owned").exists()


NAMES = [
    "-rf",
    "--checkpoint-action=exec=sh x.sh",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "a\nb",
    "\x1b[2J",
    "'\"'",
    "|touch pwned",
    "*",
]


def test_names_that_try_to_be_commands(scene: Scene, tmp_path: Path) -> None:
    for name in NAMES:
        (scene.tree / name).write_text(name)
        (scene.tree / f"d {name}").mkdir()
        (scene.tree / f"d {name}" / name).write_text(name)
        (scene.tree / f"l {name}").symlink_to(name)
    scene.converge()
    for name in NAMES:
        (scene.tree / name).write_text(name * 2)
    scene.converge()
    assert not list(tmp_path.rglob("pwned"))
    assert not Path("pwned").exists()
    verified = scene.start("verify").finish()
    assert verified.code == 0


VALUES = [
    "-oProxyCommand=touch pwned",
    "a;touch pwned",
    "a b",
    "$(touch pwned)",
    "a\nb",
    "..",
    "a/b",
    "~root",
]


@pytest.mark.parametrize("key", ["name", "address", "user", "path"])
def test_inventory_values_that_try_to_be_commands(make_scene: MakeScene, key: str) -> None:
    """Refused with exit 10, by a list of what is allowed, before anything is contacted."""
    scene = make_scene(1, settled=False)
    text = scene.lab.inventory.read_text()
    paths = ["-rf", "relative", "/a/../b", "~/x", "/a\nb", "/a\x00b", "/"]
    for value in paths if key == "path" else VALUES:
        if (key, value) == ("user", ".."):
            continue  # odd, and no harm: it is no path
        scene.lab.inventory.write_text(text)
        data = yaml.safe_load(text)
        data["groups"]["web"]["hosts"][0][key] = value
        scene.lab.inventory.write_text(yaml.safe_dump(data))
        refused = refused_of(scene)
        assert (refused.code, refused.outcome) == (10, "refused"), (key, value)
        assert "hosts.yaml" in refused.stderr
    assert "Connection from" not in scene.server("h01").log.read_text()
    assert scene.lab["h01"].releases == []


def refused_of(scene: Scene) -> Pushed:
    return scene.start().finish()


def test_values_with_quotes_reach_hooks_as_data(make_scene: MakeScene, tmp_path: Path) -> None:
    """A path, a message and variables full of shell, given to hooks: text, nothing else."""
    scene = make_scene(1, settled=False)
    odd = "'; touch pwned; $(touch pwned) `touch pwned` \\ \" \n * ~"
    root = scene.lab["h01"].root.parent / "a 'root' $(touch pwned)"
    root.mkdir()
    scene.lab.edit("h01", path=str(root))
    out = tmp_path / "out"
    configure(scene.lab, vars={"ODD": odd}, release={"hooks": {"activated": [f'printf %s "$ODD" >{out}']}})
    done = scene.start("push", "--message", odd).finish()
    assert done.code == 0, done.stderr
    assert out.read_text() == odd
    assert walk(root / "current") == walk(scene.tree)
    assert not list(tmp_path.rglob("pwned"))
