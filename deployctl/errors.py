"""Every error deployctl raises on purpose, with its exit code and, where there is one, a hint.

Owns the tree below and the kinds of failure a host can have; refuses to know how an error is shown.

    DeployctlError            1
    ├ UsageError              2   the call was wrong
    ├ InventoryError         10   the inventory is wrong; no host was contacted
    ├ SourceError            11   SOURCE cannot be packed; no host was changed
    ├ HostError               -   one host failed; `code` is the kind (see `Code`)
    └ TaskFailed              -   a pool task failed; carries its result
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of the program, as documented for scripts."""

    OK = 0
    DEFECT = 1
    USAGE = 2
    INVENTORY = 10
    SOURCE = 11
    LOCKED = 12
    ABORTED = 20
    REVERTED = 21
    MIXED = 22
    HUP = 129
    INT = 130
    TERM = 143


class Code(IntEnum):
    """Kinds of failure of one host; 0 is none."""

    OK = 0
    UNREACHABLE = 10
    TIMED_OUT = 11
    HOST_KEY = 12
    LOGIN = 13
    JUMP = 14
    LOST = 20
    TOOL_MISSING = 30
    NO_SPACE = 31
    NOT_PERMITTED = 32
    DIGEST = 33
    HOOK = 40
    CHECK = 41
    LOCKED = 50
    WORKER_DIED = 60
    UNEXPECTED = 61


DEFECT_HINT = "this is a defect of deployctl: please report it with the output of --debug"


class DeployctlError(Exception):
    """Base of all; `message` is lower case without a full stop, `hint` says what to do."""

    exit_code: Exit = Exit.DEFECT

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DeployctlError):
    exit_code = Exit.USAGE


class InventoryError(DeployctlError):
    """The inventory is wrong; `problems` are whole lines `FILE:LINE:COLUMN: key.path: what is wrong`."""

    exit_code = Exit.INVENTORY

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class SourceError(DeployctlError):
    """SOURCE cannot be packed; `problems` are one line for each path (escaped for printing)."""

    exit_code = Exit.SOURCE

    def __init__(self, problems: Sequence[str] | str, *, hint: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems), hint=hint)


class HostError(DeployctlError):
    """One host failed; raised in a worker, crosses to the parent as JSON only."""

    exit_code = Exit.ABORTED

    def __init__(
        self, code: Code, message: str, *, hint: str | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.data = dict(data or {})


class TaskFailed(DeployctlError):  # noqa: N818 - the name is public surface
    """A pool task failed; `result` is its `{"code", "message", "data"}`."""

    def __init__(self, key: str, result: Mapping[str, Any]) -> None:
        super().__init__(f"{key}: {result['message']}")
        self.key = key
        self.result = dict(result)
