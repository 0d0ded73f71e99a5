"""The disk here takes nothing more: SOURCE is refused in words, and what can be done without is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployctl.artifact.digests import Digests
from deployctl.engine.child import Line, Message
from deployctl.host.layout import list_of_parts
from deployctl.release import packing
from deployctl.release.bases import Bases
from deployctl.release.fleet import Fleet
from deployctl.release.member import Member
from deployctl.release.packing import Source, packer
from tests.release.trees import make_heavy, make_site


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Said:
    """The packer's end of its line; `asked` is what the parent sends, and then its end."""

    def __init__(self, *asked: Message) -> None:
        self.messages: list[Message] = []
        self._asked = list(asked)

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def receive(self, timeout_s: float | None = None) -> Message | None:
        return self._asked.pop(0) if self._asked else None


def test_a_manifest_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "work/manifest").mkdir(parents=True)  # stands for a disk that is full
    said = Said()
    packer(Source(make_site(tmp_path / "site", "1"), expects_delta=True), tmp_path / "work")(
        cast("Line", said)
    )
    assert [message["event"] for message in said.messages] == ["walked", "refused"]
    assert said.messages[-1]["problems"] == [f"{tmp_path / 'work'}: cannot be written: Is a directory"]


def test_a_list_of_parts_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    written = packing._write_list

    def full(artifact: Any) -> None:
        path = list_of_parts(artifact.path)
        path.with_name(f".new-{path.name}").mkdir()
        written(artifact)

    monkeypatch.setattr(packing, "_write_list", full)
    said = Said()
    packer(Source(make_heavy(tmp_path / "site", 9000), keeps=False), work)(cast("Line", said))
    assert said.messages[-1]["event"] == "refused"
    assert said.messages[-1]["problems"] == [f"{work}: cannot be written: Is a directory"]


def test_digests_that_cannot_be_forgotten(tmp_path: Path) -> None:
    known = Digests(tmp_path / "cache", tmp_path)
    known._file.mkdir(parents=True)
    known.forget()


@pytest.mark.parametrize("full", [False, True])
def test_a_base_that_cannot_be_written_is_done_without(tmp_path: Path, full: bool) -> None:
    lines = ["f 0644 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 a"]
    digest = hashlib.sha256(f"{lines[0]}\n".encode()).hexdigest()
    if full:
        (tmp_path / f"manifest-{digest}").mkdir()
    facts = SimpleNamespace(base_digest=digest, base="20260101T000000Z-2d711642")
    member = cast("Member", SimpleNamespace(facts=facts, answer={"lines": lines}))
    bases = Bases(cast("Fleet", SimpleNamespace(each=lambda *_arguments, **_options: None)), tmp_path)
    bases.gather([member])
    assert bases.file(digest) == (None if full else tmp_path / f"manifest-{digest}")
