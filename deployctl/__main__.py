"""`python -m deployctl` and the `deployctl` command."""

from __future__ import annotations

import sys


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
    sys.exit(code)


if __name__ == "__main__":
    main()
