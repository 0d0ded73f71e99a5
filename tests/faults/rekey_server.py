"""An SSH server that asks for new keys after 1 MiB and then hangs up, or falls silent. Run as a program."""

from __future__ import annotations

import sys
import threading
from typing import Any

from deployctl.demo import server

HOW = sys.argv.pop(1)


class Leaving(server.Connection):
    """Leaves when the client has said that it takes part in the second exchange of keys."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.packetizer.REKEY_BYTES = 1 << 20
        self._exchanges = 0

    def _parse_kex_init(self, message: Any) -> None:
        self._exchanges += 1
        if self._exchanges > 1:
            if HOW == "closes":
                self.sock.close()
            threading.Event().wait(None if HOW == "stalls" else 0.1)
        super()._parse_kex_init(message)  # type: ignore[misc]


server.Connection = Leaving  # type: ignore[misc]
server.main()
