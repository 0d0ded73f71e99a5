"""The last words of a run for every outcome, as text."""

from __future__ import annotations

from typing import Any

from deployctl.output.summary import Summary, summarize
from tests.output import events as e

WEB = ("web01", "web02", "web03")


def told(finished: e.Event, **more: Any) -> Summary:
    return summarize(finished, fold=e.fold, **{"started": e.started(), "probed": set(WEB), **more})


def everywhere(state: str = "ok", live: str | None = e.RELEASE) -> e.Event:
    merged: e.Event = {}
    for name in WEB:
        merged |= e.end(name, state, live)
    return merged


def test_released() -> None:
    assert told(e.finished("released", everywhere())) == (
        [
            "shop 20261123T204315Z-1a2b3c4d is live on 3 hosts: web[01-03]",
            "sent 37.2 MB in 8.2 s; all switched within 0.04 s",
        ],
        [],
    )


def test_released_though_some_hosts_failed() -> None:
    hosts = everywhere() | e.end("web02", "failed", e.BEFORE, 31, e.NO_SPACE)
    failure = e.failed("web02", "upload", 31, e.NO_SPACE)
    assert told(e.finished("released", hosts, 22), failures=[failure]) == (
        [
            "shop 20261123T204315Z-1a2b3c4d is live on 2 of 3 hosts:",
            "  20261123T204315Z-1a2b3c4d  web[01,03]",
            "  20261120T101500Z-99887766  web02",
            "sent 37.2 MB in 8.2 s; all switched within 0.04 s",
        ],
        [f"deployctl: error: web02: upload: {e.NO_SPACE}"],
    )


def test_unchanged() -> None:
    assert told(e.finished("unchanged", everywhere())).lines == [
        "shop 20261123T204315Z-1a2b3c4d is already live on 3 hosts: web[01-03]; nothing to do"
    ]


def test_staged() -> None:
    end = e.finished("staged", everywhere(live=e.BEFORE), skew_s=None)
    assert told(end).lines == [
        "shop 20261123T204315Z-1a2b3c4d is staged on 3 hosts: web[01-03]; nothing live has changed",
        "sent 37.2 MB in 8.2 s",
        "make it live with: deployctl activate 20261123T204315Z-1a2b3c4d",
    ]
    assert told({**end, "activate": "deployctl activate -i x.yaml X"}).lines[-1] == (
        "make it live with: deployctl activate -i x.yaml X"
    )


def test_planned() -> None:
    plan = {"action": "upload", "bytes_to_send": 12_400_000, "from": e.BEFORE, "to": e.RELEASE}
    plan |= {"added": 3, "changed": 12, "removed": 1}
    first = {"action": "upload", "bytes_to_send": 40_000_000, "from": None, "to": e.RELEASE}
    same = {"action": "unchanged", "bytes_to_send": 0, "from": e.RELEASE, "to": e.RELEASE}
    plans = {"web01": plan, "web02": plan, "web03": first, "web04": same}
    assert told(e.finished("planned", everywhere()), plans=plans).lines == [
        "dry run of shop 20261123T204315Z-1a2b3c4d: nothing was changed",
        "  web[01-02]  send 12.4 MB; 3 files added, 12 changed, 1 removed since 20261120T101500Z-99887766",
        "  web03       send 40.0 MB; its first release",
        "  web04       unchanged: 20261123T204315Z-1a2b3c4d",
        "would send 64.8 MB to 3 hosts",
    ]


def test_aborted() -> None:
    events = e.aborted_push()
    failures = [event for event in events if event.get("state") == "failed"]
    assert told(events[-1], failures=failures) == (
        [
            "push aborted: no live host changed",
            "stopped: web[01-02]",
            "never contacted: web04",
            "live now:",
            "  20261120T101500Z-99887766  web[01-03]",
            "  not known                  web04",
        ],
        [f"deployctl: error: web03: upload: {e.NO_SPACE}", f"deployctl: hint: {e.NO_SPACE_HINT}"],
    )


def test_the_same_cause_on_many_hosts_is_one_line() -> None:
    failures = [
        e.failed("web01", "connect", 10, "web01:22 refused the connection", "is sshd running on web01?"),
        e.failed("web02", "connect", 10, "web02:22 refused the connection", "is sshd running on web02?"),
        e.failed("web03", "upload", 31, "no space left on /srv (needs 120 MB, has 5 MB)"),
        e.failed("web04", "upload", 31, "no space left on /srv (needs 120 MB, has 4 MB)"),
        e.failed("web1", "connect", 10, "web1:22 refused the connection"),
        e.failed("web05", "stage", 31, "no space left on /srv (needs 120 MB, has 4 MB)"),
    ]
    assert told(e.finished("aborted", {}, 20), failures=failures).problems == [
        "deployctl: error: web[01,02,1]: connect: web[01,02,1]:22 refused the connection",
        "deployctl: hint: is sshd running on web[01,02,1]?",
        "deployctl: error: web[03-04]: upload: no space left on /srv (needs 120 MB, has 5 MB) (numbers of web03)",
        "deployctl: error: web05: stage: no space left on /srv (needs 120 MB, has 4 MB)",
    ]


