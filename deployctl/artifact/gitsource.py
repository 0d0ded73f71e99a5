"""One commit of a git repository as a directory: its committed files, byte for byte, never the work tree.

Owns asking git; refuses to write anything itself. Not `git archive`, which leaves out files with `export-ignore` and
rewrites those with `export-subst`, but `git ls-tree` and `git cat-file`, which run no filter and no hook.
"""

from __future__ import annotations

import difflib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from deployctl.artifact.manifest import escape
from deployctl.artifact.unpack import CHUNK_BYTES, Unpacker
from deployctl.errors import SourceError
from deployctl.model import for_others

_LFS_MARK = b"version https://git-lfs.github.com/spec/"
_LFS_BYTES = 1024
_ASKED_AHEAD = (
    50  # at most 3,250 bytes of questions: they fit in the smallest pipe, so neither side waits for the other
)
_PROGRAM, _LINK, _SUBMODULE = b"100755", b"120000", b"160000"
# What a hook of git may have set; the repository is the one at SOURCE all the same.
_ELSEWHERE = {
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE",
}  # fmt: skip


class _Blob(NamedTuple):
    mode: bytes
    sha: bytes
    path: bytes


def unpack_commit(source: Path, ref: str, into: Path) -> tuple[str, tuple[str, ...]]:
    """Unpack what `ref` has at SOURCE, a repository or a directory in one; the commit's full hash, and warnings.

    Every file gets the time of the commit. SourceError for an unknown ref (with near names), submodules, and anything
    git says.
    """
    git = _Git(source)
    commit = _resolve(git, ref)
    prefix = git.ask("rev-parse", "--show-prefix").rstrip(b"\n").rstrip(b"/")
    tree = commit.encode() + (b":" + prefix if prefix else b"")
    if prefix and git.status("cat-file", "-e", tree) != 0:
        raise SourceError(f"{source}: is not in {ref}")
    time_s = int(git.ask("log", "-1", "--format=%ct", "--no-show-signature", commit))
    blobs, submodules = _listed(git.ask("ls-tree", "-rz", "--full-tree", tree))
    if submodules:
        raise SourceError(
            [f"{escape(blob.path)}: is a submodule, whose files are not in the commit" for blob in submodules]
        )
    unpacker = Unpacker(into, default_time_s=time_s)
    pointers = _create(git, blobs, unpacker, time_s)
    unpacker.finish()
    return commit, tuple(f"{escape(path)}: is a pointer of Git LFS, not the file itself" for path in pointers)


class _Git:
    """Commands of git in one directory, deaf to an environment that points elsewhere."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._env = {name: value for name, value in for_others(os.environ).items() if name not in _ELSEWHERE}
        self._env |= {
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
        }

    def status(self, *arguments: str | bytes) -> int:
        return self._run(arguments).returncode

    def ask(self, *arguments: str | bytes) -> bytes:
        """What the command prints; SourceError with what it says if it fails."""
        done = self._run(arguments)
        if done.returncode != 0:
            raise SourceError(f"{self._directory}: git: {_said(done.stderr)}")
        return done.stdout

    @contextmanager
    def contents(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Where to ask for objects, one hash a line, and where they come out."""
        command = self._command(("cat-file", "--batch"))
        with subprocess.Popen(
            command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)
            except BaseException:
                process.kill()
                raise

    def _run(self, arguments: Sequence[str | bytes]) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                self._command(arguments),
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise SourceError("git is not installed here, and --ref needs it") from None

    def _command(self, arguments: Sequence[str | bytes]) -> list[str | bytes]:
        return ["git", "-C", os.fspath(self._directory), *arguments]


def _resolve(git: _Git, ref: str) -> str:
    git.ask("rev-parse", "--git-dir")  # says what is wrong with the repository before the ref is blamed
    plain = ref and not ref.startswith("-") and ref.isprintable()
    if plain:
        try:
            return git.ask("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").decode("ascii").strip()
        except SourceError:
            pass
    names = git.ask("for-each-ref", "--format=%(refname:short)").decode("utf-8", "replace").split("\n")
    near = difflib.get_close_matches(ref, [name for name in names if name], n=3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "a shallow clone lacks older commits and other branches"
    )
    raise SourceError(f"no branch, tag or commit {ascii(ref)[1:-1]!r} in the repository", hint=hint)


def _listed(listing: bytes) -> tuple[list[_Blob], list[_Blob]]:
    blobs: list[_Blob] = []
    submodules: list[_Blob] = []
    for line in listing.split(b"\0")[:-1]:
        facts, _, path = line.partition(b"\t")
        mode, _, sha = facts.split(b" ")
        (submodules if mode == _SUBMODULE else blobs).append(_Blob(mode, sha, path))
    return blobs, submodules


def _create(git: _Git, blobs: Sequence[_Blob], into: Unpacker, time_s: int) -> list[bytes]:
    """Create every blob; the paths of those that are pointers of Git LFS."""
    pointers: list[bytes] = []
    with git.contents() as (questions, answers):
        for start in range(0, len(blobs), _ASKED_AHEAD):
            asked = blobs[start : start + _ASKED_AHEAD]
            questions.write(b"".join(blob.sha + b"\n" for blob in asked))
            questions.flush()
            pointers += [blob.path for blob in asked if _create_one(blob, answers, into, time_s)]
        questions.close()
    return pointers


def _create_one(blob: _Blob, answers: BinaryIO, into: Unpacker, time_s: int) -> bool:
    head = answers.readline().split()
    if len(head) != 3 or head[1] != b"blob":
        raise SourceError(f"{escape(blob.path)}: its content is missing in the repository")
    size = int(head[2])
    if blob.mode == _LINK:
        into.link(blob.path, _exactly(answers, size), time_s=time_s)
        is_pointer = False
    else:
        mode = 0o755 if blob.mode == _PROGRAM else 0o644
        first = _exactly(answers, min(size, CHUNK_BYTES))
        is_pointer = size < _LFS_BYTES and first.startswith(_LFS_MARK)
        rest = _Rest(answers, size - len(first))
        into.file(blob.path, rest.after(first), size=size, mode=mode, time_s=time_s)
        rest.skip()
    _exactly(answers, 1)  # the newline after each object
    return is_pointer


class _Rest:
    """What is still to be read of an object, by whoever wants it or by nobody."""

    def __init__(self, answers: BinaryIO, left_bytes: int) -> None:
        self._answers = answers
        self._left_bytes = left_bytes

    def after(self, first: bytes) -> Iterator[bytes]:
        yield first
        while self._left_bytes:
            chunk = _exactly(self._answers, min(self._left_bytes, CHUNK_BYTES))
            self._left_bytes -= len(chunk)
            yield chunk

    def skip(self) -> None:
        for _ in self.after(b""):
            pass


def _exactly(answers: BinaryIO, size: int) -> bytes:
    data = answers.read(size)
    if len(data) != size:
        raise SourceError("git stopped in the middle of a file: the repository may be damaged")
    return data


def _said(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[0].removeprefix("fatal: ") if lines else "failed without a word"
