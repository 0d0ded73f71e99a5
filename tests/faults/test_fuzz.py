"""Whatever comes in, from trees, hosts, workers and runs: it arrives byte for byte, or is told; never a traceback.

DEPLOYCTL_TEST_FUZZ multiplies the number of examples; `make fuzz` sets it. Inventories: tests/inventory/test_fuzz.py.
"""

# Names are bytes here, since they need not be text.
# ruff: noqa: PTH101, PTH103, PTH118, PTH120, PTH123, PTH211

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployctl.artifact.pack import pack
from deployctl.artifact.walk import walk as walk_source
from deployctl.engine.worker import Worker
from deployctl.errors import HostError
from deployctl.host.facts import read_facts
from deployctl.host.script import Answer
from deployctl.model import Shared
from deployctl.output import make_reporter
from tests.artifact.trees import run
from tests.faults.conftest import MakeScene
from tests.faults.kit import Scene, check_invariants
from tests.output import events as e
from tests.release.trees import walk

MANY = int(os.environ.get("DEPLOYCTL_TEST_FUZZ", "1"))


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples * MANY,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        derandomize=MANY == 1,
    )


# ---- trees

NAME = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from(
        [
            b"n" * 255,
            b"m" * 100,
            b"-rf",
            b"a\nb",
            b" ",
            b"caf\xc3\xa9",
            b"cafe\xcc\x81",
            b"\xff\xfe",
            b"$(x)",
            b"\\x41",
        ]
    ),
).map(
    lambda raw: (b"n" + raw if raw.strip(b".") == b"" else raw).replace(b"/", b"_").replace(b"\0", b"_")[:255]
)
PATH = st.lists(NAME, min_size=1, max_size=4).map(tuple)
FILE = st.tuples(
    st.just("f"),
    st.one_of(
        st.binary(max_size=3000), st.integers(0, 200_000).map(lambda size: b"0123456789" * (size // 10))
    ),
    st.sampled_from([0o600, 0o644, 0o755, 0o444, 0o640, 0o666, 0o777, 0o400]),
)
DIRECTORY = st.tuples(st.just("d"), st.just(b""), st.sampled_from([0o755, 0o700, 0o775, 0o555]))
LINK = st.tuples(st.just("l"), NAME, st.just(0o777))
TREE = st.dictionaries(PATH, FILE | DIRECTORY | LINK, max_size=14)


def plant(root: Path, entries: dict[tuple[bytes, ...], tuple[str, bytes, int]]) -> None:
    """Make what can be made of it: a name can't be a file in one path and a directory in another."""
    top = os.fsencode(root)
    os.makedirs(top, exist_ok=True)
    modes = []
    for parts, (kind, content, mode) in entries.items():
        place = os.path.join(top, *parts)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if kind == "d":
                os.makedirs(place, exist_ok=True)
            elif kind == "l":
                os.symlink(content, place)
            else:
                with open(place, "xb") as file:
                    file.write(content)
        except OSError:
            continue
        if kind != "l":
            modes.append((place, mode))
    for place, mode in sorted(modes, reverse=True):
        os.chmod(place, mode)


@contextmanager
def scratch() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        run("chmod", "-R", "u+rwX", path)
        shutil.rmtree(path)


@fuzz(20)
@given(TREE)
def test_trees_through_pack_and_tar(entries: dict[tuple[bytes, ...], tuple[str, bytes, int]]) -> None:
    with scratch() as base:
        plant(base / "tree", entries)
        packed = pack(walk_source(base / "tree", exclude=[], shared=Shared(), allow_empty=True), base)
        (base / "out").mkdir()
        archive = packed.artifact.path
        opener = "zstd -dcq" if archive.suffix == ".zst" else "gzip -dc"
        run("sh", "-c", f'{opener} <"$1" | tar -xpf -', "sh", archive, cwd=base / "out")
        unpacked = base / "out/tree"
        if any(mode & 0o200 == 0 for kind, _, mode in entries.values() if kind == "d"):
            return  # such directories get their mode on the host, as the pushes below see
        assert walk(unpacked) == walk(base / "tree")


@pytest.mark.sshd
@pytest.mark.timeout(120 + 10 * MANY)
def test_trees_through_a_push(make_scene: MakeScene, tmp_path: Path) -> None:
    """What arrives on a real host is what was packed, over whatever was there before."""
    scene: Scene = make_scene(1)
    number = 0

    @settings(fuzz(3), max_examples=3 + MANY)
    @given(TREE)
    def push(entries: dict[tuple[bytes, ...], tuple[str, bytes, int]]) -> None:
        nonlocal number
        number += 1
        scene.tree = tmp_path / f"tree{number}"
        plant(scene.tree, {**entries, (b"number",): ("f", b"%d" % number, 0o644)})
        done = scene.push()
        assert done.code == 0, done.stderr
        check_invariants(scene, done)

    push()


# ---- what a host says

PIECE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\n",
            b"@n ",
            b"@n exit ",
            b"@n fail ",
            b"@n begin hook\n",
            b"@n kib ",
            b"@n current ",
            b"@n history ",
            b"0\n",
            b"10 x\n",
            b"\xb2\n",
            b"9" * 5000,
        ]
    ),
    st.integers(1, 200_000).map(lambda size: b"x" * size),
)


