"""Failures of hosts, put together where the cause is the same.

Owns what counts as the same cause and the lines it is told in; pure. A hundred hosts without space are one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployctl.errors import Code
from deployctl.output.stream import printable
from deployctl.output.view import number, text

Fold = Callable[[Iterable[str]], str]

# What differs between hosts though the cause is the same: amounts, ports, made-up names.
_VARYING = re.compile(r"\d+(?:\.\d+)?(?= ?(?:B|[kKMGT]i?B|s|ms|min|%)\b)|(?<=:)\d+\b|\b[0-9a-f]{12,}\b")
_MOST = 20  # causes told one by one


@dataclass(slots=True)
class Cause:
    """One cause: the hosts it hit in the order they failed, and its message with `{hosts}` where a host's name stood."""

    phase: str
    code: int
    message: str
    hint: str
    hosts: list[str]
    alike: bool = False  # the message holds numbers that differ between the hosts

    def line(self, fold: Fold, longest: int | None = None) -> str:
        """`web[01-03]: upload: no space left on /srv (needs 120 MB, has 4 MB)`.

        Hosts that would take more than `longest` letters are only counted.
        """
        folded = fold(self.hosts)
        if longest is not None and len(folded) > longest and len(self.hosts) > 1:
            folded = f"{len(self.hosts)} hosts"
        told = f"{folded}: {self.phase}: " if self.phase else f"{folded}: "
        told += self.message.replace("{hosts}", folded)
        if self.alike:
            told += f" (numbers of {self.hosts[0]})"
        return printable(told)

    def hint_line(self, fold: Fold) -> str:
        return printable(self.hint.replace("{hosts}", fold(self.hosts)))


def causes(failures: Iterable[Mapping[str, Any]]) -> list[Cause]:
    """Group `host` events of state `failed` by cause, in the order in which the causes came up."""
    found: dict[tuple[str, int, str], Cause] = {}
    for event in failures:
        host, phase, code = text(event, "host"), text(event, "phase"), number(event, "code")
        message = _without_host(text(event, "message"), event) or f"failed with code {code}"
        hint = _without_host(text(event.get("data"), "hint"), event)
        cause = found.setdefault(
            (phase, code, _VARYING.sub("#", message)), Cause(phase, code, message, hint, [])
        )
        if host not in cause.hosts:
            cause.hosts.append(host)
        cause.alike = cause.alike or message != cause.message
        cause.hint = cause.hint or hint
    return list(found.values())


def problem_lines(
    found: Sequence[Cause], fold: Fold, tails: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """The lines for standard error: each cause as an error, then what to do unless an earlier cause had the same hint.

    `tails` holds the last output of each host, shown above a failed hook or check.
    """
    lines: list[str] = []
    hinted: set[str] = set()
    for cause in found[:_MOST]:
        if cause.code in {Code.HOOK, Code.CHECK} and tails:
            lines += [printable(f"{cause.hosts[0]} | {line}") for line in tails.get(cause.hosts[0], ())]
        lines.append(f"deployctl: error: {cause.line(fold)}")
        hint = cause.hint_line(fold)
        if hint and hint not in hinted:
            hinted.add(hint)
            lines.append(f"deployctl: hint: {hint}")
    if rest := found[_MOST:]:
        hosts = fold(dict.fromkeys(host for cause in rest for host in cause.hosts))
        lines.append(printable(f"deployctl: error: {hosts}: {len(rest)} more kinds of failure"))
    return lines


def _without_host(message: str, event: Mapping[str, Any]) -> str:
    """`message` with `{hosts}` for the host's own name and address, so that equal causes compare equal."""
    data = event.get("data")
    for own in (text(event, "host"), text(data, "address")):
        if own:
            message = re.sub(rf"(?<![\w.-]){re.escape(own)}(?![\w-]|\.\w)", "{hosts}", message)
    return message
