"""A warm run shows nothing that a real one doesn't."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.warm import LIMIT_S, Process, Started, Warm, cold, run, start

COMMANDS = [
    ("--version",),
    ("nonsense",),
    ("push", "--help"),
    ("push", "site", "-i", "none.yaml"),
    ("push", "site", "-i", "none.yaml", "-o", "json"),
    ("inventory",),
    ("inventory", "schema"),
]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with an inventory that only the environment leads to."""
    (tmp_path / "shop.yaml").write_text("app: shop\npath: /srv/shop\ngroups: {web: {hosts: [web01]}}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def waiting(directory: Path, *, warm: bool) -> Iterator[Started]:
    """A push that waits in a hook on this machine."""
    fifo = directory / f"fifo-{warm}"
    os.mkfifo(fifo)
    (directory / "site").mkdir(exist_ok=True)
    (directory / "waiting.yaml").write_text(
        (directory / "shop.yaml").read_text() + f"release: {{hooks: {{build: ['cat {fifo}']}}}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Warm, "allowed", warm)
        process = start(["push", "site", "-i", "waiting.yaml"], {}, None)
    assert isinstance(process, Process) is warm
    with fifo.open("w"):  # once the hook reads
        yield process
        process.kill()
    process.wait(LIMIT_S)
    assert process.stdout
    process.stdout.close()


def seen(pid: int) -> dict[str, object]:
    """What the kernel knows of a process that it could have inherited."""
    place = Path(f"/proc/{pid}")
    lines = [line.split() for line in (place / "status").read_text().splitlines()]
    opened = {int(each.name): str(each.readlink()) for each in (place / "fd").iterdir()}
    assert opened[0] == "/dev/null"
    assert opened[1] == opened[2]
    return {
        "leads": (os.getsid(pid) == pid, os.getpgid(pid) == pid),
        "cwd": (place / "cwd").readlink(),
        "opened": {number: name.partition(":")[0] for number, name in opened.items()},
        "limits": (place / "limits").read_text(),
        **{line[0]: line[1:] for line in lines if line[0].startswith(("Sig", "Umask", "Threads", "Uid"))},
    }


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_same_words_and_the_same_code(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {}
    for allowed in (True, False):
        monkeypatch.setattr(Warm, "allowed", allowed)
        said[allowed] = run(arguments, {"DEPLOYCTL_INVENTORY": "shop.yaml"})
    if "json" not in arguments:
        assert said[True] == said[False]
    assert said[True][0] == said[False][0]
    assert len(said[True][1]) == len(said[False][1])


def test_it_inherits_the_same(directory: Path) -> None:
    with waiting(directory, warm=True) as ours, waiting(directory, warm=False) as real:
        assert seen(ours.pid) == seen(real.pid)
        assert seen(ours.pid)["leads"] == (True, True)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_it_ends_by_a_signal(directory: Path, number: int, code: int, warm: bool) -> None:
    with waiting(directory, warm=warm) as process:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(LIMIT_S) == process.poll() == process.returncode == code


def test_what_an_interpreter_reads_when_it_starts_is_read_by_one_that_starts() -> None:
    if Warm.allowed:
        assert not cold({**os.environ, "DEPLOYCTL_INVENTORY": "x"})
    for name in ("LC_ALL", "PYTHONUTF8", "TZ"):
        assert cold({**os.environ, name: "other"})
