"""What is fast to look at alone: the cut of an artifact, the list of its parts, and connections that go at the wrong moment."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from deployctl.artifact.local import PART_BYTES, Part, new_file, part_bytes
from deployctl.artifact.pack import Artifact
from deployctl.errors import Code, HostError
from deployctl.host.growth import Growth
from deployctl.host.lanes import Lanes
from deployctl.host.layout import list_of_parts
from deployctl.host.parts import read_parts
from deployctl.host.receiver import Receiver
from deployctl.host.script import Answer, Script, functions_of
from deployctl.host.shell import Cancel, Shell
from deployctl.release.packing import _write_list


@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 4 * PART_BYTES])
@pytest.mark.parametrize("step_bytes", [PART_BYTES - 1, 3 * PART_BYTES])
def test_the_cut_is_the_same_however_it_is_written(tmp_path: Path, size_bytes: int, step_bytes: int) -> None:
    data = bytes(range(256)) * (size_bytes // 256 + 1)
    data = data[:size_bytes]
    told: list[Part] = []
    with new_file(tmp_path, lambda _path, part: told.append(part)) as output:
        for start in range(0, size_bytes, step_bytes):
            output.write(data[start : start + step_bytes])
        pieces: list[bytes] = []
        while data:
            step = part_bytes(len(pieces) + 1)
            pieces.append(data[:step])
            data = data[step:]
        assert output.parts == tuple(Part(len(p), hashlib.sha256(p).hexdigest()) for p in pieces)
        assert told == [p for n, p in enumerate(output.parts, 1) if p.size_bytes == part_bytes(n)]


def test_the_list_of_parts_is_never_written_anew(tmp_path: Path) -> None:
    """A worker may be reading it when the packer tells of the artifact a second time."""
    artifact = Artifact(tmp_path / "a.tar.zst", "zstd", 3, "", (Part(2, "x", 2), Part(1, "y")))
    _write_list(artifact)
    inode = list_of_parts(artifact.path).stat().st_ino
    _write_list(artifact)
    assert list_of_parts(artifact.path).stat().st_ino == inode
    assert read_parts(artifact.path) == [(2, "x", 2), (1, "y", 0)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.zst.parts"]


def test_parts_that_come_later_follow_on() -> None:
    growth = Growth([(5, "a")], whole=False)
    growth.grow([(7, "b")], whole=True)
    parts, whole = growth.look()
    assert whole
    assert [(p.number, p.start_bytes, p.size_bytes, p.sha256) for p in parts.values()] == [
        (1, 0, 5, "a"),
        (2, 5, 7, "b"),
    ]


class GoneChannel:
    """What paramiko makes of a channel whose connection has just been lost."""

    closed = True

    def send(self, _data: bytes) -> int:
        raise EOFError

    def close(self) -> None:
        raise EOFError


def test_a_connection_that_is_lost_while_something_is_told() -> None:
    connection: Any = None
    channel: Any = GoneChannel()
    receiver = Receiver(Shell(connection, channel), Answer("@"), 1.0)
    receiver.tell("part 1")
    assert receiver.over
    receiver.close()


def test_the_cause_is_told_not_what_followed() -> None:
    """One lane knows why the connection ended, the others only that it did."""
    both = threading.Barrier(2)

    def send(numbers: range, _stop: Cancel) -> None:
        both.wait(10)
        raise HostError(Code.TIMED_OUT if numbers[0] == 2 else Code.LOST, f"part {numbers[0]}")

    lanes = Lanes(send, [range(1, 2), range(2, 3)], 2, Cancel())
    for thread in lanes._threads:
        thread.join(10)
    with pytest.raises(HostError, match="part 2"):
        lanes.check()
    lanes.close()


def test_parts_are_larger_once_some_have_gone(tmp_path: Path) -> None:
    """The first small, so that unpacking begins early; each costs a host a handful of processes."""
    with new_file(tmp_path) as output:
        for _ in range(10):
            output.write(bytes(8 << 20))
        assert [part.size_bytes >> 20 for part in output.parts] == [8, 8, 8, 32, 24]
        assert sum(part.size_bytes for part in output.parts) == output.size_bytes


def test_what_goes_back_to_the_parts_changes_no_value(tmp_path: Path) -> None:
    """`unlock` does that before it asks whether it holds the lock (D_HELD)."""
    run, parts = tmp_path / "incoming/run", tmp_path / "incoming/a.tar.zst.parts"
    (run / "tree").mkdir(parents=True)
    parts.mkdir()
    (run / "tree/film").write_text("film")
    (run / "placed").write_text("a.tar.zst.parts\n1 2\nfilm\n")
    functions = functions_of(Script.build("unlock", {}, run="run", root=str(tmp_path)).parts)
    script = (
        f'{functions}\nD_HELD= D_TO=to D_NAME=name\nkeep_proven incoming/run\necho "$D_HELD,$D_TO,$D_NAME"'
    )
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == ",to,name\n"
    assert (parts / "1-2").read_text() == "film"
