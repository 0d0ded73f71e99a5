"""A commit as SOURCE: its committed bytes, whatever the work tree, attributes, filters and environment say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployctl.artifact.manifest import Manifest
from deployctl.artifact.pack import pack
from deployctl.artifact.source import open_source
from deployctl.artifact.walk import walk
from deployctl.errors import SourceError
from deployctl.model import Shared
from tests.artifact.trees import make_tree, names, run, simple_manifest, tool

IDENTITY = [
    "-c",
    "user.name=T",
    "-c",
    "user.email=t@example.com",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "core.autocrlf=false",
]


def git(repository: Path, *arguments: str | Path, stdin: bytes | None = None) -> str:
    return run(tool("git"), "-C", repository, *IDENTITY, *arguments, stdin=stdin).decode().strip()


def commit(repository: Path, when: str = "2020-01-02T03:04:05Z") -> str:
    git(repository, "add", "-A")
    tree = git(repository, "write-tree")
    os.environ["GIT_COMMITTER_DATE"] = when
    try:
        sha = git(repository, "commit-tree", "-m", "x", tree)
    finally:
        del os.environ["GIT_COMMITTER_DATE"]
    git(repository, "update-ref", "HEAD", sha)
    return sha


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = make_tree(
        tmp_path / "repository",
        {"bin/run": "#!/bin/sh\n", "caf\u00e9\n": "x", "link": "->bin/run", "crlf": b"a\r\nb\r\n"},
    )
    (root / "bin" / "run").chmod(0o755)
    git(root, "init", "-q", "-b", "main")
    return root


def _files(source: Path, ref: str, work: Path) -> dict[str, bytes]:
    with open_source(source, ref, work) as opened:
        found = {
            str(p.relative_to(opened.path)): p.read_bytes() for p in opened.path.rglob("*") if p.is_file()
        }
    assert names(work) == []
    return found


def _refusal(source: Path, ref: str, work: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        _files(source, ref, work)
    assert names(work) == []
    return caught.value


def test_commit_is_what_was_committed(repository: Path, work: Path) -> None:
    sha = commit(repository)
    expected = run("git", "-C", repository, "-c", "tar.umask=022", "archive", sha)
    (repository / "bin" / "run").write_text("changed")
    (repository / "new").write_text("new")
    with open_source(repository, "main", work) as opened:
        assert opened.describe == sha
        assert opened.name == f"{repository} at main"
        assert opened.warnings == ()
        reference = work / "reference"
        reference.mkdir()
        run("tar", "-C", reference, "-x", stdin=expected)
        assert Manifest.from_bytes(simple_manifest(opened.path)) == Manifest.from_bytes(
            simple_manifest(reference)
        )
        assert {int(path.lstat().st_mtime) for path in opened.path.rglob("*") if not path.is_symlink()} == {
            1577934245
        }


def test_attributes_and_filters_change_nothing(repository: Path, work: Path) -> None:
    make_tree(
        repository,
        {
            ".gitattributes": "hidden export-ignore\nsubst export-subst\ncrlf text eol=lf\nf filter=x\n",
            "hidden": "h",
            "subst": "$Format:%H$",
            "f": "f",
        },
    )
    git(repository, "config", "filter.x.smudge", "echo smudged")
    git(repository, "config", "filter.x.clean", "cat")
    git(repository, "-c", "core.safecrlf=false", "add", "-A")
    commit(repository)
    files = _files(repository, "HEAD", work)
    assert files["hidden"] == b"h"
    assert files["subst"] == b"$Format:%H$"
    assert files["f"] == b"f"


def test_tags_commits_and_branches(repository: Path, work: Path) -> None:
    first = commit(repository)
    git(repository, "tag", "-a", "-m", "x", "v1.0")
    (repository / "second").write_text("2")
    commit(repository)
    for ref in ("v1.0", first, first[:10], "v1.0^{commit}"):
        assert "second" not in _files(repository, ref, work)
    assert "second" in _files(repository, "main", work)


def test_subdirectory_and_bare_repository(repository: Path, work: Path, tmp_path: Path) -> None:
    commit(repository)
    assert _files(repository / "bin", "main", work) == {"run": b"#!/bin/sh\n"}
    (repository / "untracked").mkdir()
    assert (
        _refusal(repository / "untracked", "main", work).message == f"{repository}/untracked: is not in main"
    )
    bare = tmp_path / "bare.git"
    run("git", "clone", "-q", "--bare", repository, bare)
    assert "crlf" in _files(bare, "main", work)


@pytest.mark.parametrize(
    "ref",
    ["--help", "-h", "--output=/tmp/x", "", "main..main", "main\n", "nope", "main:bin", "@{u}", "\udcff"],
)
def test_refs_that_are_none(repository: Path, work: Path, ref: str) -> None:
    commit(repository)
    assert _refusal(repository, ref, work).message.startswith("no branch, tag or commit ")


def test_near_names_are_told(repository: Path, work: Path) -> None:
    commit(repository)
    git(repository, "branch", "release-2")
    error = _refusal(repository, "relase-2", work)
    assert error.problems == ("no branch, tag or commit 'relase-2' in the repository",)
    assert error.hint == "did you mean release-2?"


def test_submodules_are_refused_by_name(repository: Path, work: Path) -> None:
    sha = commit(repository)
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{sha},vendor/lib")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{sha},other")
    tree = git(repository, "write-tree")
    git(repository, "update-ref", "HEAD", git(repository, "commit-tree", "-m", "x", tree))
    assert _refusal(repository, "HEAD", work).problems == (
        "other: is a submodule, whose files are not in the commit",
        "vendor/lib: is a submodule, whose files are not in the commit",
    )


def test_lfs_pointers_are_warned_about(repository: Path, work: Path) -> None:
    make_tree(repository, {"big.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})
    commit(repository)
    with open_source(repository, "HEAD", work) as opened:
        assert opened.warnings == ("big.bin: is a pointer of Git LFS, not the file itself",)


def test_large_and_many_files(repository: Path, work: Path) -> None:
    large = os.urandom(3_000_000)
    make_tree(repository, {"large": large, "empty": b"", **{f"many/{n}": str(n) for n in range(200)}})
    commit(repository)
    files = _files(repository, "HEAD", work)
    assert files["large"] == large
    assert files["empty"] == b""
    assert files["many/199"] == b"199"
    assert len(files) == 206


def test_paths_that_git_would_not_make(repository: Path, work: Path) -> None:
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=b"x")
    inner = git(repository, "mktree", stdin=f"100644 blob {blob}\tx\n".encode())
    tree = git(repository, "mktree", stdin=f"040000 tree {inner}\t..\n100644 blob {blob}\tfine\n".encode())
    git(repository, "update-ref", "refs/heads/evil", git(repository, "commit-tree", "-m", "x", tree))
    assert _refusal(repository, "evil", work).problems == ("../x: is not a path inside the tree",)


def test_missing_objects(repository: Path, work: Path) -> None:
    commit(repository)
    blob = git(repository, "rev-parse", "HEAD:crlf")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    assert _refusal(repository, "HEAD", work).problems == ("crlf: its content is missing in the repository",)


def test_environment_of_a_hook_does_not_lead_elsewhere(
    repository: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert "crlf" in _files(repository, "main", work)


def test_not_a_repository(tmp_path: Path, work: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "not a git repository" in _refusal(tmp_path / "plain", "main", work).message
    (tmp_path / "file").touch()
    assert "is not a directory" in _refusal(tmp_path / "file", "main", work).message


def test_without_git(repository: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert _refusal(repository, "main", work).message == "git is not installed here, and --ref needs it"


def test_same_commit_gives_the_same_artifact(repository: Path, work: Path, tmp_path: Path) -> None:
    commit(repository)
    found = set()
    for _ in range(2):
        with open_source(repository, "main", work) as opened:
            times = {os.lstat(path).st_mtime for path in opened.path.rglob("*")}
            assert len(times) == 1  # of the commit, not of today, links and directories as well
            found.add(pack(walk(opened.path, exclude=[], shared=Shared()), tmp_path).artifact.sha256)
    assert len(found) == 1
