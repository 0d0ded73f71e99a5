"""What people read of run, copy, prune and unlock: the last lines, and destinations that can be none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from deployctl.errors import UsageError
from deployctl.output.summary import summarize
from deployctl.release.copy import checked_destination
from deployctl.release.prune import told


def last_lines(command: str, outcome: str, state: str = "ok") -> list[str]:
    def fold(names: Iterable[str]) -> str:
        return ",".join(names)

    hosts = {"web01": {"state": state, "code": 0, "message": "", "live": "20261123T204315Z-1a2b3c4d"}}
    finished = {"outcome": outcome, "exit_code": 0, "hosts": hosts, "elapsed_s": 1.0}
    return summarize(finished, fold=fold, started={"command": command, "app": "shop"}).lines


@pytest.mark.parametrize(
    ("command", "outcome", "state", "line"),
    [
        ("copy", "ok", "ok", "copy: ok on 1 host: web01 in 1.0 s"),
        ("copy", "unchanged", "ok", "copy: nothing to do on 1 host: web01"),
        ("copy", "aborted", "failed", "copy aborted: no host changed"),
        ("copy", "reverted", "reverted", "copy reverted: every host is back on what it had"),
        ("copy", "interrupted", "reverted", "copy interrupted: every host is back on what it had"),
        ("run", "interrupted", "ok", "run interrupted"),
        ("prune", "interrupted", "ok", "prune interrupted"),
        ("unlock", "aborted", "failed", "unlock aborted: no host changed"),
    ],
)
def test_they_speak_of_no_release(command: str, outcome: str, state: str, line: str) -> None:
    assert last_lines(command, outcome, state) == [line]


def test_what_was_pruned_in_words() -> None:
    nothing = {"removed": [], "artifacts": 0, "leftovers": 0}
    assert told(nothing) == "nothing to remove"
    assert told({**nothing, "removed": ["a"], "leftovers": 1}) == "removed 1 release, 1 leftover of dead runs"
    assert told({**nothing, "removed": ["a", "b"], "artifacts": 3}) == "removed 2 releases, 3 artifacts"


def test_destinations() -> None:
    assert checked_destination("/etc/app.conf") == "/etc/app.conf"
    assert checked_destination("/etc//") == "/etc/"
    assert checked_destination("/") == "/"
    assert checked_destination("~/app.conf") == "app.conf"
    for wrong in ("", "~", "~other/x", "/a\nb", "/a\x1b[31m"):
        with pytest.raises(UsageError):
            checked_destination(wrong)
    with pytest.raises(UsageError, match="no name"):
        checked_destination("/etc/", nameless=True)
