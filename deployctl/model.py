"""Plain data that crosses modules and processes.

Owns the words of the program as types; refuses to know how anything is done. Everything here turns into JSON and
back without loss, since that is what crosses a pipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SCHEMA = 1  # of every JSON object we print
PASSPHRASE_ENV = "DEPLOYCTL_PASSPHRASE"  # noqa: S105 - its name


def for_others(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that programs get which are not ours: all of `environ` but the passphrase of the keys."""
    return {name: value for name, value in environ.items() if name != PASSPHRASE_ENV}


class Phase(StrEnum):
    CONNECT = "connect"
    PROBE = "probe"
    UPLOAD = "upload"
    STAGE = "stage"
    ACTIVATE = "activate"
    CHECK = "check"
    REVERT = "revert"
    CLEAN = "clean"
    PRUNE = "prune"
    COPY = "copy"
    RUN = "run"


class State(StrEnum):
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"  # it broke: the cause
    CANCELLED = "cancelled"  # begun or staged, then stopped by us
    SKIPPED = "skipped"  # never contacted
    REVERTED = "reverted"  # switched back


class Outcome(StrEnum):
    RELEASED = "released"
    UNCHANGED = "unchanged"
    STAGED = "staged"
    PLANNED = "planned"
    ABORTED = "aborted"
    REVERTED = "reverted"
    MIXED = "mixed"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"
    OK = "ok"
    FAILED = "failed"


class HostKeys(StrEnum):
    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


@dataclass(frozen=True, slots=True)
class Var:
    """One variable for hooks: a literal `value`, or the name of an environment variable `env`."""

    value: str | None = None
    env: str | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """One SSH target as the inventory says it; None means: not said there, so ssh config or the default decides."""

    name: str
    address: str  # as written, without brackets; the name when the inventory gives none
    path: str  # the deploy root, absolute, {host} and {app} filled in
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None  # ~ expanded
    known_hosts: str | None = None  # ~ expanded
    host_keys: HostKeys = HostKeys.STRICT
    jump: str | None = None  # [user@]host[:port], several joined by commas
    fingerprint: str | None = None  # "SHA256:…"
    connect_timeout_s: float | None = None
    retries: int = 2
    groups: tuple[str, ...] = ()
    vars: Mapping[str, Var] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """What outlives releases: paths below the deploy root's `shared/`, relative, without `..`."""

    dirs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter((*self.dirs, *self.files))
