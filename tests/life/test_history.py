"""The history: kept on the hosts and here, whatever becomes of a run; never a secret in it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deployctl.host.reading import activations, last_of, release_before
from tests.life.kit import Story
from tests.life.test_status import plain


@pytest.fixture
def file(own_environment: Path) -> Path:
    return own_environment / "xdg-state/deployctl/history.jsonl"


def kept(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.hosts(3)
@pytest.mark.sshd
def test_every_run_that_changes_hosts_is_written_down_here(story: Story, file: Path) -> None:
    lab = story.lab
    one, two = story.releases("one", "two")
    assert story.push("three", "--dry-run").code == 0
    lab["h02"].gate("activate.mv")
    failed = story.push("three", "--message", "breaks")
    lab["h02"].mend()
    back = story.rollback()
    assert story.run("status").code == 0
    runs = kept(file)
    told = [(r["command"], r["outcome"], r["exit_code"], r["release"]) for r in runs]
    assert told == [
        ("push", "released", 0, one),
        ("push", "released", 0, two),
        ("push", "reverted", 21, failed.release),
        ("rollback", "released", 0, back.release),
    ]
    first = runs[0]
    assert (first["app"], first["hosts"], first["hosts_total"]) == ("shop", "h[01-03]", 3)
    assert (first["source"], first["message"]) == (str(story.site), "release one")
    assert first["digest"].startswith(one[-8:])
    assert first["started"] < first["finished"]
    assert first["bytes_sent"] > 0 == runs[3]["bytes_sent"]
    assert first["failures"] == {}
    assert runs[2]["failures"]["h02"]["phase"] == "activate"
    assert {r["run"] for r in runs[:2]} == {
        json.loads(line)["run"] for line in lab["h01"].history.splitlines()[:4]
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.hosts(3)
@pytest.mark.sshd
def test_history_puts_together_what_is_known_here_and_there(story: Story, file: Path) -> None:
    one, two = story.releases("one", "two")
    story.rollback("--message", "slow")
    read = story.run("history")
    assert (read.code, read.outcome) == (0, "ok")
    assert [(r["command"], r["release"]) for r in read.last["history"]] == [
        ("rollback", one),
        ("push", two),
        ("push", one),
    ]
    lines = [event for event in read.events if event["event"] == "host"]
    assert [len(event["data"]["records"]) for event in lines] == [6, 6, 6]
    file.unlink()  # somebody else, elsewhere
    there = story.run("history", "--last", "2").last["history"]
    assert [(r["command"], r["release"], r["outcome"], r["hosts"]) for r in there] == [
        ("rollback", one, "released", "h[01-03]"),
        ("push", two, "released", "h[01-03]"),
    ]
    assert there[0]["message"] == "slow"
    head, newest, *_ = plain(story, "history").splitlines()
    assert head.split() == ["WHEN", "COMMAND", "RELEASE", "OUTCOME", "HOSTS", "BY"]
    assert newest.split()[2:6] == ["rollback", one, "released", "h[01-03]"]
    assert story.run("history", "--local").last["history"] == []


@pytest.mark.hosts(3)
@pytest.mark.sshd
def test_a_limit_and_the_inventory_choose_the_runs(story: Story, file: Path) -> None:
    one = story.push("one").release
    two = story.push("two", "-l", "h[01-02]").release
    elsewhere = {
        "run": "1",
        "app": "shop",
        "hosts": "db[1-3],h09",
        "inventory": "/other.yaml",
        "started": "2030",
    }
    with file.open("a") as kept_here:
        kept_here.write(json.dumps(elsewhere) + "\n")

    def told(*arguments: str) -> list[str]:
        return [run["release"] for run in story.run("history", *arguments).last["history"]]

    assert told() == [two, one]
    assert told("-l", "h03") == told("-l", "h03", "--local") == [one]
    assert told("-l", "h02,h03") == told("-l", "h02", "--local") == [two, one]
    assert story.lab.start("history", "--local", "-l", "nobody").finish().code == 2
    gone = kept(file)[0] | {"hosts": "h77", "release": "gone", "started": "2031"}
    file.write_text(json.dumps(gone) + "\n")
    assert told("--local") == ["gone"]  # it was of this inventory
    assert told("--local", "-l", "h01") == []


@pytest.mark.sshd
def test_what_only_the_hosts_know_was_staged_is_told_as_such(story: Story, file: Path) -> None:
    staged = story.stage("one")
    file.unlink()
    [run] = story.run("history").last["history"]
    assert (run["release"], run["outcome"]) == (staged, "staged")


@pytest.mark.sshd
def test_torn_lines_and_other_apps_are_passed_over_and_nothing_secret_is_kept(
    story: Story, file: Path
) -> None:
    story.configure(hooks={"activated": ["echo $API_TOKEN >&2; exit 1"]})
    story.set_vars(API_TOKEN={"value": "s3cr3t-t0ken", "secret": True})
    file.parent.mkdir(parents=True)
    other = {"run": "1", "app": "other", "command": "push", "started": "2030-01-01T00:00:00.000Z"}
    file.write_text(json.dumps(other) + '\nnot json\n{"run": "2", "app": "sh')
    failed = story.push("one", "--message", "with s3cr3t-t0ken")
    assert failed.outcome == "reverted"
    assert "s3cr3t" not in file.read_text()
    local = story.run("history", "--local")
    assert [(r["run"], r["message"]) for r in local.last["history"]] == [
        (failed.events[0]["run"], "with ***")
    ]
    assert [event["event"] for event in local.events] == ["run_started", "run_finished"]


@pytest.mark.sshd
def test_a_history_that_cannot_be_written_is_a_warning(story: Story, file: Path) -> None:
    file.parent.parent.mkdir(parents=True)
    file.parent.write_text("in the way")
    done = story.push("one")
    assert (done.code, done.outcome) == (0, "released")
    assert "could not be added to" in done.stderr


@pytest.mark.hosts(3)
@pytest.mark.sshd
def test_the_commit_is_kept_and_names_the_source_that_mends(story: Story, file: Path) -> None:
    site = story.tree("one")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *who, "-C", str(site), *words], check=True, env=env)
    commit = subprocess.run(
        ["git", "-C", str(site), "rev-parse", "HEAD"], check=True, env=env, capture_output=True, text=True
    ).stdout.strip()
    assert story.lab.push(site, "--ref", "HEAD").code == 0
    [record] = kept(file)
    assert (record["ref"], record["commit"]) == ("HEAD", commit)
    story.forget("h03")
    assert f"{site} --ref {commit}" in story.run("status").last["mend"]


# ---- the order of activation, from records ---------------------------------------------------------------------------


def told(text: str) -> list[dict[str, str]]:
    """Records from `sA cA sB rB`: switch, confirm, revert."""
    events = {"s": "switch", "c": "confirm", "r": "revert", "u": "unlock"}
    return [{"event": events[word[0]], "release": word[1:]} for word in text.split()]


@pytest.mark.parametrize(
    ("records", "live", "before", "confirmed"),
    [
        ("", None, None, None),
        ("sA cA", "A", None, True),
        ("sA cA sB cB", "B", "A", True),
        ("sA cA sB cB sA cA", "A", "B", True),
        ("sA cA sB cB sC cC sA cA", "A", "C", True),
        ("sA cA sB cB sC rC", "B", "A", True),  # a failed push leaves no trace
        ("sA cA sB cB sA rA", "B", "A", True),  # nor does a failed rollback
        ("sA cA sB cB sC", "C", "B", False),  # killed behind its switch
        ("sA cA sB cB sC", "B", "A", True),  # killed before its switch
        ("sA cA sB cB sA", "A", "B", False),
        ("sA cA sB cB sC cC", "B", "A", True),  # switched by hand
        ("sA cA sB cB cB cB", "B", "A", True),
        ("cA sB uB cB", "B", "A", True),  # the beginning was not read
        ("sA cA sB cB", None, "B", None),
        ("sA cA sB cB", "foreign", "B", None),
    ],
)
def test_the_one_before(records: str, live: str | None, before: str | None, confirmed: bool | None) -> None:
    found: Sequence[Any] = activations(told(records))
    assert release_before(found, live) == before
    last = last_of(found, live)
    assert (last.confirmed if last else None) == confirmed
