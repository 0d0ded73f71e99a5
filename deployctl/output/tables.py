"""What commands that read have found, as aligned lines for people; pure, from the facts in their `host` events.

Hosts that answered the same share a line. Facts come from hosts: whatever is missing or of an unexpected type is shown as empty.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from deployctl.output import numbers
from deployctl.output.causes import Fold
from deployctl.output.view import number, text

Answers = Mapping[str, Mapping[str, Any]]
_WIDEST = 60  # of a column that is padded
_NAMES = 20  # differing files shown for each host
_KINDS = ("changed", "missing", "extra")


def table(command: str, answers: Answers, finished: Mapping[str, Any], fold: Fold) -> list[str]:
    """Return the lines of one of status, releases, verify and history; none for another command."""
    make: dict[str, Callable[[Answers, Mapping[str, Any], Fold], list[str]]] = {
        "status": _status,
        "releases": _releases,
        "verify": _verify,
        "history": _history,
    }
    return make[command](answers, finished, fold) if command in make else []


def _status(answers: Answers, finished: Mapping[str, Any], fold: Fold) -> list[str]:
    def line(facts: Mapping[str, Any]) -> tuple[str, ...]:
        if not text(facts, "live"):
            return ("nothing", "", "", _remarks(facts))
        return (text(facts, "live"), _by(facts), _remarks(facts))

    rows = []
    for names in _alike(answers, line):
        facts = answers[names[0]]
        since = min((text(answers[name], "since") for name in names), default="")
        live = text(facts, "live") or "nothing"
        rows.append((fold(names), live, _time(since), _by(facts), _remarks(facts)))
    return [*_columns(("HOSTS", "LIVE", "SINCE", "BY", ""), rows), *_lagging(finished, fold)]


def _remarks(facts: Mapping[str, Any]) -> str:
    told = []
    if text(facts, "live") and facts.get("digest") is None:
        told.append("not a release of ours")
    elif text(facts, "live") and facts.get("confirmed") is not True:
        told.append("not confirmed: the run that switched it did not end well; the next push does it")
    if message := text(facts, "message"):
        told.append(message)
    if staged := facts.get("staged"):
        told.append(f"staged: {', '.join(map(str, staged))}" if isinstance(staged, Sequence) else "")
    if isinstance(lock := facts.get("lock"), Mapping):
        told.append(f"locked by {_by(lock)}, since {_time(text(lock, 'since'))}")
    return "; ".join(filter(None, told))


def _lagging(finished: Mapping[str, Any], fold: Fold) -> list[str]:
    if finished.get("differ") is not True:
        return []
    lagging = finished.get("lagging")
    names = [str(name) for name in lagging] if isinstance(lagging, Sequence) else []
    lines = [f"hosts differ: {fold(names)} do not serve {text(finished, 'usual')}" if len(names) > 1 else ""]
    if len(names) == 1:
        lines = [f"hosts differ: {names[0]} does not serve {text(finished, 'usual')}"]
    return [*lines, f"mend it with: {text(finished, 'mend')}"]


def _releases(answers: Answers, _finished: Mapping[str, Any], fold: Fold) -> list[str]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for host, facts in answers.items():
        for entry in _list(facts.get("releases")):
            found.setdefault(text(entry, "release"), {})[host] = entry
    rows = []
    for release in sorted(found, reverse=True):
        holders = found[release]
        first = next(iter(holders.values()))
        live = [host for host, entry in holders.items() if entry.get("live") is True]
        good = [host for host, entry in holders.items() if entry.get("confirmed") is True]
        confirmed = "yes" if len(good) == len(holders) else f"on {fold(good)}" if good else "no"
        since = min(filter(None, (text(entry, "since") for entry in holders.values())), default="")
        size = numbers.size(number(first, "bytes")) if first.get("bytes") is not None else ""
        about = (_time(since), _by(first), text(first, "message"))
        rows.append((release, fold(live), fold(holders), confirmed, size, *about))
    if not rows:
        return ["no release"] if answers else []
    return _columns(("RELEASE", "LIVE ON", "HELD BY", "CONFIRMED", "SIZE", "ACTIVATED", "BY", ""), rows)


def _verify(answers: Answers, finished: Mapping[str, Any], fold: Fold) -> list[str]:
    def found(facts: Mapping[str, Any]) -> tuple[str, ...]:
        kinds = (repr(facts.get(kind)) for kind in (*_KINDS, "counts", "told"))
        return (text(facts, "live"), *kinds)

    lines = []
    for names in _alike(answers, found):
        facts = answers[names[0]]
        counts = [f"{count} {kind}" for kind in _KINDS if (count := number(facts.get("counts"), kind))]
        told = ", ".join(counts) or text(facts, "told") or "as released"
        if facts.get("digest") is None and not counts:
            told = text(facts, "told") or "no manifest to compare it with"
        if not text(facts, "live"):
            told = "nothing to compare"
        lines.append(f"{fold(names)}: {text(facts, 'live') or 'nothing'}: {told}")
        for kind in _KINDS:
            differing = facts.get(kind)
            named = sorted(differing.items()) if isinstance(differing, Mapping) else []
            lines += [f"  {kind:<8} {path} ({what})" for path, what in named[:_NAMES]]
            if (more := number(facts.get("counts"), kind) - len(named[:_NAMES])) > 0:
                lines.append(f"  {kind:<8} … and {more} more")
    return [*lines, *_lagging(finished, fold)]


def _history(_answers: Answers, finished: Mapping[str, Any], _fold: Fold) -> list[str]:
    rows = []
    for run in _list(finished.get("history")):
        outcome = text(run, "outcome") + (f" ({text(run, 'exit_code')})" if number(run, "exit_code") else "")
        told = [text(run, "message"), f"commit {text(run, 'commit')[:12]}" if text(run, "commit") else ""]
        what = (text(run, "command") or "?", text(run, "release"), outcome, text(run, "hosts"))
        rows.append((_time(text(run, "started")), *what, _by(run), "; ".join(filter(None, told))))
    if not rows:
        return ["nothing was released yet"]
    return _columns(("WHEN", "COMMAND", "RELEASE", "OUTCOME", "HOSTS", "BY", ""), rows)


# ---- pieces ---------------------------------------------------------------------------------------------------------


def _alike(answers: Answers, key: Callable[[Mapping[str, Any]], Hashable]) -> list[list[str]]:
    """Return the hosts in groups of equal facts, in their order."""
    groups: dict[Hashable, list[str]] = {}
    for name, facts in answers.items():
        groups.setdefault(key(facts), []).append(name)
    return list(groups.values())


def _list(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, (list, tuple)) else []


def _by(facts: Mapping[str, Any]) -> str:
    user, machine = text(facts, "user"), text(facts, "machine")
    return f"{user}@{machine}" if machine else user


def _time(stamp: str) -> str:
    """`2026-11-24 12:04:31Z` of a stamp with milliseconds."""
    return f"{stamp[:10]} {stamp[11:19]}Z" if len(stamp) >= 20 else stamp


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned lines; a column that is empty in every row is left out."""
    whole = [tuple(head), *(tuple(row) for row in rows)]
    if not whole[1:]:
        return []
    used = [i for i in range(len(head)) if any(row[i] for row in whole[1:])]
    widths = {i: min(_WIDEST, max(len(row[i]) for row in whole)) for i in used}
    return ["  ".join(row[i].ljust(widths[i]) for i in used).rstrip() for row in whole]
