"""What a walk lists, refuses and warns about."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from deployctl.artifact.links import leaves_tree
from deployctl.artifact.walk import walk
from deployctl.errors import SourceError
from deployctl.model import Shared
from tests.artifact.trees import as_nobody, make_nasty_tree, make_tree, run, tool, walked


def _problems(root: Path, *exclude: str, shared: Shared | None = None) -> tuple[str, ...]:
    with pytest.raises(SourceError) as caught:
        walked(root, *exclude, shared=shared)
    return caught.value.problems


def test_entries_are_sorted_and_complete(tmp_path: Path) -> None:
    tree = make_nasty_tree(tmp_path / "tree")
    files = walked(tree)
    paths = [entry.path for entry in files.entries]
    found = run(tool("find"), tree, "-mindepth", "1", "-printf", "%P\\0").split(b"\0")[:-1]
    assert paths == sorted(found)
    assert files.files == len(run("find", tree, "-type", "f", "-printf", "x"))
    assert files.size_bytes == sum(int(n) for n in run("find", tree, "-type", "f", "-printf", "%s\n").split())


def test_every_problem_is_reported_in_one_go(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path / "tree",
        {
            "ok": "",
            "d/out": "->../../x",
            "absolute": "->/etc",
            "set\nuid": "",
            "setgid": "",
            "both": "",
            "storage/x": "",
            "conf": "",
        },
    )
    os.mkfifo(tree / "d" / "pipe")
    here = Path.cwd()
    os.chdir(tree)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    os.chdir(here)
    (tree / "set\nuid").chmod(0o4755)
    (tree / "setgid").chmod(0o2755)
    (tree / "both").chmod(0o6755)
    assert _problems(tree, shared=Shared(dirs=("storage",), files=("conf/app.ini",))) == (
        "absolute: leads out of the tree, to /etc",
        "both: is setuid and setgid, which a release never is",
        "conf: is not a directory, but conf/app.ini in it is shared",
        "d/out: leads out of the tree, to ../../x",
        "d/pipe: is a named pipe (FIFO)",
        "set\\x0auid: is setuid, which a release never is",
        "setgid: is setgid, which a release never is",
        "socket: is a socket",
        "storage: is shared, so it cannot be in the release",
    )


def test_device(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": ""})
    try:
        os.mknod(tree / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no right to make a device")
    assert _problems(tree) == ("null: is a character device",)


def test_excluded_problems_are_none(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "", "out": "->/etc", "to-excluded": "->skip/b", "skip/b": ""})
    os.mkfifo(tree / "pipe")
    entries = walked(tree, "out", "pipe", "skip").entries
    assert [entry.path for entry in entries] == [b"a", b"to-excluded"]


def test_setgid_and_sticky_directories_are_carried_without_those_bits(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"setgid/a": "", "sticky/a": ""})
    (tree / "setgid").chmod(0o2755)
    (tree / "sticky").chmod(0o1777)
    assert {e.path: e.mode for e in walked(tree).entries if e.type == "d"} == {
        b"setgid": 0o755,
        b"sticky": 0o777,
    }
    assert walked(tree).warnings == ("sticky: everyone may write it", "sticky: its sticky bit is not carried")


def test_everything_unreadable_is_listed(open_dir: Path) -> None:
    tree = make_tree(
        open_dir / "tree", {"a": "", "b": "", "closed/x": "", "no-list/x": "", "no-enter/x": "", "ok": ""}
    )
    for name, mode in {"a": 0, "b": 0o200, "closed": 0, "no-list": 0o300, "no-enter": 0o600}.items():
        (tree / name).chmod(mode)
    if os.geteuid() == 0:
        for path in [tree, *tree.iterdir()]:
            os.chown(path, 65534, 65534)

    def check() -> None:
        assert _problems(tree) == tuple(
            f"{name}: cannot be read: Permission denied"
            for name in ("a", "b", "closed", "no-enter", "no-list")
        )
        tree.chmod(0)
        assert _problems(tree) == (f"{tree}: cannot be read: Permission denied",)

    as_nobody(check)


@pytest.mark.parametrize(
    ("files", "shared", "problem"),
    [
        (
            {"storage": "a file"},
            Shared(dirs=("storage",)),
            "storage: is shared, so it cannot be in the release",
        ),
        ({"storage/": ""}, Shared(dirs=("storage/",)), "storage: is shared, so it cannot be in the release"),
        ({".env": ""}, Shared(files=(".env",)), ".env: is shared, so it cannot be in the release"),
        ({"a/b/c/d": ""}, Shared(dirs=("a/b",)), "a/b: is shared, so it cannot be in the release"),
        ({"a": "->b"}, Shared(dirs=("a/b",)), "a: is not a directory, but a/b in it is shared"),
        ({"a/b": ""}, Shared(files=("a/b/c/d",)), "a/b: is not a directory, but a/b/c/d in it is shared"),
    ],
)
def test_clashes_with_shared(
    tmp_path: Path, files: dict[str, bytes | str], shared: Shared, problem: str
) -> None:
    tree = make_tree(tmp_path / "tree", {"z": "", **files})
    assert _problems(tree, shared=shared) == (problem,)


def test_shared_next_to_release_files(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a/b": "", "storage2/x": "", "sto": ""})
    shared = Shared(dirs=("a/logs", "storage"), files=("a/b2",))
    assert len(walked(tree, shared=shared).entries) == 5


@pytest.mark.parametrize(
    ("path", "text", "leaves"),
    [
        ("a", "b", False),
        ("a", ".", False),
        ("a", "..", True),
        ("a", "./..", True),
        ("a", "b/..", False),
        ("a", "b/../..", True),
        ("a", "b/../../b", True),
        ("d/a", "..", False),
        ("d/a", "../..", True),
        ("d/a", "../x//./y", False),
        ("a", "/etc", True),
        ("a", "//", True),
        ("a", "a", False),
        ("a", "a/a/..", False),
        ("a", "...", False),
        ("a", "root/../x", True),  # `root` leads to the top, so `..` behind it leaves
        ("d/e/a", "up/../../x", True),
        ("d/e/a", "deep/../x", False),
        ("a", "to-abs/x", True),
        ("a", "loop1/..", False),
    ],
)
def test_links_that_leave_the_tree(path: str, text: str, leaves: bool) -> None:
    links = {
        b"root": b".",
        b"d/e/up": b"../..",
        b"d/e/deep": b"f/g",
        b"to-abs": b"/x",
        b"loop1": b"loop2",
        b"loop2": b"loop1",
    }
    assert leaves_tree(path.encode(), {**links, path.encode(): text.encode()}) is leaves


def test_empty_sources(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"only/directories/": ""})
    assert _problems(tree) == (f"{tree}: is empty",)
    (tree / "a.log").touch()
    assert _problems(tree, "*.log") == (f"{tree}: is empty apart from what is excluded",)
    assert len(walked(tree, "*.log", allow_empty=True).entries) == 2


def test_sources_that_are_none(tmp_path: Path) -> None:
    assert _problems(tmp_path / "no") == (f"{tmp_path}/no: does not exist",)
    os.mkfifo(tmp_path / "pipe")
    assert _problems(tmp_path / "pipe") == (
        f"{tmp_path}/pipe: is a named pipe (FIFO), not a directory, an archive or a file",
    )
    assert _problems(Path("/dev/null"))[0].startswith("/dev/null: is a character device")


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_bytes(b"12345")
    files = walked(tmp_path / "app.log", "*.log")
    assert [(e.path, e.type, e.size) for e in files.entries] == [(b"app.log", "f", 5)]
    assert _problems(tmp_path / "app.log", shared=Shared(files=("app.log",)))
    (tmp_path / "app.log").chmod(0o4755)
    assert _problems(tmp_path / "app.log") == ("app.log: is setuid, which a release never is",)


def test_source_given_as_a_link_or_with_a_slash(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": ""})
    (tmp_path / "link").symlink_to(tree)
    assert walked(tmp_path / "link").entries == walked(tree).entries
    assert walk(Path(f"{tree}/"), exclude=[], shared=Shared()).entries == walked(tree).entries


def test_warnings(tmp_path: Path) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    tree = make_tree(
        tmp_path / "tree",
        {"id_rsa": key, "id_rsa.pub": "ssh-rsa", "tls/site.pem": key, "tls/chain.pem": "-----BEGIN CERTIFICATE-----", "site.key": key,
         "text": key, ".env": "", "d/.env": "", ".env.example": "", ".git/config": "", "open": "", "n/id_ed25519": "->../id_rsa"},
    )  # fmt: skip
    (tree / "open").chmod(0o666)
    assert walked(tree).warnings == (
        "id_rsa: a private key would be released",
        "site.key: a private key would be released",
        "tls/site.pem: a private key would be released",
        ".env: a .env file would be released",
        "d/.env: a .env file would be released",
        ".git: a git repository would be released",
        "open: everyone may write it",
    )
    assert walked(tree, ".git", ".env", "*.key", "id_*", "*.pem", "open").warnings == ()


def test_warnings_are_capped(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {f"open-{number:02}": "" for number in range(15)})
    for path in tree.iterdir():
        path.chmod(0o666)
    warnings = walked(tree).warnings
    assert len(warnings) == 11
    assert warnings[0] == "open-00: everyone may write it"
    assert warnings[-1] == "and 5 more: everyone may write it"


def test_memory_for_each_file_is_below_a_kib(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path / "tree", {f"some-directory/a-file-name-{number}.txt": "" for number in range(2000)}
    )
    tracemalloc.start()
    try:
        files = walked(tree)
        assert tracemalloc.get_traced_memory()[1] < 1024 * len(files.entries) + 100_000
    finally:
        tracemalloc.stop()
