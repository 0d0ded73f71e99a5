"""The manifest's text and digest, and the listing a host gives, each against something that isn't ours."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.artifact.manifest import Entry, Manifest, escape, shape_digest, shape_lines, unescape
from deployctl.artifact.pack import pack
from tests.artifact.trees import make_nasty_tree, run, simple_manifest, tool, walked

A = hashlib.sha256(b"a").hexdigest()


def test_text_and_digest_of_a_fixed_tree() -> None:
    manifest = Manifest.of(
        [
            Entry("f", 0o644, 1, A, b"b\\c \xff\n"),
            Entry("d", 0o755, 0, "-", b"a"),
            Entry("l", 0o777, 1, A, b"a/link"),
            Entry("f", 0o600, 1, A, b"a-b"),
        ]
    )
    assert manifest.to_bytes() == (
        b"d 0755 0 - a\n"
        b"f 0600 1 ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb a-b\n"
        b"l 0777 1 ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb a/link\n"
        b"f 0644 1 ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb b\\x5cc \\xff\\x0a\n"
    )
    assert manifest.digest == "c34bc884775534c1029e0efe94469d67865aff25be0b7df3bd8bf74beea726a0"
    assert manifest.size_bytes == 2
    assert manifest.files == 2


def test_empty_manifest_is_the_digest_of_nothing() -> None:
    assert Manifest(()).digest == hashlib.sha256(b"").hexdigest()
    assert Manifest.from_bytes(b"") == Manifest(())


@given(st.binary(min_size=1))
def test_escaping_gives_printable_ascii_and_comes_back(path: bytes) -> None:
    text = escape(path)
    assert all(" " <= character <= "~" for character in text)
    assert unescape(text) == path


@pytest.mark.parametrize("text", ["a\\b", "\\x4", "\\x41", "\\xFF", "é", "\n", "\\xg0", "\\x5C"])
def test_unescape_refuses_what_escape_never_makes(text: str) -> None:
    with pytest.raises(ValueError, match="not an escaped path"):
        unescape(text)


def _names() -> st.SearchStrategy[bytes]:
    return (
        st.binary(min_size=1, max_size=8)
        .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
        .filter(lambda name: name not in {b".", b".."})
    )


@given(st.sets(_names()), st.sets(_names()), st.integers(0, 0o777), st.integers(0, 2**70))
def test_text_comes_back_as_the_same_manifest(
    top: set[bytes], inner: set[bytes], mode: int, size: int
) -> None:
    entries = [Entry("f", mode, size, A, name) for name in top - {b"dir"}]
    entries += [
        Entry("d", mode, 0, "-", b"dir"),
        *(Entry("l", 0o777, size, A, b"dir/" + name) for name in inner),
    ]
    manifest = Manifest.of(entries)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"f 0644 1 {A} a", "newline"),
        (f"f 644 1 {A} a\n", "line 1"),
        (f"f 4755 1 {A} a\n", "line 1"),
        (f"f 0644 01 {A} a\n", "line 1"),
        (f"f 0644 -1 {A} a\n", "line 1"),
        (f"f 0644 1 {A.upper()} a\n", "line 1"),
        ("f 0644 1 - a\n", "directory"),
        (f"d 0755 0 {A} a\n", "directory"),
        ("d 0755 1 - a\n", "directory"),
        (f"l 0755 1 {A} a\n", "0777"),
        (f"p 0644 1 {A} a\n", "line 1"),
        (f"f 0644 1 {A} \n", "line 1"),
        (f"f 0644 1 {A} /a\n", "relative"),
        (f"f 0644 1 {A} a/\n", "relative"),
        (f"f 0644 1 {A} a\\x00\n", "relative"),
        ("d 0755 0 - a\nd 0755 0 - a/..\n", "relative"),
        ("d 0755 0 - a\nd 0755 0 - a/./b\n", "relative"),
        ("d 0755 0 - b\nd 0755 0 - a\n", "line 2: out of order"),
        ("d 0755 0 - a\nd 0755 0 - a\n", "twice"),
        (f"f 0644 1 {A} a/b\n", "not a directory"),
        (f"f 0644 1 {A} a\nf 0644 1 {A} a/b\n", "not a directory"),
        ("d 0755 0 - a\r\n", "line 1"),
        ("\n", "line 1"),
    ],
)
def test_reading_is_strict(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Manifest.from_bytes(line.encode())


def test_reading_refuses_raw_bytes() -> None:
    with pytest.raises(ValueError, match="line 1"):
        Manifest.from_bytes(b"d 0755 0 - \xff\n")


FIND = r"""cd "$1" && find . -mindepth 1 \( -type l -printf 'l %m %p\002%l\0' -o -printf '%y %m %p\0' \) | tr '\0\n' '\n\001' | LC_ALL=C sort"""


def test_shape_is_what_find_lists(tmp_path: Path, out: Path) -> None:
    tool("find")
    tree = make_nasty_tree(tmp_path / "tree")
    (tree / "no-rights").write_bytes(b"")
    (tree / "no-rights").chmod(0)
    for name in (b"same", b"same\x01", b"same\n", b"same\x02", b"same "):
        (tree / os.fsdecode(name)).write_bytes(b"")
    if os.geteuid() != 0:
        (tree / "no-rights").chmod(0o400)
    packed = pack(walked(tree), out)
    (tree / "storage").mkdir()
    (tree / "storage" / "deep").mkdir(mode=0o755)
    (tree / "storage" / "deep" / "logs").symlink_to("../../../../shared/storage/deep/logs")
    (tree / "dirs" / "env").symlink_to("../../../shared/dirs/env")
    extra = {
        b"storage/deep/logs": b"../../../../shared/storage/deep/logs",
        b"dirs/env": b"../../../shared/dirs/env",
    }
    listing = run("sh", "-c", FIND, "sh", tree)
    assert b"".join(shape_lines(packed.manifest, extra, link_texts=packed.links)) == listing
    assert (
        shape_digest(packed.manifest, extra, link_texts=packed.links) == hashlib.sha256(listing).hexdigest()
    )


def test_shape_needs_the_text_of_every_link() -> None:
    with pytest.raises(ValueError, match="the text of the link a is not known"):
        shape_lines(Manifest((Entry("l", 0o777, 1, A, b"a"),)))


def test_manifest_equals_one_made_by_other_means(tmp_path: Path, out: Path) -> None:
    tree = make_nasty_tree(tmp_path / "tree")
    packed = pack(walked(tree), out)
    expected = simple_manifest(tree)
    assert packed.manifest.to_bytes() == expected
    assert packed.tree_digest == packed.manifest.digest == hashlib.sha256(expected).hexdigest()
    assert Manifest.from_bytes(expected) == packed.manifest


def test_digest_ignores_times_and_owner_but_not_modes(tmp_path: Path, out: Path) -> None:
    tree = make_nasty_tree(tmp_path / "tree")
    first = pack(walked(tree), out).tree_digest
    os.utime(tree / "plain.txt", (5, 5))
    assert pack(walked(tree), out).tree_digest == first
    (tree / "plain.txt").chmod(0o600)
    assert pack(walked(tree), out).tree_digest != first
