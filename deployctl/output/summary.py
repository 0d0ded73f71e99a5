"""The last words of a run: what is live where, then what failed and what to do.

Owns these words; pure, from the events alone, so that a test reads them as text. The lines go to standard output, the
problems to standard error after them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from deployctl.errors import Code, Exit
from deployctl.output import numbers
from deployctl.output.causes import Fold, causes, problem_lines
from deployctl.output.stream import printable
from deployctl.output.tables import table
from deployctl.output.view import READING, number, text

_NOTHING, _UNKNOWN = "nothing", "not known"
RELEASING = frozenset({"push", "rollback", "activate"})  # commands that change what is live
_LOST = frozenset(
    {Code.UNREACHABLE, Code.TIMED_OUT, Code.HOST_KEY, Code.LOGIN, Code.JUMP, Code.LOST}
    | {Code.WORKER_DIED, Code.UNEXPECTED}
)  # after these nobody has looked what the host serves


class Summary(NamedTuple):
    lines: list[str]
    problems: list[str]


def summarize(
    finished: Mapping[str, Any],
    *,
    fold: Fold,
    started: Mapping[str, Any] | None = None,
    failures: Sequence[Mapping[str, Any]] = (),
    plans: Mapping[str, Mapping[str, Any]] | None = None,
    probed: Collection[str] = frozenset(),
    tails: Mapping[str, Sequence[str]] | None = None,
    here: Sequence[str] = (),
    answers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Summary:
    """Tell the end of a run.

    `finished` and `started` are the `run_finished` and `run_started` events, `failures` the `host` events of state
    `failed`, `plans` the data of a dry run's `probe` events by host, `probed` the hosts that were asked what they serve,
    `tails` the last output of hosts where it was not shown yet, `here` that of a hook here that failed and stopped the run,
    `answers` the facts of a command that reads by host.
    """
    end = _End(finished, started or {}, fold, probed)
    outcome = text(finished, "outcome")
    match outcome:
        case "released":
            lines = end.released()
        case "unchanged":
            lines = end.unchanged()
        case "staged":
            lines = end.staged()
        case "planned":
            lines = end.planned(plans or {})
        case "ok" | "failed":
            lines = end.other(outcome, answers or {})
        case _:
            lines = end.not_released(outcome)
    return Summary([printable(line) for line in lines], end.problems(failures, tails, here))


class _End:
    def __init__(
        self, finished: Mapping[str, Any], started: Mapping[str, Any], fold: Fold, probed: Collection[str]
    ) -> None:
        self.finished = finished
        self.command = text(started, "command") or text(finished, "command")
        hosts = finished.get("hosts")
        self.hosts: dict[str, Mapping[str, Any]] = (
            {str(name): entry for name, entry in hosts.items() if isinstance(entry, Mapping)}
            if isinstance(hosts, Mapping)
            else {}
        )
        self.release = text(finished, "release")
        self.what = " ".join(filter(None, (text(started, "app"), self.release))) or "the release"
        self.fold = fold
        self.probed = probed
        self.releases = self.command in RELEASING or not self.command

    def released(self) -> list[str]:
        live = [name for name in self.hosts if self._served(name) == self.release]
        if len(live) == len(self.hosts):
            return [f"{self.what} is live on {self._folded(live)}", self._cost()]
        whole = f"{self.what} is live on {len(live)} of {numbers.hosts(len(self.hosts))}:"
        return [whole, *self.live_where(), self._cost()]

    def unchanged(self) -> list[str]:
        if self.releases:
            return [f"{self.what} is already live on {self._folded(self.hosts)}; nothing to do"]
        return [f"{self.command}: nothing to do on {self._folded(self.hosts)}"]

    def staged(self) -> list[str]:
        command = text(self.finished, "activate") or f"deployctl activate {self.release}"
        staged = [name for name in self.hosts if self._state(name) != "failed"]
        lines = [f"{self.what} is staged on {self._folded(staged)}; nothing live has changed", self._cost()]
        return [*lines, f"make it live with: {command}"]

    def planned(self, plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Hosts with the same plan share a line."""
        groups: dict[str, list[str]] = {}
        for name, plan in plans.items():
            groups.setdefault(plan_text(plan), []).append(name)
        sending = sum(number(plan, "bytes_to_send") > 0 for plan in plans.values())
        to_send = sum(number(plan, "bytes_to_send") for plan in plans.values())
        total = (
            f"would send {numbers.size(to_send)} to {numbers.hosts(sending)}"
            if sending
            else "would send nothing"
        )
        head = f"dry run of {self.what}: nothing was changed"
        return [head, *_columns((self.fold(names), plan) for plan, names in groups.items()), total]

    def not_released(self, outcome: str) -> list[str]:
        command = self.command or "the release"
        nothing = "no live host changed" if self.releases else "no host changed"
        back = f"every host is back on what it {'served' if self.releases else 'had'}"
        heads = {
            "aborted": f"{command} aborted: {nothing}",
            "reverted": f"{command} reverted: {back}",
            "mixed": f"{command} left hosts that differ",
            "refused": f"{command} refused: nothing was changed",
        }
        if outcome == "interrupted":
            switched = any(self._state(name) == "reverted" for name in self.hosts)
            head = f"{command} interrupted: {back if switched else nothing}"
            if not self.releases and self.command != "copy":  # hosts that were done stay so
                head = f"{command} interrupted"
        else:
            head = heads.get(outcome, f"{command} ended: {outcome or 'no outcome was reported'}")
        if outcome == "refused":
            return [head]
        lines = [*self._stopped(), *self._live_now()]
        if mend := text(self.finished, "mend"):
            lines.append(f"mend it with: {mend}")
        return [head, *lines]

    def other(self, outcome: str, answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
        if self.command in READING:
            return table(self.command, answers, self.finished, self.fold)
        if number(self.finished, "exit_code") == Exit.USAGE:
            return [f"{self.command} refused: nothing was changed"]
        failed = [name for name in self.hosts if self._state(name) == "failed"]
        took = numbers.seconds(float(self.finished.get("elapsed_s") or 0))
        if not self.hosts:
            return [f"{self.command}: {outcome}"]
        if outcome == "failed" and not failed and self._stopped():  # the answer to a question was no
            return [f"{self.command}: no host changed", *self._stopped()]
        if outcome == "ok" or not failed:
            return [f"{self.command}: {outcome} on {self._folded(self.hosts)} in {took}"]
        count = f"{len(failed)} of {numbers.hosts(len(self.hosts))}"
        return [f"{self.command}: failed on {count} in {took}", *self._stopped()]

    def live_where(self) -> list[str]:
        """One line for each release served, the run's own first, what is not known last."""
        groups: dict[str, list[str]] = {}
        for name in self.hosts:
            groups.setdefault(self._served(name), []).append(name)
        last = (_NOTHING, _UNKNOWN)
        order = sorted((key for key in groups if key not in last and key != self.release), reverse=True)
        keys = [key for key in (self.release, *order, *last) if key in groups]
        return _columns((key, self.fold(groups[key])) for key in keys)

    def problems(
        self,
        failures: Sequence[Mapping[str, Any]],
        tails: Mapping[str, Sequence[str]] | None,
        here: Sequence[str],
    ) -> list[str]:
        told = {text(event, "host") for event in failures}
        untold = [
            {"host": name, "phase": text(entry, "phase"), **entry}
            for name, entry in self.hosts.items()
            if self._state(name) == "failed" and name not in told
        ]
        lines = problem_lines(causes([*failures, *untold]), self.fold, tails)
        if text(self.finished, "outcome") not in {"released", "unchanged", "staged", "planned", "ok"}:
            said = text(self.finished, "message").splitlines()
            untold_lines = [
                f"deployctl: error: {printable(line)}"
                for line in said
                if not any(printable(line) in known for known in lines)
            ]
            lines += [*here_lines(here), *untold_lines]
        hint = printable(text(self.finished, "hint"))
        if hint and f"deployctl: hint: {hint}" not in lines:
            lines.append(f"deployctl: hint: {hint}")
        return lines

    def _live_now(self) -> list[str]:
        known = self.releases and any(self._served(name) != _UNKNOWN for name in self.hosts)
        if not known:
            return []
        return ["live now:", *self.live_where()]

    def _stopped(self) -> list[str]:
        lines = []
        for state, word in (("cancelled", "stopped"), ("skipped", "never contacted")):
            names = [name for name in self.hosts if self._state(name) == state]
            if names:
                lines.append(f"{word}: {self.fold(names)}")
        return lines

    def _cost(self) -> str:
        sent = number(self.finished, "bytes_sent")
        took = numbers.seconds(float(self.finished.get("elapsed_s") or 0))
        told = f"sent {numbers.size(sent)} in {took}" if sent else f"nothing had to be sent; {took}"
        skew = self.finished.get("skew_s")
        if isinstance(skew, (int, float)) and len(self.hosts) > 1:
            told += f"; all switched within {numbers.seconds(skew)}"
        return told

    def _folded(self, names: Collection[str]) -> str:
        return f"{numbers.hosts(len(names))}: {self.fold(names)}" if names else "no host"

    def _state(self, name: str) -> str:
        return text(self.hosts[name], "state")

    def _served(self, name: str) -> str:
        entry = self.hosts[name]
        if live := text(entry, "live"):
            return live
        if self._state(name) == "failed" and number(entry, "code") in _LOST:
            return _UNKNOWN
        return _NOTHING if name in self.probed or self._state(name) in {"ok", "reverted"} else _UNKNOWN


def here_lines(tail: Iterable[str]) -> list[str]:
    """What a hook printed that runs here, as that of a host: `here | text`."""
    return [printable(f"here | {line}") for line in tail]


def plan_text(plan: Mapping[str, Any]) -> str:
    """What a push would do on a host: `send 12.4 MB; 3 files added, 12 changed, 1 removed since 2026…`."""
    action, live = text(plan, "action"), text(plan, "from")
    if action == "unchanged":
        return f"unchanged: {live}" if live else "unchanged"
    to_send = number(plan, "bytes_to_send")
    told = f"send {numbers.size(to_send)}" if to_send else "send nothing, it has all of it"
    if action == "delta" and to_send:
        told += f" as a delta with {number(plan, 'files_to_send')} files".replace(" 1 files", " 1 file")
    counts = [
        f"{number(plan, key)} {'files ' * (position == 0)}{key}".replace("1 files ", "1 file ")
        if key in plan
        else ""
        for position, key in enumerate(("added", "changed", "removed"))
    ]
    if any(counts):
        told += "; " + ", ".join(filter(None, counts))
    return f"{told} since {live}" if live else f"{told}; its first release"


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = min(44, max((len(left) for left, _ in pairs), default=0))
    return [f"  {left.ljust(width)}  {right}" for left, right in pairs]
