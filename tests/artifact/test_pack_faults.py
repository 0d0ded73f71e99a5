"""What changes, vanishes or fails while it is packed: refused by name, and nothing left behind."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployctl.artifact.pack import Packed, pack
from deployctl.artifact.transcode import transcode
from deployctl.artifact.walk import Walked
from deployctl.errors import SourceError
from tests.artifact.trees import as_nobody, in_child, make_tree, names, walked, write

LARGE = 8 * 2**20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = make_tree(tmp_path / "tree", {"a/b": b"content", "large": os.urandom(LARGE), "link": "->a"})
    for path in (root / "a" / "b", root / "large", root / "a", root):
        os.utime(path, (1, 1))  # so that a change shows, however coarse the clock of the file system is
    return root


def _refused(files: Walked, out: Path, *problems: str, during: Callable[[], object] | None = None) -> None:
    """Packing says exactly these problems and leaves `out` empty; `during` runs once a part of `large` was read."""
    todo = [during] if during else []

    def progress(done: int, _: int) -> None:
        if todo and 10 < done < LARGE:
            todo.pop()()

    with pytest.raises(SourceError) as caught:
        pack(files, out, on_progress=progress)
    assert caught.value.problems == problems
    assert not todo
    assert names(out) == []


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else at the path, made first so that it can't get the same inode."""
    other = path.parent.parent / "other"
    make(other)
    path.unlink()
    other.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "shrinks": lambda path: os.truncate(path, 3),
    "grows": lambda path: os.truncate(path, path.stat().st_size + 3),
    "rewritten": lambda path: path.write_bytes(path.read_bytes()),
    "touched": lambda path: os.utime(path, (2, 2)),
    "mode": lambda path: path.chmod(0o600),
    "vanishes": lambda path: path.unlink(),
    "replaced": lambda path: _replace(path, lambda other: write(other, path.read_bytes(), mtime_s=1)),
    "becomes a FIFO": lambda path: _replace(path, os.mkfifo),
    "becomes a directory": lambda path: _replace(path, Path.mkdir),
}


@pytest.mark.parametrize("change", CHANGES)
def test_small_file_that_changed_since_the_walk(tree: Path, out: Path, change: str) -> None:
    files = walked(tree)
    CHANGES[change](tree / "a" / "b")
    _refused(files, out, "a/b: changed while it was packed")


@pytest.mark.parametrize("change", ["shrinks", "grows", "rewritten", "touched", "mode"])
def test_large_file_that_changes_while_it_is_read(tree: Path, out: Path, change: str) -> None:
    files = walked(tree)
    _refused(files, out, "large: changed while it was packed", during=lambda: CHANGES[change](tree / "large"))


def test_file_that_became_a_link(tree: Path, out: Path) -> None:
    files = walked(tree)
    (tree / "a" / "b").rename(tree.parent / "b")
    (tree / "a" / "b").symlink_to(tree.parent / "b")
    with pytest.raises(SourceError, match=r"^a/b: "):
        pack(files, out)
    assert names(out) == []


def test_link_that_leads_elsewhere_now(tree: Path, out: Path) -> None:
    files = walked(tree)
    (tree / "link").unlink()
    (tree / "link").symlink_to("large")
    _refused(files, out, "link: changed while it was packed")


def test_what_appears_and_vanishes_while_packing(tree: Path, out: Path) -> None:
    files = walked(tree, "*.log")

    def change() -> None:
        (tree / "a" / "new").touch()
        (tree / "a" / "b").unlink()
        (tree / "dir").mkdir()

    problems = [f"{path}: changed while it was packed" for path in ("dir", "a/b", "a/new")]
    _refused(files, out, *problems, during=change)


def test_directory_that_changes_its_mode_or_vanishes(tree: Path, out: Path) -> None:
    make_tree(tree, {"c/": b"", "d/": b""})
    files = walked(tree)

    def change() -> None:
        (tree / "c").chmod(0o700)
        (tree / "d").rmdir()

    with pytest.raises(SourceError) as caught:
        pack(
            files,
            out,
            on_progress=lambda done, _: change() if done > LARGE and (tree / "d").exists() else None,
        )
    assert set(caught.value.problems) == {"c: changed while it was packed", "d: changed while it was packed"}


