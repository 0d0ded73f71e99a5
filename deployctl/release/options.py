"""What every command that talks to hosts takes from whoever calls it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

FORKS = 32
TIMEOUT_S = 15 * 60.0


class Question(Protocol):
    """A yes-or-no question on the terminal that does not keep the loop from turning."""

    @property
    def fd(self) -> int:
        """Readable when an answer may have come."""

    def put(self, text: str) -> None:
        """Ask."""

    def take(self) -> bool | None:
        """Return the answer, None when there is none yet."""


@dataclass(frozen=True, slots=True)
class Options:
    """What every command that talks to hosts takes; `ask` asks a secret on the terminal, None where there is none."""

    limit: str | None = None
    forks: int | None = None
    timeout_s: float = TIMEOUT_S
    ask_pass: bool = False
    ask: Callable[[str], str] | None = None
    message: str | None = None
    wait_lock_s: float = 0.0
    limit_rate_bytes_s: int | None = None  # of all uploads together
    batch: str | None = None
    batch_wait_s: float = 0.0
    confirm: Question | None = None  # put before each batch
    debug: bool = False  # tell every remote command as it is sent
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
