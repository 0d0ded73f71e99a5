"""A real ssh-agent for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.proc import die_with_parent, wait_until


class SshAgent:
    """An agent of its own at `socket`; a context manager."""

    def __init__(self, directory: Path, env: dict[str, str] | None = None) -> None:
        self.socket = directory / "agent.sock"
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self.socket)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", **(env or {})},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads in tests
        )
        wait_until(
            lambda: self.socket.exists() or self._process.poll() is not None, what="the start of ssh-agent"
        )

    def add(self, key: Path, *options: str) -> None:
        env = {"SSH_AUTH_SOCK": str(self.socket), "PATH": "/usr/bin:/bin"}
        subprocess.run(
            ["ssh-add", "-q", *options, str(key)], env=env, check=True, stdin=subprocess.DEVNULL, timeout=20
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
