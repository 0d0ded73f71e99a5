"""Reading the file: what stops it, where, and how soon."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deployctl.errors import Exit, InventoryError
from deployctl.inventory import load_inventory
from tests.inventory.files import SMALL, inside, load, problems

BAD = "not valid YAML: "

UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "1:1: the file is empty"),
    "comments alone": ("# nothing\n", "1:1: the file is empty"),
    "list": ("[a]\n", "1:1: must be a mapping of keys (app, path, groups, …) at the top"),
    "text": ("hello\n", "1:1: must be a mapping of keys (app, path, groups, …) at the top"),
    "two documents": (SMALL + "---\na: b\n", "4:1: a second document; an inventory is one document"),
    "byte order mark": (
        b"\xef\xbb\xbf" + SMALL.encode(),
        "1:1: begins with a byte order mark; save it as UTF-8 without one",
    ),
    "utf-16": (SMALL.encode("utf-16"), "1:1: is UTF-16; save it as UTF-8"),
    "latin-1": ("app: caf\xe9\n".encode("latin-1"), "1:9: is not UTF-8; save it as UTF-8"),
    "nul": (b"app: sh\0p\n", "1:8: holds a NUL character"),
    "escape": (b"app: a\n# \x1b[31m\n", "2:3: holds a control character (U+001B)"),
    "tab before a value": ("app:\tshop\n", f"1:5: {BAD}a tab; indent with spaces"),
    "tab before a key": ("app: shop\n\tpath: /x\n", f"2:1: {BAD}a tab; indent with spaces"),
    "second colon": (
        "app: a: b\n",
        f"1:7: {BAD}a second ': ' in one line; put a text that holds ': ' in quotes",
    ),
    "at": ("app: @x\n", f"1:6: {BAD}a text can't begin with '@' unless it is in quotes"),
    "open quote": ('app: "x\n', f"2:1: {BAD}a quote is not closed"),
    "open bracket": ("app: [1, 2\n", f"2:1: {BAD}a '[' is not closed, or a ',' is missing"),
    "address in brackets": ("a: [::1]\n", f"1:5: {BAD}a text that begins with ':' or '[' needs quotes"),
    "beyond unicode": ('app: "\\UFFFFFFFF"\n', f"1:9: {BAD}bad number or escape"),
    "password that looks like an alias": (
        "app: *hunter2\n",
        f"1:6: {BAD}an alias without its anchor; a text that begins with * needs quotes",
    ),
    "alias to itself": ("app: &x [*x]\n", "1:6: holds an alias to itself"),
    "merge of itself": ("x: &x {<<: *x}\n", "1:4: holds an alias to itself"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    content, line = UNREADABLE[name]
    assert problems(tmp_path, content) == [line]


def _bomb() -> str:
    lines = ['a: &a ["lol","lol","lol","lol","lol","lol","lol","lol","lol"]']
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]")
    return "\n".join(lines) + "\n"


def _merge_bomb() -> str:
    lines = ["a: &a {k: 1}"]
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{after}: &{after} {{<<: [{','.join([f'*{before}'] * 9)}]}}")
    return "\n".join(lines) + "\n"


BOMBS = {
    "aliases that multiply": (_bomb(), "too large: more than 100,000 values once its aliases are filled in"),
    "merges that multiply": (
        _merge_bomb(),
        "too large: more than 100,000 values once its aliases are filled in",
    ),
    "many aliases": ("a: &a 1\nb: [" + "*a," * 101 + "]\n", "more than 100 aliases"),
    "nested lists": ("[" * 20_000, "nested deeper than 20 levels"),
    "nested mappings": ("{a: " * 20_000, "nested deeper than 20 levels"),
    "nested dashes": ("- " * 20_000, "nested deeper than 20 levels"),
    "many values": ("x-a: [" + "a," * 300_000 + "]\n", "too large: more than 100,000 values"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_quickly(tmp_path: Path, name: str) -> None:
    content, text = BOMBS[name]
    started = time.process_time()
    (line,) = problems(tmp_path, content)
    assert line.endswith(text)
    assert time.process_time() - started < 10


def test_a_file_beyond_1_mib_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "#" * (1024 * 1024 + 1)) == [" is larger than 1 MiB"]


def test_a_missing_file_hints_at_the_option_and_the_variable(tmp_path: Path) -> None:
    with inside(tmp_path), pytest.raises(InventoryError) as caught:
        load_inventory("prod\x1b.yaml")
    assert caught.value.problems == ("prod\\x1b.yaml: no such file",)
    assert caught.value.hint == "name the inventory with -i FILE or in DEPLOYCTL_INVENTORY"
    assert caught.value.exit_code is Exit.INVENTORY


def test_a_directory_a_fifo_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    expected = {
        "folder": "is a directory, not a file",
        "fifo": "is not a regular file",
        "/dev/null": "is not a regular file",
        "a\0b": "cannot be read: not a file name",
        "": "no such file",
        "x" * 300: "cannot be read: File name too long",
    }
    for name, text in expected.items():
        with inside(tmp_path), pytest.raises(InventoryError) as caught:
            load_inventory(name)
        assert caught.value.message.endswith(f": {text}")


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(InventoryError, match="cannot be read: Too many levels of symbolic links"):
        load_inventory(loop)


def test_keys_for_anchors_are_ignored_everywhere_and_merged(tmp_path: Path) -> None:
    inventory = load(
        tmp_path,
        """\
        x-ssh: &ssh {user: deploy, port: 2222}
        x-more: [1, {anything: [~]}]
        app: shop
        path: /srv/shop
        ssh: {<<: *ssh, user: me, x-note: hello}
        groups:
          x-old: {hosts: [gone]}
          web: {hosts: [{name: a, x-rack: 7}], vars: {x-y: 1}}
        """,
    )
    (host,) = inventory.hosts
    assert (host.user, host.port, host.vars) == ("me", 2222, {})
    assert dict(inventory.groups) == {"web": ("a",)}


def test_of_several_merged_mappings_the_first_wins(tmp_path: Path) -> None:
    text = SMALL + "x-a: &a {user: one}\nx-b: &b {user: two, port: 5}\nssh: {<<: [*a, *b]}\n"
    (host,) = load(tmp_path, text).hosts
    assert (host.user, host.port) == ("one", 5)


def test_duplicate_keys_are_told_with_both_lines_among_the_rest(tmp_path: Path) -> None:
    assert problems(tmp_path, SMALL + "app: x\nssh: {user: a, user: b, port: x}\n") == [
        "4:1: app: duplicate key (first on line 1)",
        "5:16: ssh.user: duplicate key (first on line 5)",
        "5:31: ssh.port: must be a whole number, not text; write it without quotes",
    ]


def test_tags_are_refused_and_only_those_of_yaml_repeated(tmp_path: Path) -> None:
    quotes = "is not supported here; a text that begins with ! needs quotes"
    found = problems(
        tmp_path, SMALL + "vars:\n  A: !!python/object:os.system x\n  B: !hunter2\n  C: !!set {a}\n"
    )
    assert found == [
        f"5:6: vars.A: tag !!python/object:os.system {quotes}",
        f"6:6: vars.B: tag {quotes}",
        f"7:6: vars.C: tag !!set {quotes}",
    ]
