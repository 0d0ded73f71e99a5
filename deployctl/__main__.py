"""`python -m deployctl` and the `deployctl` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    from deployctl.cli.main import run  # noqa: PLC0415 - keeps `import deployctl` free of click
    from deployctl.output.stream import detach_broken_stdout, fill_closed_streams  # noqa: PLC0415

    fill_closed_streams()
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as we run
    code = run()
    detach_broken_stdout()
    sys.exit(code)


if __name__ == "__main__":
    main()
