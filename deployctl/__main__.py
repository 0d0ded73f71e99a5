"""`python -m deployctl` and the `deployctl` command."""

from __future__ import annotations

import sys


def main() -> None:
    from deployctl.cli.main import run  # noqa: PLC0415 - keeps `import deployctl` free of click

    sys.exit(run())


if __name__ == "__main__":
    main()
