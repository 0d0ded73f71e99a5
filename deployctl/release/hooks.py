"""Which hooks and checks run where, with which environment; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from deployctl.host.layout import live_release
from deployctl.inventory import Check, Hook
from deployctl.model import Host

LOCAL = ("build", "released", "failed")  # run here, the others on the hosts


def on_hosts(hooks: Sequence[Hook], hosts: Iterable[Host]) -> dict[str, list[dict[str, Any]]]:
    """Return each host's hooks in their order, by host name; a `once` hook goes to the first host it fits.

    `hosts` are all that take part, not those of one batch: else a `once` hook would run once in each.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    hosts = tuple(hosts)
    for hook in hooks:
        fitting = [host for host in hosts if not hook.groups or set(hook.groups) & set(host.groups)]
        for host in fitting[:1] if hook.once else fitting:
            found.setdefault(host.name, []).append({"run": hook.run, "timeout_s": hook.timeout_s})
    return {host.name: found[host.name] for host in hosts if host.name in found}


def environment(app: str, release: str, host: Host | None, previous: str | None) -> dict[str, str]:
    """Return what every hook gets; `previous` is the release it takes over from, None for none."""
    root = host.path if host else ""
    return {
        "DEPLOYCTL_APP": app,
        "DEPLOYCTL_RELEASE": release,
        "DEPLOYCTL_HOST": host.name if host else "",
        "DEPLOYCTL_RELEASE_PATH": f"{root}/releases/{release}" if host else "",
        "DEPLOYCTL_CURRENT_PATH": f"{root}/current" if host else "",
        "DEPLOYCTL_PREVIOUS_RELEASE": live_release(previous) or "",
    }


def checks_for(checks: Sequence[Check], host: Host, app: str, release: str) -> list[dict[str, Any]]:
    """Return a host's checks with their placeholders filled in."""
    return [
        {
            "url": check.url_for(host, app=app, release=release) if check.url else None,
            "run": check.run,
            "from": check.from_,
            "expect": check.expect,
            "text": check.text.replace("{release}", release) if check.text else None,
            "timeout_s": check.timeout_s,
            "interval_s": check.interval_s,
        }
        for check in checks
    ]


def batches(text: str | None, hosts: int) -> list[int]:
    """Turn `--batch` into sizes that add up to `hosts`: numbers or percent, the last one repeated. ValueError."""
    if hosts == 0:
        return []
    sizes = [_size(part.strip(), hosts) for part in ("100%" if text is None else text).split(",")]
    found: list[int] = []
    while (left := hosts - sum(found)) > 0:
        found.append(min(left, sizes[min(len(found), len(sizes) - 1)]))
    return found


def _size(text: str, hosts: int) -> int:
    number = text.removesuffix("%")
    if (
        not (number.isascii() and number.isdigit())
        or int(number) == 0
        or (text.endswith("%") and int(number) > 100)
    ):
        raise ValueError(f"{text!r} is neither a number of hosts nor a percentage above 0")
    return max(1, int(number) * hosts // 100) if text.endswith("%") else int(number)
