"""Exclusion against git itself, and the ways in which patterns reach it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployctl.artifact.ignore import compile_patterns
from deployctl.errors import SourceError
from tests.artifact.trees import make_tree, run, tool, walked

FILES = [
    "a",
    "a.log",
    "keep/a.log",
    "keep/b",
    "d/a",
    "d/d/a",
    "d/keep/a.log",
    "b/a/d/x",
    "b/.env",
    "x y",
    "#h",
    "!n",
    "a]b",
    "d/b",
]

PATTERNS = st.sampled_from(
    [
        "*.log", "!*.log", "!keep/a.log", "a", "/a", "a/", "d/", "/d", "!d", "!/d/", "d/*", "!d/a", "!d/d/", "d/**", "**/a",
        "b/**/x", "**", "*", "!*", "!*/", "*/", "/*", "!/keep", "**/", "/**", "d/d", "keep/**", "!keep/b", "?", "[ab]", "[!a]",
        "[a-b]*", "x\\ y", "x y ", "\\#h", "# comment", "\\!n", "", "/", ".*", "a\\]b", "**/d/**", "d/**/a", "b/*/d", "***",
    ]
)  # fmt: skip


def _kept(root: Path, *patterns: str) -> set[str]:
    return {
        os.fsdecode(entry.path)
        for entry in walked(root, *patterns, allow_empty=True).entries
        if entry.type == "f"
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tree(tmp_path_factory.mktemp("repository") / "tree", dict.fromkeys(FILES, "x"))
    run(tool("git"), "init", "-q", root.parent / "git")
    return root


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=st.lists(PATTERNS, max_size=5))
def test_git_keeps_the_same_files(repository: Path, patterns: list[str]) -> None:
    ignore = repository.parent / "ignore"
    ignore.write_text("\n".join(patterns) + "\n")
    git_dir = repository.parent / "git" / ".git"
    listed = run(
        "git", f"--git-dir={git_dir}", f"--work-tree={repository}", "ls-files", "-z", "--others", f"--exclude-from={ignore}",
        cwd=repository,
    )  # fmt: skip
    assert _kept(repository, *patterns) == {name.decode() for name in listed.split(b"\0") if name}


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ([], {"a", "d/a", "d/b.log", "e/b.log"}),
        (["*.log"], {"a", "d/a"}),
        (["*.log", "!b.log"], {"a", "d/a", "d/b.log", "e/b.log"}),
        (["*.log", "!/e/b.log"], {"a", "d/a", "e/b.log"}),
        (["d/", "!d/a"], {"a", "e/b.log"}),
        (["d/*", "!d/a"], {"a", "d/a", "e/b.log"}),
        (["d/**", "!d/a"], {"a", "d/a", "e/b.log"}),
        (["/*", "!/d"], {"d/a", "d/b.log"}),
        (["*", "!*/", "!*.log"], {"d/b.log", "e/b.log"}),
        (["a/"], {"a", "d/a", "d/b.log", "e/b.log"}),
    ],
)
def test_patterns(tmp_path: Path, patterns: list[str], kept: set[str]) -> None:
    root = make_tree(tmp_path / "tree", dict.fromkeys(["a", "d/a", "d/b.log", "e/b.log"], "x"))
    assert _kept(root, *patterns) == kept


def test_deployignore_adds_and_is_not_shipped(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "tree",
        {"a": "", "b": "", "c": "", ".deployignore": "# ours\r\n!a\r\nb\r\n", "d/.deployignore": "c"},
    )
    assert _kept(root, "a") == {"a", "c", "d/.deployignore"}


def test_deployignore_with_names_that_are_no_text(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"a": "", ".deployignore": b"\xff*\n"})
    (root / os.fsdecode(b"\xff\n1")).touch()
    (root / os.fsdecode(b"\xfe")).touch()
    assert _kept(root) == {"a", os.fsdecode(b"\xfe")}


def test_newlines_in_names(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"new\nline/skip": "", "new\nline/keep": "", "skip\n": ""})
    assert _kept(root, "skip") == {"new\nline/keep", "skip\n"}


def test_excluded_directories_are_not_looked_into(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"a": "", "skip/pipe-dir/": ""})
    os.mkfifo(root / "skip" / "pipe")
    assert _kept(root, "skip") == {"a"}


def test_deployignore_that_is_no_file(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"a": ""})
    os.mkfifo(root / ".deployignore")
    with pytest.raises(SourceError, match=r"^\.deployignore: is not a file$"):
        walked(root)
    (root / ".deployignore").unlink()
    (root / ".deployignore").symlink_to("a")
    with pytest.raises(SourceError, match=r"^\.deployignore: cannot be read: "):
        walked(root)


def test_bad_patterns_are_named_all_at_once() -> None:
    with pytest.raises(SourceError) as caught:
        compile_patterns(["fine", "a\\", "//"])
    assert "exclude: not a gitignore pattern: 'a\\\\'" in caught.value.problems


def test_nothing_to_exclude() -> None:
    assert compile_patterns([]) is None
    assert compile_patterns(["", "# comment", "!only-negated"]) is None
