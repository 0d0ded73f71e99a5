"""A TCP proxy that delays, drips, stalls, drops or cuts what passes; in a process of its own.

Not a thread here: code under test forks, and a fork with threads about is what it must never do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = Path(__file__).with_name("proxy_process.py")


class Proxy:
    """Listens on `address` and a free `port`, forwards to `upstream`; a context manager.

    Without `upstream` it says `greeting` to whoever connects (again and again with `flood`) and listens. `buffer` is its
    receive buffer in bytes, so that a stall is felt early.
    """

    def __init__(
        self,
        upstream: tuple[str, int] | None = None,
        *,
        greeting: bytes = b"",
        flood: bool = False,
        address: str = "127.0.0.1",
        buffer: int = 0,
    ) -> None:
        self.address = address
        settings = {
            "upstream": upstream, "greeting": greeting.decode("latin-1"), "flood": flood, "address": address, "buffer": buffer,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port: int = self._answer()["port"]

    def up(self, **settings: Any) -> None:
        """What happens towards the server: mode="pass"|"stall"|"drop", delay_s=, rate= (bytes/s), cut_after= (bytes), cuts= (each once),
        flip=True (one bit of each piece).
        """
        self._order(up=settings)

    def down(self, **settings: Any) -> None:
        self._order(down=settings)

    def both(self, **settings: Any) -> None:
        self._order(up=settings, down=settings)

    def reset(self) -> None:
        """RST on every connection, both sides."""
        self._order(cut="rst")

    def finish(self) -> None:
        """FIN on every connection, both sides."""
        self._order(cut="fin")

    def redirect(self, upstream: tuple[str, int]) -> None:
        """New connections go elsewhere."""
        self._order(upstream=upstream)

    @property
    def counts(self) -> dict[str, int]:
        """Bytes `up` and `down`, connections `accepted`, and `turns`: how often `up` followed `down`."""
        return self._order()

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy's process has died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