def test_hundreds_of_kinds_of_failure_stay_readable() -> None:
    failures = [e.failed(f"web{i:03}", "upload", 61, f"kind {i}") for i in range(300)]
    problems = told(e.finished("aborted", {}, 20), failures=failures).problems
    assert len(problems) == 21
    assert problems[-1] == "deployctl: error: web[020-299]: 280 more kinds of failure"


def test_a_failed_hook_shows_its_last_words() -> None:
    failure = e.failed("web01", "activate", 40, "hook `./reload` ended with 3")
    problems = told(
        e.finished("reverted", everywhere("reverted", e.BEFORE), 21),
        failures=[failure],
        tails={"web01": ["no such unit"]},
    ).problems
    assert problems == [
        "web01 | no such unit",
        "deployctl: error: web01: activate: hook `./reload` ended with 3",
    ]


def test_reverted_to_what_they_served_and_to_nothing() -> None:
    hosts = everywhere("reverted", e.BEFORE) | e.end("web03", "reverted", None)
    assert told(e.finished("reverted", hosts, 21)).lines == [
        "push reverted: every host is back on what it served",
        "live now:",
        "  20261120T101500Z-99887766  web[01-02]",
        "  nothing                    web03",
    ]


def test_mixed_says_who_serves_what_and_what_mends_it() -> None:
    hosts = everywhere("reverted", e.BEFORE)
    hosts |= e.end("web02", "failed", None, 20, "connection lost") | e.end(
        "web03", "failed", e.RELEASE, 40, "hook"
    )
    failure = e.failed("web03", "revert", 40, "hook failed")
    end = e.finished("mixed", hosts, 22, mend="deployctl push ./build")
    assert told(end, failures=[failure]) == (
        [
            "push left hosts that differ",
            "live now:",
            "  20261123T204315Z-1a2b3c4d  web03",
            "  20261120T101500Z-99887766  web01",
            "  not known                  web02",
            "mend it with: deployctl push ./build",
        ],
        ["deployctl: error: web03: revert: hook failed", "deployctl: error: web02: connection lost"],
    )


def test_interrupted_before_and_after_the_first_switch() -> None:
    before = told(e.finished("interrupted", everywhere("cancelled", e.BEFORE), 130)).lines
    assert before[:2] == ["push interrupted: no live host changed", "stopped: web[01-03]"]
    after = told(e.finished("interrupted", everywhere("reverted", e.BEFORE), 143)).lines
    assert after[0] == "push interrupted: every host is back on what it served"


def test_refused_tells_each_problem_once() -> None:
    end = e.finished(
        "refused", {}, 10, release=None, message="hosts.yaml:3:1: path: missing\nhosts.yaml:4:1: x"
    )
    assert told(end) == (
        ["push refused: nothing was changed"],
        ["deployctl: error: hosts.yaml:3:1: path: missing", "deployctl: error: hosts.yaml:4:1: x"],
    )


def test_other_commands() -> None:
    run = e.started(command="run")
    assert told(e.finished("ok", everywhere()), started=run).lines == [
        "run: ok on 3 hosts: web[01-03] in 8.2 s"
    ]
    hosts = everywhere() | e.end("web02", "failed", None, 40, "exit status 3")
    assert told(e.finished("failed", hosts, 20), started=run) == (
        ["run: failed on 1 of 3 hosts in 8.2 s"],
        ["deployctl: error: web02: exit status 3"],
    )
    assert told(e.finished("ok", everywhere()), started=e.started(command="status")).lines == []


def test_causes_that_differ_in_ports_and_made_up_names_alone_are_one() -> None:
    failures = [
        e.failed(f"web0{n}", "connect", 10, f"127.0.0.1:3633{n}: connection refused, 3 attempts")
        for n in (1, 2)
    ]
    failures += [
        e.failed(f"web0{n}", "upload", 31, f"/srv/web0{n}/incoming/6f44d0a2e47c47e{n}/part: full")
        for n in (3, 4)
    ]
    assert told(e.finished("aborted", {}, 20), failures=failures).problems == [
        "deployctl: error: web[01-02]: connect: 127.0.0.1:36331: connection refused, 3 attempts (numbers of web01)",
        "deployctl: error: web[03-04]: upload: /srv/web[03-04]/incoming/6f44d0a2e47c47e3/part: full (numbers of web03)",
    ]


def test_a_run_that_never_began() -> None:
    end = e.finished("failed", {}, 1, command="push", message="KeyError: x", hint="please report it")
    assert summarize(end, fold=e.fold) == (
        ["push: failed"],
        ["deployctl: error: KeyError: x", "deployctl: hint: please report it"],
    )
