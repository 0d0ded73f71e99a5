"""`python -m deployctl` and the `deployctl` command."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def main() -> None:
    from deployctl.cli.main import run  # noqa: PLC0415 - keeps `import deployctl` free of click
    from deployctl.output.stream import (  # noqa: PLC0415
        ClosedStream,
        detach_broken_stdout,
        fill_closed_streams,
    )

    fill_closed_streams()
    sys.stdout = sys.stdout or ClosedStream("standard output")
    code = run()
    detach_broken_stdout()
    leave(code)


def leave(code: int) -> NoReturn:
    """End now: the interpreter's own way takes 60 ms, to free what is gone a moment later."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    atexit._run_exitfuncs()  # noqa: SLF001 - as the interpreter does it
    os._exit(code)


if __name__ == "__main__":
    main()
