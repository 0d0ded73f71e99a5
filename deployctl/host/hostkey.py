"""Is this the host it should be: the key it shows against the pin, or against known_hosts.

Owns the policy (a pin, strict, accept-new) and the words of a refusal; nothing here is ever retried.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from deployctl.errors import Code, HostError
from deployctl.host.knownhosts import Answer, Known, fingerprint, learned_line
from deployctl.host.target import Target
from deployctl.model import HostKeys


@dataclass(frozen=True, slots=True)
class Learned:
    """A key that was new and accepted: the parent adds `line` to `path`."""

    path: str
    line: str


def check_host_key(target: Target, known: Answer, kind: str, blob: bytes) -> Learned | None:
    """Returns what was learned, if anything; raises HostError(HOST_KEY) unless the key is the host's."""
    seen = fingerprint(blob)
    for revoked in known.revoked:
        if revoked.blob == blob:
            raise _refusal(target, f"its {kind} key {seen} is revoked ({revoked.where})", kind, seen)
    if target.fingerprint:
        if seen != target.fingerprint:
            message = f"its {kind} key is {seen}, but the inventory says {target.fingerprint}"
            raise _refusal(target, message, kind, seen, expected=target.fingerprint)
        return None
    if any(entry.blob == blob for entry in (*known.keys, *known.portless)):
        return None
    if known.keys:
        raise _changed(target, known.keys, kind, seen)
    if target.host_keys is HostKeys.ACCEPT_NEW and target.known_hosts:
        return Learned(target.known_hosts[0], learned_line(target, kind, blob))
    return _unknown(target, kind, seen)


def _changed(target: Target, keys: list[Known], kind: str, seen: str) -> HostError:
    old = next((entry for entry in keys if entry.type == kind), keys[0])
    message = f"host key changed: it shows the {kind} key {seen}, expected is the {old.type} key {old.fingerprint} ({old.where})"
    path = old.where.rpartition(":")[0]
    hint = (
        "someone may be listening in; if its administrator confirms the new fingerprint: "
        f"ssh-keygen -R {shlex.quote(target.key_names[0])} -f {shlex.quote(path)}"
    )
    return _refusal(target, message, kind, seen, hint=hint, expected=old.fingerprint)


def _unknown(target: Target, kind: str, seen: str) -> Learned:
    where = shlex.quote(target.known_hosts[0]) if target.known_hosts else "~/.ssh/known_hosts"
    hint = f"if its administrator confirms that fingerprint: {_get_known(target, where)}"
    raise _refusal(target, f"host key unknown: it shows the {kind} key {seen}", kind, seen, hint=hint)


def _get_known(target: Target, where: str) -> str:
    """The command that makes the host known; ssh-keyscan can't go through others."""
    port = "" if target.port == 22 else f"-p {target.port} "
    if not target.hops and not target.proxy_command:
        return f"ssh-keyscan {port}{shlex.quote(target.address)} >> {where}"
    jump = f"-J {shlex.quote(','.join(hop.name for hop in target.hops))} " if target.hops else ""
    login = shlex.quote(f"{target.user}@{target.address}")
    return f"ssh -o UserKnownHostsFile={where} {jump}{port}{login} true"


def _refusal(
    target: Target,
    message: str,
    kind: str,
    seen: str,
    *,
    hint: str | None = None,
    expected: str | None = None,
) -> HostError:
    data = {"key_type": kind, "fingerprint": seen, "expected": expected}
    return HostError(Code.HOST_KEY, f"{target.endpoint}: {message}", hint=hint, data=data)