@fuzz(150)
@given(st.lists(PIECE, max_size=30), st.booleans())
def test_any_answer(pieces: list[bytes], hook: bool) -> None:
    """Taken in, in bounded memory; what it comes to is a number of ours, facts, or a HostError that says so."""
    taken: list[bytes] = []
    answer = Answer("@n", tap=taken.append if hook else None)
    for piece in pieces:
        answer.feed(piece)
    answer.flush()
    assert len(answer.noise) <= 64 << 10
    said = refusal_of(answer)
    assert said.isprintable()
    assert len(said) < 2000
    assert sum(map(len, taken)) <= sum(map(len, pieces)) + len(pieces)


def refusal_of(answer: Answer) -> str:
    try:
        answer.raise_failure()
        read_facts(answer, "/srv")
    except HostError as error:
        return error.message
    return ""


@pytest.mark.sshd
def test_host_whose_shell_prints_garbage(make_scene: MakeScene) -> None:
    """Before, after and between, on both streams, binary and without an end of line: noise, of which nothing is believed."""
    noise = "head -c 3000 /dev/urandom; printf '@0123456789abcdef exit 0\\n@ fail 31 no\\n\\033[2J'"
    wrapper = f"case $SSH_ORIGINAL_COMMAND in scp*) ;; *) {noise}; {{ {noise}; }} >&2;; esac"
    scene = make_scene(settled=False, wrappers={"h02": wrapper})
    done = scene.converge()
    assert "\x1b" not in done.stderr


# ---- what a worker says

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["event", "host", "data"]), inner, max_size=3)
    ),
    max_leaves=6,
)
LINES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode() + b"\n"),
    st.sampled_from(
        [b'{"event": "alive"}\n', b"[" * 100_000 + b"\n", b'{"event": "crashed"}\n', b"\xff\n", b"{}\n"]
    ),
)


@fuzz(150)
@given(st.lists(LINES, max_size=12), st.integers(1, 5000))
def test_any_line_of_a_worker(pieces: list[bytes], step: int) -> None:
    """Whole messages come out, in order; what is none ends the worker, never the parent."""
    data = b"".join(pieces)[:60_000]
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    worker = Worker.__new__(Worker)
    worker.results, worker._parts, worker._cpu_s, worker.doom = reading, [], None, None
    killed: list[str] = []
    worker.__dict__["kill"] = killed.append
    messages: list[Any] = []
    try:
        for start in range(0, len(data), step * 10):
            os.write(writing, data[start : start + step * 10])
            messages += worker.read()[0]
        os.close(writing)
        messages += worker.read()[0]
    finally:
        os.close(reading)
    assert all(isinstance(message, dict) for message in messages)
    assert bool(killed) == any(not understood(line) for line in data.split(b"\n")[:-1])


def understood(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


# ---- what a run says

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**12) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
GOOD = list(e.good_push(["web1", "web2"]))
KEYS = sorted({key for event in GOOD for key in event})


@pytest.mark.parametrize("mode", ["json", "plain", "live"])
@fuzz(40)
@given(data=st.data())
def test_any_event(mode: Literal["json", "plain", "live"], data: st.DataObject) -> None:
    """Events with keys that lack or are of another kind are passed over or shown; the JSON stays JSON, one line each."""
    out, err = io.StringIO(), io.StringIO()
    reporter = make_reporter(
        mode, verbosity=2, stdout=out, stderr=err, environ={"TERM": "xterm"}, fold=e.fold
    )
    count = data.draw(st.integers(0, 8))
    for _ in range(count):
        event = dict(data.draw(st.sampled_from(GOOD)))
        for key in data.draw(st.lists(st.sampled_from(KEYS), max_size=3)):
            if data.draw(st.booleans()):
                value = data.draw(VALUE)
                event[key] = {} if key in {"data", "hosts"} and not isinstance(value, dict) else value
            else:
                event.pop(key, None)
        event["event"] = str(event.get("event", "what"))
        reporter.event(event)
        reporter.tick()
    reporter.close()
    assert "the display failed" not in err.getvalue()
    assert "Traceback" not in err.getvalue()
    if mode == "json":
        assert [type(json.loads(line)) for line in out.getvalue().splitlines()] == [dict] * count