def test_excluded_files_may_come_and_go(tree: Path, out: Path) -> None:
    (tree / "old.log").touch()
    files = walked(tree, "*.log")
    (tree / "old.log").unlink()
    (tree / "a" / "new.log").touch()
    assert pack(files, out).manifest.files == 2


def test_file_that_cannot_be_read_any_more(open_dir: Path) -> None:
    make_tree(open_dir / "tree", {"a": b"1"})
    (open_dir / "out").mkdir(mode=0o777)
    (open_dir / "out").chmod(0o777)

    def check() -> None:
        own = make_tree(open_dir / "own", {"a": b"1"})
        files = walked(own)
        own.chmod(0)
        with pytest.raises(SourceError, match=r"^a: cannot be read: Permission denied$"):
            pack(files, open_dir / "out")
        own.chmod(0o700)
        assert names(open_dir / "out") == []

    as_nobody(check)


def test_error_of_the_device_names_the_file(out: Path) -> None:
    memory = Path("/proc/self/mem")  # reading its first byte gives EIO, since nothing is mapped there
    if not memory.exists():
        pytest.skip("no /proc here")
    files = walked(memory)
    with pytest.raises(
        SourceError, match=r"^mem: (cannot be read: Input/output error|changed while it was packed)$"
    ):
        pack(files, out)
    assert names(out) == []


def test_directory_for_artifacts_that_is_gone_or_full(tree: Path, out: Path) -> None:
    with pytest.raises(SourceError, match=rf"^{out}/no: cannot be written: No such file or directory$"):
        pack(walked(tree), out / "no")

    def check() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        with pytest.raises(SourceError, match=r"cannot be written: File too large$"):
            pack(walked(tree), out)
        assert names(out) == []

    in_child(check)


def test_a_process_forked_after_a_failure_does_not_wait_for_our_threads(tree: Path, out: Path) -> None:
    """The exception lives on in the child, and with it whatever it refers to."""
    files = walked(tree)
    os.truncate(tree / "large", 3)
    with pytest.raises(SourceError) as caught:
        pack(files, out)

    def forget() -> None:
        caught.value.__traceback__ = None
        gc.collect()

    in_child(forget)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False
    ).returncode:
        pytest.skip("no right to mount")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.root
def test_full_disk(tree: Path, small_disk: Path, out: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be written: No space left on device$") as caught:
        pack(walked(tree), small_disk)
    assert caught.value.hint
    assert names(small_disk) == []
    packed = pack(walked(tree), out)
    with pytest.raises(SourceError, match="No space left"):
        transcode(packed, "gzip", small_disk)
    assert names(small_disk) == []


def _packed(tree: Path, out: Path) -> Packed:
    return pack(walked(tree), out)


@pytest.mark.parametrize("keep", [0, 10, LARGE // 2, LARGE - 10])
def test_damaged_artifact_is_not_transcoded(tree: Path, out: Path, keep: int) -> None:
    packed = _packed(tree, out)
    os.truncate(packed.artifact.path, keep)
    with pytest.raises(SourceError, match="the packed artifact is damaged"):
        transcode(packed, "gzip", out)
    assert names(out) == [packed.artifact.path.name]


def test_flipped_bit_and_missing_artifact(tree: Path, out: Path) -> None:
    packed = _packed(tree, out)
    data = bytearray(packed.artifact.path.read_bytes())
    data[len(data) // 2] ^= 1
    packed.artifact.path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        transcode(packed, "gzip", out)
    packed.artifact.path.unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        transcode(packed, "gzip", out)
    assert names(out) == []


def test_unknown_codec(tree: Path, out: Path) -> None:
    with pytest.raises(ValueError, match="bzip2"):
        transcode(_packed(tree, out), "bzip2", out)
